"""The one HTTP client: its guard at every hop, what it never sends, and what it never reads."""

import asyncio
import gzip
import socket
import threading
import time

import pytest

from kd3_pipeline.crawl import guard
from kd3_pipeline.crawl.guard import Forbidden
from kd3_pipeline.crawl.http import (
    LONGEST_RETRY_AFTER,
    Client,
    Unanswered,
    Web,
    first_line,
    retry_after,
)
from tests.crawl.hosts import Host, certificates, redirect, reply, serving
from tests.crawl.listener import Listener

MOST = 1_000_000  # bytes
SECONDS = 5.0


def asked(hosts, *urls, tls=None, **options):
    """The last page of these, asked for by one client."""

    async def ask():
        async with Client(Web("kd3-test/1", hosts, tls)) as client:
            for url in urls:
                page = await client.page(url, **({"most": MOST, "seconds": SECONDS} | options))
            return page

    return asyncio.run(ask())


def test_a_page_comes_from_the_host_table_whatever_proxy_is_set(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    host = Host({"/a": reply(b"text")})
    with serving(host) as hosts:
        assert asked(hosts, "http://0.test/a?b=c").body == b"text"
    assert host.headers[0]["User-Agent"] == "kd3-test/1"
    assert host.headers[0]["Host"] == "0.test"
    assert host.targets == ["/a?b=c"]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/",
        "http://localhost:{port}/",
        "http://127.1:{port}/",
        "http://2130706433:{port}/",
        "http://0x7f000001:{port}/",
        "http://0177.0.0.1:{port}/",
        "http://[::1]:{port}/",
        "http://[::ffff:127.0.0.1]:{port}/",
        "http://127.0.0.1.:{port}/",
        "http://１２７.0.0.1:{port}/",
        "http://127.0.0.%31:{port}/",
        "http://0.test@127.0.0.1:{port}/",
        "http://127.0.0.1:{port}\\@0.test/",
        "http://user:word@0.test/",
        "http://0.test:22/",
        "http://169.254.169.254/latest/meta-data/",
        "http://metadata.google.internal/computeMetadata/v1/",
        "file:///etc/passwd",
        "ftp://127.0.0.1:{port}/",
    ],
)
def test_no_hostile_address_is_asked_for_nor_led_to(url):
    secret, door = Listener(), Host()
    with serving(door, secret) as hosts:
        port = hosts.pop("1.test")[1]
        url = url.replace("{port}", str(port))
        door.routes["/"] = redirect(url.encode().decode("latin-1"))
        for address in (url, "http://0.test/"):
            with pytest.raises(Forbidden):
                asked(hosts, address)
    assert secret.requests == {} and secret.connections == 0
    assert door.requests == {"/": 1}


def test_a_backslash_ends_the_name_as_it_does_in_browsers():
    secret, door = Listener(), Host()
    with serving(door, secret) as hosts, pytest.raises(Forbidden):
        asked({"0.test": hosts["0.test"]}, f"http://127.0.0.1:{secret.server_port}\\@0.test/")
    assert secret.connections == 0


def dns(monkeypatch, *answers):
    """DNS that gives one answer after the other; IP addresses mean themselves, as ever."""
    real, left, questions = socket.getaddrinfo, list(answers), []

    def getaddrinfo(host, port, *args, **options):
        if host.replace(".", "").replace(":", "").isdigit():
            return real(host, port, *args, **options)
        questions.append(host)
        addresses = left.pop(0)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return questions


def test_a_name_that_changes_its_meaning_gets_no_second_look(monkeypatch):
    # for this test 127.0.0.2 is public: the only way to have a server at a public address
    real = guard.check_address
    monkeypatch.setattr(guard, "check_address", lambda one: one == "127.0.0.2" or real(one))
    public = Listener({"/": reply(b"public")}, "127.0.0.2")
    secret = Listener({"/": reply(b"secret")}, "127.0.0.1", public.server_port)
    url = f"http://rebinding.example:{public.server_port}/"
    with serving(public, secret):
        questions = dns(monkeypatch, ["127.0.0.2"], ["127.0.0.1"], ["127.0.0.2", "127.0.0.1"])
        assert asked({}, url, url).body == b"public"
        assert len(questions) == 1
        for _ in range(2):
            with pytest.raises(Forbidden):
                asked({}, url)
    assert public.requests == {"/": 2}
    assert secret.connections == 0


