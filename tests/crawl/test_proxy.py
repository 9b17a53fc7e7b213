"""The user's proxy: what is asked through it, what it is not asked, and what is told of it."""

import asyncio
import socket
from collections import Counter

import pytest

from kd3_pipeline.crawl import fetch as module
from kd3_pipeline.crawl.fetch import fetch
from kd3_pipeline.crawl.http import Client, Unanswered, Web
from kd3_pipeline.crawl.journal import Journal
from kd3_pipeline.crawl.proxy import LOGIN, Proxy, unused_proxies
from kd3_pipeline.errors import ExternalError, UserError
from tests.crawl.hosts import (
    AGENT,
    LIMITS,
    Host,
    Request,
    candidates_of,
    certificates,
    image,
    outcomes,
    redirect,
    reply,
    serving,
)
from tests.crawl.listener import Listener
from tests.crawl.middle import proxied
from tests.crawl.test_guard import HOSTILE


def crawled(folder, urls, proxy, *, hosts=None, tls=None, **changes):
    """Outcomes by address, and the records, of a crawl through a proxy."""
    params = LIMITS.model_copy(update={"opt_outs": "none"} | changes)
    with Journal(folder) as journal:
        web = Web(AGENT, hosts or {}, tls, Proxy(proxy))
        found = fetch(candidates_of(urls), params, journal, web, lambda *_: None)
        kept = list(journal.records)
    return outcomes(found), list(found.values()), kept


@pytest.fixture
def lookups(monkeypatch):
    """Names that this machine looks up; `proxy.example.com` is on loopback."""
    real, names = socket.getaddrinfo, []

    def getaddrinfo(host, port, *args, **options):
        names.append(host)
        return real("127.0.0.1" if host == "proxy.example.com" else host, port, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return names


def test_http_and_https_are_asked_through_the_proxy_which_alone_knows_the_names(
    tmp_path, lookups, monkeypatch
):
    monkeypatch.setenv(LOGIN, "zoë:p%40:ss@/")
    server, client = certificates(tmp_path, "1.test")
    host, other = Host({"/a%28b.jpg": image(1)}), Host({"/b.jpg": image(2)}, server)
    host.routes["/to.jpg"] = redirect("https://1.test/b.jpg")
    with serving(host, other) as hosts, proxied(hosts) as middle:
        urls = ["http://0.test/a%28b.jpg?c d", "https://1.test/b.jpg", "http://0.test/to.jpg"]
        got, records, _ = crawled(tmp_path / "j", urls, middle.address, tls=client)
    assert set(got.values()) == {"ok"}
    assert Counter(middle.asked) == {
        "GET http://0.test/robots.txt": 1,
        "GET http://0.test/a%28b.jpg?c%20d": 1,
        "GET http://0.test/to.jpg": 1,
        "CONNECT 1.test:443": middle.asked.count("CONNECT 1.test:443"),
    }
    assert all("Proxy-Authorization: Basic em/rOnAlNDA6c3NALw==" in head for head in middle.heads)
    for headers in (*host.headers, *other.headers):
        assert not any(name.lower().startswith("proxy-") for name in headers)
        assert headers["User-Agent"] == AGENT
    assert {headers["Host"] for headers in other.headers} == {"1.test"}
    assert "0.test" not in lookups and "1.test" not in lookups
    assert not any("ss@" in f"{record}" for record in records)


def test_a_stranger_behind_the_proxy_is_not_trusted(tmp_path):
    server, client = certificates(tmp_path, "1.test")
    with serving(Host({"/b.jpg": image(2)}, server)) as hosts, proxied(hosts) as middle:
        got, _, _ = crawled(tmp_path / "j", ["https://0.test/b.jpg"], middle.address, tls=client)
    assert set(got.values()) == {"certificate"}


def test_no_hostile_address_is_asked_of_the_proxy(tmp_path):
    door, secret = Host(), Listener({}, "127.0.0.1")
    secret.otherwise = image(0)
    urls = [url.replace("{port}", str(secret.server_port)) for url in HOSTILE]
    with serving(door, secret) as hosts, proxied({"0.test": hosts["0.test"]}) as middle:
        got, _, _ = crawled(tmp_path / "list", urls, middle.address)
        assert set(got.values()) == {"forbidden_address"} and middle.asked == []
        relative = ("http:///", "HTTP")
        targets = [url for url in urls if url.isprintable() and url[:8].startswith("http://")]
        targets = [url for url in targets if url != "http://" and not url.startswith(relative)]
        door.routes = {f"/{n}.jpg": redirect(target) for n, target in enumerate(targets)}
        pages = [f"http://0.test{path}" for path in door.routes]
        got, _, _ = crawled(tmp_path / "led", pages, middle.address)
    assert set(got.values()) == {"forbidden_address", "malformed_address"} and len(targets) > 80
    assert {line.split("/")[2] for line in middle.asked} == {"0.test"}
    assert secret.connections == 0


def test_the_proxy_itself_is_no_host(tmp_path, lookups):
    with serving(Host({"/x.jpg": image(1)})) as hosts, proxied(hosts) as middle:
        port = middle.address.rpartition(":")[2]
        proxy = f"http://proxy.example.com:{port}"
        urls = [f"{proxy}/squid-internal-mgr/info", "http://PROXY.example.com./x.jpg"]
        got, records, _ = crawled(tmp_path, [*urls, "http://0.test/x.jpg"], proxy)
    assert list(got.values()) == ["forbidden_address"] * 2 + ["ok"]
    assert "is the proxy itself" in records[0].detail
    assert not any("proxy" in line for line in middle.asked)


def test_what_the_proxy_refuses_is_no_fault_of_a_host(tmp_path):
    refusals = {"1.test": 403, "2.test": 502, "3.test": 407, "4.test": 407}
    names = ["0.test", *refusals]
    urls = [
        f"http{'s' if name in ('1.test', '2.test', '3.test') else ''}://{name}/x.jpg"
        for name in names
    ]
    with serving(Host({"/x.jpg": image(1)})) as hosts, proxied(hosts, refusals) as middle:
        got, records, kept = crawled(tmp_path, urls, middle.address, robots=False)
    assert got == dict(zip(urls, ["ok"] + ["not_now"] * 4, strict=True))
    told = {record.url: record.detail for record in records}
    assert told[urls[1]] == "1.test: proxy: the proxy answered 403 no"
    assert "2.test: connection:" in told[urls[2]] and "the proxy answered 502" in told[urls[2]]
    assert told[urls[3]] == f"3.test: proxy: the proxy answered 407 no: see {LOGIN}"
    assert told[urls[4]] == f"4.test: proxy: the proxy answered 407: see {LOGIN}"
    assert kept == urls[:1]


class Babbler(Request):
    """A proxy whose answers to CONNECT are no HTTP."""

    def do_CONNECT(self):
        self.close_connection = True
        self.wfile.write(b"\x16\3\1 no HTTP\r\n\r\n")


def test_what_a_proxy_says_that_is_no_http_is_no_answer_of_a_host(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BACK_OFF", 0.01)
    babbler = Host()
    babbler.RequestHandlerClass = Babbler
    with serving(babbler) as hosts:
        address = "http://{}:{}".format(*hosts["0.test"])
        got, records, kept = crawled(tmp_path, ["https://1.test/a.jpg"], address, robots=False)
    assert (list(got.values()), kept) == (["not_now"], [])
    assert "proxy: the proxy's answer is no HTTP: Bad status line" in records[0].detail


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_wants_a_login_ends_the_crawl_with_what_to_set(tmp_path, monkeypatch, scheme):
    monkeypatch.setenv(LOGIN, "name:secret-word")
    names = [f"{n}.test" for n in range(12)]
    urls = [f"{scheme}://{name}/{n}.jpg" for name in names for n in range(3)]
    refusals = dict.fromkeys(names, 407)
    with proxied({}, refusals) as middle, pytest.raises(ExternalError) as caught:
        crawled(tmp_path, urls, middle.address, robots=False)
    assert "407" in str(caught.value) and LOGIN in str(caught.value)
    assert "secret" not in f"{caught.value} {caught.value.hint}"
    with Journal(tmp_path) as journal:
        assert not journal.records


def test_a_proxy_that_is_down_is_told_before_anything_is_asked(tmp_path):
    with proxied({}) as middle:
        pass
    with pytest.raises(
        ExternalError, match=r"crawl\.proxy: 127\.0\.0\.1:\d+ cannot be reached: .*refused"
    ):
        crawled(tmp_path, ["http://0.test/x.jpg"], middle.address)


def test_a_page_says_what_the_proxy_refuses_and_no_login(tmp_path, monkeypatch):
    monkeypatch.setenv(LOGIN, "name:secret-word")

    async def ask(proxy, url):
        async with Client(Web(AGENT, {}, None, Proxy(proxy))) as client:
            return await client.page(url, 1000)

    refusals = {"1.test": 407, "2.test": 403}
    with serving(Host({"/": reply(b"page")})) as hosts, proxied(hosts, refusals) as middle:
        assert asyncio.run(ask(middle.address, "http://0.test/")).body == b"page"
        for url in ("http://1.test/", "https://1.test/", "https://2.test/", "https://3.test/"):
            with pytest.raises(Unanswered, match="the proxy answered") as caught:
                asyncio.run(ask(middle.address, url))
            assert "secret" not in str(caught.value)


def test_names_of_the_demo_are_not_asked_through_the_proxy(tmp_path):
    with serving(Host({"/x.jpg": image(1)})) as hosts, proxied({}) as middle:
        got, _, _ = crawled(tmp_path, ["http://0.test/x.jpg"], middle.address, hosts=hosts)
    assert set(got.values()) == {"ok"} and middle.asked == []


@pytest.mark.parametrize(
    "address",
    [
        "proxy.example.com:3128",
        "https://proxy.example.com:3128",
        "socks5://127.0.0.1:1080",
        "http://",
        "http://:3128",
        "http://proxy.example.com:3128/path",
        "http://proxy.example.com:3128?x",
        "http://proxy.example.com:port",
        "http://[::1",
    ],
)
def test_what_is_no_proxy_is_refused(address):
    with pytest.raises(UserError) as caught:
        Proxy(address)
    assert "crawl.proxy" in str(caught.value) and "http://HOST:PORT" in caught.value.hint


@pytest.mark.parametrize(
    "address",
    ["http://name:secret@127.0.0.1:3128", "name:secret@127.0.0.1:3128", "http://secret@h"],
)
def test_a_login_in_a_file_is_refused_and_not_repeated(address):
    with pytest.raises(UserError) as caught:
        Proxy(address)
    assert LOGIN in caught.value.hint and "secret" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize("login", ["secret", ":secret", "名:secret"])
def test_a_login_that_is_none_is_refused_and_not_repeated(login, monkeypatch):
    monkeypatch.setenv(LOGIN, login)
    with pytest.raises(UserError, match=LOGIN) as caught:
        Proxy("http://127.0.0.1:3128")
    assert "secret" not in str(caught.value)


def test_proxies_of_other_programs_are_known_by_name(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    assert unused_proxies() == []
    monkeypatch.setenv("HTTP_PROXY", "http://name:secret@127.0.0.1:9")
    monkeypatch.setenv("all_proxy", " ")
    assert unused_proxies() == ["HTTP_PROXY"]