def test_of_several_addresses_one_that_answers_is_taken(monkeypatch):
    monkeypatch.setattr(guard, "check_address", lambda one: None)
    host = Listener({"/": reply(b"text")}, "127.0.0.2")
    with serving(host):
        dns(monkeypatch, ["127.0.0.3", "127.0.0.2"])
        assert asked({}, f"http://two.example:{host.server_port}/").body == b"text"


def test_a_name_that_does_not_resolve_is_told():
    with pytest.raises(Unanswered, match="resolved"):
        asked({}, "http://no-such-name.invalid/")


def test_redirects_are_few_and_their_bodies_are_not_read():
    def endless(request):
        request.send_response(302)
        request.send_header("Location", "/end")
        request.end_headers()
        try:
            while True:
                request.wfile.write(bytes(1 << 16))
        except OSError:
            request.close_connection = True

    host = Host({"/": endless, "/end": reply(b"end"), "/loop": redirect("/loop")})
    with serving(host) as hosts:
        start = time.monotonic()
        page = asked(hosts, "http://0.test/")
        assert (page.body, page.address) == (b"end", "http://0.test/end")
        alone = asked(hosts, "http://0.test/", follow=False)
        assert (alone.status, alone.body, alone.leads_to) == (302, b"", "http://0.test/end")
        assert time.monotonic() - start < SECONDS
        with pytest.raises(Unanswered, match="more than 5 redirects"):
            asked(hosts, "http://0.test/loop")
    assert host.requests["/loop"] == 6


@pytest.mark.parametrize("location", ["http://[", "http://a\xff.test/", "http://[::1", "//[x]/"])
def test_a_malformed_redirect_is_told(location):
    def odd(request):
        request.wfile.write(b"HTTP/1.1 302 x\r\nLocation: " + location.encode("latin-1"))
        request.wfile.write(b"\r\nContent-Length: 0\r\n\r\n")

    with serving(Host({"/": odd})) as hosts, pytest.raises((Unanswered, Forbidden)):
        asked(hosts, "http://0.test/")


def test_no_cookie_is_kept_not_even_in_a_redirect():
    cookies = {"Set_Cookie": "a=b; Path=/"}
    host = Host({"/": reply(b"", 302, Location="/next", **cookies), "/next": reply(b"", **cookies)})
    with serving(host) as hosts:
        asked(hosts, "http://0.test/", "http://0.test/")
    assert len(host.headers) == 4
    assert not any("Cookie" in headers for headers in host.headers)


def test_a_token_goes_to_its_own_host_alone():
    host = Host({"/": redirect("/next"), "/next": redirect("http://1.test/x")})
    other = Host({"/x": redirect("http://0.test/back")})
    with serving(host, other) as hosts:
        asked(hosts, "http://0.test/", headers={"Authorization": "Bearer secret"})
    assert [names.get("Authorization") for names in host.headers] == ["Bearer secret"] * 2 + [None]
    assert [names.get("Authorization") for names in other.headers] == [None]


def short(request):
    request.send_response(200)
    request.send_header("Content-Length", "1000")
    request.end_headers()
    request.wfile.write(b"x")
    request.close_connection = True


def test_a_body_is_read_up_to_its_limit():
    text = b"x" * 100_000
    bomb = gzip.compress(bytes(50_000_000))
    host = Host(
        {
            "/": reply(text),
            "/packed": reply(gzip.compress(text), Content_Encoding="gzip"),
            "/bomb": reply(bomb, Content_Encoding="gzip"),
            "/short": short,
            "/odd": reply(b"no gzip", Content_Encoding="gzip"),
        }
    )
    with serving(host) as hosts:
        for path in ("/", "/packed"):
            assert asked(hosts, f"http://0.test{path}", most=100_000).body == text
            with pytest.raises(Unanswered, match="more than 99,999 bytes"):
                asked(hosts, f"http://0.test{path}", most=99_999)
        assert asked(hosts, "http://0.test/", most=9, cut=True).body == text[:9]
        with pytest.raises(Unanswered, match="more than"):
            asked(hosts, "http://0.test/bomb")
        for path in ("/short", "/odd"):
            with pytest.raises(Unanswered, match="broke off"):
                asked(hosts, f"http://0.test{path}")


def test_a_body_that_is_not_wanted_is_not_read():
    host = Host({"/": reply(b"x" * MOST, Content_Type="image/png")})
    with serving(host) as hosts:
        page = asked(hosts, "http://0.test/", most=9, wanted=lambda status, headers: status != 200)
    assert (page.status, page.body, page.headers["Content-Type"]) == (200, b"", "image/png")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_drips_ends_at_the_deadline(chunked):
    stop = threading.Event()

    def drip(request):
        request.send_response(200)
        if chunked:
            request.send_header("Transfer-Encoding", "chunked")
        else:
            request.send_header("Content-Length", "1000")
        request.end_headers()
        try:
            while not stop.wait(0.05):
                request.wfile.write(b"1\r\nx\r\n" if chunked else b"x")
        except OSError:
            request.close_connection = True

    with serving(Host({"/": drip})) as hosts:
        start = time.monotonic()
        with pytest.raises(Unanswered, match=r"more than 0\.3 s"):
            asked(hosts, "http://0.test/", seconds=0.3)
        stop.set()
    assert time.monotonic() - start < 2


def test_a_long_header_is_read_and_an_endless_one_is_not():
    host = Host(
        {"/": reply(b"text", Long="x" * 30_000), "/endless": reply(b"", Long="x" * 100_000)}
    )
    with serving(host) as hosts:
        assert asked(hosts, "http://0.test/").body == b"text"
        with pytest.raises(Unanswered):
            asked(hosts, "http://0.test/endless")


def test_tls_asks_for_the_name_and_trusts_no_stranger(tmp_path):
    server, client = certificates(tmp_path, "0.test", "1.test")
    names = []
    server.sni_callback = lambda connection, name, _: names.append(name)
    host = Host({"/": reply(b"text")}, server)
    with serving(host) as hosts:
        assert asked(hosts, "https://0.test/", tls=client).body == b"text"
        assert names == ["0.test"]
        with pytest.raises(Unanswered, match="certificate"):
            asked(hosts, "https://0.test/")
        with pytest.raises(Unanswered, match=r"2\.test"):
            asked({"2.test": hosts["0.test"]}, "https://2.test/", tls=client)
    assert host.requests == {"/": 1}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("20", 20.0),
        (" 0 ", 0.0),
        ("9" * 400, LONGEST_RETRY_AFTER),
        ("Wed, 21 Oct 2015 07:28:20 GMT", 20.0),
        ("Wednesday, 21-Oct-15 07:28:20 GMT", 20.0),
        ("Wed, 21 Oct 2015 07:28:20 -0000", 20.0),
        ("Wed Oct 21 07:28:20 2015", 20.0),  # the oldest form names no zone
        ("Wed, 21 Oct 2015 07:27:00 GMT", 0.0),
        ("Wed, 21 Oct 2099 07:28:00 GMT", LONGEST_RETRY_AFTER),
        ("-5", None),
        ("nan", None),
        ("²", None),
        ("Wed, 99 Oct 2037 07:28:00 GMT", None),
        ("soon", None),
        ("", None),
    ],
)
def test_a_wished_pause_is_seconds_or_a_date_in_utc(text, seconds, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1445412480.0)  # Wed, 21 Oct 2015 07:28:00 GMT
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert retry_after({"Retry-After": text}) == seconds
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_server_that_names_no_pause_wishes_none():
    assert retry_after({}) is None


@pytest.mark.parametrize(
    ("body", "kind", "line"),
    [
        (b"Too many requests", "", "Too many requests"),
        (b"\n\r\n  Please   set\ta user-agent\r\nSee", "text/plain", "Please set a user-agent"),
        (b"<html>\r\n<head><title>503 &amp; more</title></head>", "", "503 & more"),
        (b"<!-- a > b --><script>var a = '<b>'</script><h1>Slow\ndown</h1>", "text/html", "Slow"),
        (b"<style>p {}", "text/html", ""),
        (b"a < b", "text/plain", "a < b"),
        (b'{\n  "detail": "throttled"\n}', "application/json", '"detail": "throttled"'),
        (b'{"detail": "throttled"}', "application/json", '{"detail": "throttled"}'),
        ("\ufeff<p>Zu viele Anfragen für heute".encode(), "", "Zu viele Anfragen für heute"),
        (b"\x1b[2J\x00busy\x07", "", "[2J busy"),
        (b"\xff\xfe\xed\xa0\x80", "", ""),
        (b"", "text/html", ""),
        (b"y" * 9000, "", "y" * 200),
        (b"<" * 4096, "text/html", ""),
        (b"<script" * 600, "text/html", ""),
        (b"<!doctype html><style>b{}</style><script>var x</script>\nToo <b>many</b>", "", "Too"),
        *((odd, "", "") for odd in (b"<", b"<<>", b"<!", b"<p>" * 9000, b"< \0 >")),
    ],
)
def test_the_first_line_of_a_body_is_what_a_person_can_read(body, kind, line):
    assert first_line(body, kind) == line
    assert first_line(body, kind).isprintable()
