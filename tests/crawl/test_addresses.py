"""What is asked is what was written, and where it is asked is what was checked."""

import asyncio
import hmac
import random
import re
import string
import time
from urllib.parse import urlsplit

import aiohttp
import pytest
from yarl import URL

from kd3_pipeline.crawl import addresses
from kd3_pipeline.crawl.addresses import as_asked, target_of
from kd3_pipeline.crawl.blocklist import Blocklist, wire_host
from kd3_pipeline.crawl.guard import Forbidden, check_host, check_url
from tests.crawl.hosts import (
    Host,
    candidates_of,
    crawl,
    outcomes,
    picture,
    raw,
    redirect,
    reply,
    serving,
)

AS_WRITTEN = [
    "/paren%28x%29.jpg",
    "/foo%27bar.jpg?Signature=Z%2Fa%3D",
    "/smart/http%3A%2F%2F1.test%2Fx.jpg",
    "/s.jpg?credential=a%40b.com%2F2021&t=a+b%2B",
    "/%7Euser/~x.jpg",
    "/%E9t%E9.jpg",
    "/twice%2520encoded.jpg",
    "/100%.jpg",
    "/%zz.jpg",
    "/a|b^c[d];e=1,2!$&'()*+:@.jpg",
    "/a%7Cb%5Ec.jpg",
    "/q.jpg?x=a|b{c}^`\\[d]",
    "/b/c//d.jpg",
    "/y.jpg?",
    "/y.jpg?a=1&amp;b=2??&&=",
    "/x.jpg?u=http://127.0.0.1/../a/./b",
    "/long.jpg?x=" + "y" * 60_000,
]
ENCODED = {  # what browsers do with what no address may have
    "/my photo.jpg": "/my%20photo.jpg",
    "/q.jpg?size=a b": "/q.jpg?size=a%20b",
    "/a\u00a0b\u3000c\u2028d.jpg": "/a%C2%A0b%E3%80%80c%E2%80%A8d.jpg",
    "/peñoles.png?ñ=日本": "/pe%C3%B1oles.png?%C3%B1=%E6%97%A5%E6%9C%AC",
    "/nfd-e\u0301\u200b.jpg": "/nfd-e%CC%81%E2%80%8B.jpg",
    '/{a}"<b>`.jpg': "/%7Ba%7D%22%3Cb%3E%60.jpg",
    "/'a'.jpg?x='y'\"<>": "/'a'.jpg?x=%27y%27%22%3C%3E",
    "/x.jpg#a fragment?": "/x.jpg",
    "/x.jpg  ": "/x.jpg",
    "?x=1": "/?x=1",
    "": "/",
    "/../b/./c//d.jpg": "/b/c//d.jpg",
    "/a/%2E%2e/.%2e/b/..": "/",
    "/a//../b/%2e": "/a/b/",
    "/a/..b/...": "/a/..b/...",
    "/back\\slash.jpg?a\\b": "/back/slash.jpg?a\\b",
    "/a\\..\\b.jpg": "/b.jpg",
}


def test_of_ascii_is_encoded_what_chromium_encodes_but_for_two_characters():
    """As its parser (156) has it; the rest of an address ends at #, of a path at ? too.

    It encodes `|` and `^` in a path as well: they are signed as they are written.
    """
    visible = string.punctuation + string.ascii_letters + string.digits
    asked = {one: check_url(f"http://0.test/-{one}-?-{one}-") for one in visible if one not in "?#"}
    of_path = {one for one, url in asked.items() if f"/-{one}-" != url.raw_path}
    of_query = {one for one, url in asked.items() if f"-{one}-" != url.raw_query_string}
    assert of_path == set('"<>`{}\\')  # of which the last becomes a slash
    assert of_query == set("\"'<>")


@pytest.mark.parametrize("path", [*AS_WRITTEN, *ENCODED])
def test_a_path_and_a_query_are_asked_for_as_they_are_written(path):
    asked = check_url(f"http://0.test{path}")
    assert asked.raw_path_qs == ENCODED.get(path, path)
    assert str(asked) == f"http://0.test{ENCODED.get(path, path)}"
    assert check_url(str(asked)) == asked


def test_a_server_is_asked_for_what_the_list_has(tmp_path):
    wanted = [*AS_WRITTEN[:-1], *ENCODED.values()]
    host = Host()
    host.otherwise = lambda request: request.reply(picture(len(host.targets)))
    with serving(host) as hosts:
        urls = [f"http://0.test{path}" for path in [*AS_WRITTEN[:-1], *ENCODED]]
        for number, (url, target) in enumerate(zip(urls, wanted, strict=True)):
            host.targets.clear()
            found = crawl(tmp_path / str(number), candidates_of([url]), hosts, robots=False)
            assert list(outcomes(found).values()) == ["ok"]
            assert host.targets[-1] == target


def test_an_address_that_is_signed_as_it_is_written_is_not_refused(tmp_path):
    def sign(path):
        return hmac.new(b"key", path.encode(), "sha1").hexdigest()

    def signed(request):
        path, _, given = request.path.rpartition("sig=")
        good = hmac.compare_digest(sign(path), given)
        request.reply(picture(len(request.server.targets)), 200 if good else 403)

    paths = [path + ("&" if "?" in path else "?") for path in AS_WRITTEN[:-1]]
    host = Host()
    host.otherwise = signed
    with serving(host) as hosts:
        urls = [f"http://0.test{path}sig={sign(path)}" for path in paths]
        found = crawl(tmp_path, candidates_of(urls), hosts)
    assert {url: what for url, what in outcomes(found).items() if what != "ok"} == {}
    assert len(found) == len(AS_WRITTEN) - 1


@pytest.mark.parametrize(
    "name", ["b%C3%BCcher.test", "b%c3%bccher.test", "bücher.test", "B%C3%9CCHER.TEST"]
)
def test_an_international_host_may_be_spelt_in_escapes(name):
    asked = check_url(f"http://{name}:8080/a%28b.jpg")
    assert (asked.raw_host, asked.port) == ("xn--bcher-kva.test", 8080)
    assert str(asked) == "http://xn--bcher-kva.test:8080/a%28b.jpg"
    assert Blocklist(hosts=frozenset({"xn--bcher-kva.test"})).host(f"http://{name}/")


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.%31/",
        "http://%31%32%37.0.0.1/",
        "http://93.184.215.%31%34/",
        "http://exampl%65.com/",
        "http://example%2Ecom/",
        "http://0.test%40127.0.0.1/",
        "http://0.test%2F@127.0.0.1/",
        "http://0.test%5C/",
        "http://0.test%00/",
        "http://0.test%20/",
        "http://0.test%3A80/",
        "http://%E2%91%A0%E2%91%A1%E2%91%A6.0.0.%E2%91%A0/",  # ①②⑦.0.0.①
        "http://127%E3%80%820%E3%80%820%E3%80%821/",  # ideographic full stops
        "http://%E2%93%9Bocalhost/",  # ⓛ
        "http://0.test%EF%BC%8F.127.0.0.1/",  # a wide slash
        "http://0.test%EF%BC%A0127.0.0.1/",  # a wide @
        "http://0.test%EF%BC%9A22/",  # a wide colon
        "http://0.te%E2%80%8Bst/",
        "http://b%C3cher.test/",
        "http://b%ED%A0%80cher.test/",
        "http://0.test%E3%80%80/",
        "http://[fe80::1%25eth%C3%BC]/",
        "http://0.test\u3000/",
        "http://0.test\u00a0/",
        "http://0. test/",
        "http://0.test: 80/",
        "http://0.test:80 /",
        "http://0.test\\/x.jpg",
        "http://0.test\\@127.0.0.1/x.jpg",
        "http:\\\\0.test\\x.jpg",
        "http://0.test/a\tb.jpg",
        "http://0.test/a\x00b.jpg",
        "http://0.test/a\x85b.jpg",
        "http://0.test/a\x7fb.jpg?\n",
        "http://0.test/\ud800.jpg",
    ],
)
def test_a_host_stays_strict_and_control_characters_are_refused(address):
    with pytest.raises(Forbidden):
        check_url(address)


@pytest.mark.parametrize("host", ["a\u0301\u0323", "%CC%81", "ü", "１", "ü.", "%C3%BC.", "a"])
def test_a_host_without_end_takes_no_time(host):
    start = time.perf_counter()
    with pytest.raises(Forbidden):
        check_url(f"http://{host * 30_000}.test/x.jpg")
    assert wire_host(f"http://{host * 30_000}.test/x.jpg") == ""
    with pytest.raises(Forbidden):
        check_url(f"http://{(host * 1000)[:980]}.test/x.jpg")
    assert time.perf_counter() - start < 1


PARTS = [
    *"/:@?#[]%.\\\0\t\r\n é１。‥﹒ⅷßẞ\ud800\u202e\u00ad\u200b\u3000\xa0|^{}'\"<>`",
    *("http", "https", "HTTP", "ftp", "//", "\\\\", ":80", ":443", ":8080", ":22", ":８０", ":+81"),
    *("127.0.0.1", "::1", "[::1]", "[::ffff:7f00:1]", "0x7f", "0177.0.0.1", "2130706433", "65536"),
    *("xn--", "xn--bcher-kva", "bücher", "b%C3%BCcher", "test", "localhost", "user:x@", "a" * 70),
    *("%00", "%09", "%0d%0a", "%20", "%23", "%2e", "%2F", "%31", "%3A", "%40", "%5C", "%E2%91%A0"),
    *(
        "%EF%BC%8F",
        "%EF%BC%A0",
        "%E3%80%82",
        "..",
        "/../",
        "a.test",
        "@a.test",
        "\\@a.test",
        ".test",
    ),
]
STARTS = [
    "http://www.example.com:8080/a.jpg?b#c",
    "https://b%C3%BCcher.example/a%28.jpg",
    "http://bücher.example:443/ä b.jpg?c d",
    "http://93.184.215.14/a.jpg",
    "https://[2606:2800:220:1:248:1893:25c8:1946]:8443/a.jpg",
    "http://127.0.0.1:8080\\@example.com/",
]


def mutated(rng):
    """An address with a few places that are hostile."""
    text = list(rng.choice(STARTS))
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(min(len(text), 40)) if rng.random() < 0.8 else len(text) - 1
        text[place : place + rng.randint(0, 9)] = [rng.choice(PARTS)]
        text = text or list("http://a.test/")
    return "".join(text)


def test_whoever_reads_an_address_that_passed_connects_to_what_was_checked():
    visible = set(string.ascii_letters + string.digits + string.punctuation)

    async def look():
        rng, passed, spelt = random.Random(4), 0, set()
        loop = asyncio.get_running_loop()
        for _ in range(30_000):
            url = mutated(rng)
            try:
                asked = check_url(url)
            except Forbidden as error:
                assert str(error)
                continue
            passed += 1
            place = (asked.scheme, asked.raw_host, asked.port)
            check_host(asked.raw_host)
            assert asked.raw_host == asked.raw_host.lower() and set(str(asked)) <= visible
            # the client's own request, which says where it connects to
            request = aiohttp.ClientRequest("GET", asked, loop=loop)
            key = request.connection_key
            assert (key.is_ssl, key.host, key.port) == (asked.scheme == "https", *place[1:])
            assert set(request.url.raw_path_qs) <= visible
            # the same text in other hands: a proxy, the journal, the next hop of a redirect
            text = str(asked)
            other = urlsplit(text)
            port = other.port or {"http": 80, "https": 443}[other.scheme]
            assert (other.scheme, other.hostname, port) == place and other.username is None
            plain = URL(text)
            assert (plain.scheme, plain.raw_host, plain.port) == place
            assert check_url(text) == asked and wire_host(url) == asked.raw_host.rstrip(".")
            # what was written, as the client reads it by itself
            if "%" not in (written := URL(url.strip(" "))).raw_host:
                assert (written.scheme, written.raw_host, written.port) == place
            else:
                spelt.add(asked.raw_host)
        return passed, spelt

    passed, spelt = asyncio.run(look())
    assert passed > 4_000 and "xn--bcher-kva.example" in spelt


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("/to a place.jpg", "http://0.test/to a place.jpg"),
        ("b.jpg", "http://0.test/d//b.jpg"),
        ("../b.jpg", "http://0.test/d//../b.jpg"),
        ("?v=2", "http://0.test/d//a%28.jpg?v=2"),
        ("#top", "http://0.test/d//a%28.jpg?q#top"),
        ("//1.test/x.jpg", "http://1.test/x.jpg"),
        ("HTTPS://1.test/x.jpg", "HTTPS://1.test/x.jpg"),
        ("   /x.jpg  ", "http://0.test/x.jpg"),
        ("/tar\tget.jpg", "http://0.test/target.jpg"),
        ("\\x.jpg?a\\b", "http://0.test/x.jpg?a\\b"),
        ("\\\\1.test\\x.jpg", "http://1.test/x.jpg"),
        ("/p%28x%29.jpg", "http://0.test/p%28x%29.jpg"),
        ("/synspr\udcf8ve.jpg", "http://0.test/synspr%F8ve.jpg"),
        ("/aufräumen.jpg", "http://0.test/aufr%C3%A4umen.jpg"),
        ("http://bücher.test/ü", "http://b%C3%BCcher.test/%C3%BC"),
    ],
)
def test_a_link_leads_where_it_leads_in_browsers(link, target):
    assert target_of("http://0.test/d//a%28.jpg?q", link) == target


LOCATIONS = {  # bytes of a Location: what is asked for then
    b"/to a place.jpg": "/to%20a%20place.jpg",
    "/aufräumen.jpg".encode(): "/aufr%C3%A4umen.jpg",
    "/synsprøve.jpg".encode("latin-1"): "/synspr%F8ve.jpg",
    b"/p%28x%29.jpg#top": "/p%28x%29.jpg",
    b"\\target.jpg": "/target.jpg",
    b"target.jpg?%2F": "/target.jpg?%2F",
    "http://BÜCHER.test/x.jpg".encode(): "/x.jpg",
    b"http://b%C3%BCcher.test/y.jpg": "/y.jpg",
}


@pytest.mark.parametrize("location", LOCATIONS)
def test_a_redirect_is_followed_to_the_address_that_it_names(tmp_path, location):
    host = Host({"/go": raw_redirect(location)})
    host.otherwise = lambda request: request.reply(picture(1))
    with serving(host) as hosts:
        hosts["xn--bcher-kva.test"] = hosts["0.test"]
        found = crawl(tmp_path, candidates_of(["http://0.test/go"]), hosts, opt_outs="none")
    [record] = found.values()
    assert (record.outcome, host.targets[-1]) == ("ok", LOCATIONS[location])
    assert record.final_url == str(check_url(record.final_url))


def raw_redirect(location):
    """A route that leads to these bytes, which are no text of a header."""

    def route(request):
        head = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: "
        request.wfile.write(head + location + b"\r\n\r\n")

    return route


PLACE = {"Location": "/x.jpg"}
ELSEWHERE = {  # answers that name an address: what they give
    "303": (reply(b"", 303, **PLACE), "ok", "/x.jpg"),
    "308": (reply(b"", 308, **PLACE), "ok", "/x.jpg"),
    "a large body": (reply(bytes(5_000_000), 302, **PLACE), "ok", "/x.jpg"),
    "no length": (raw(b"HTTP/1.1 302 Found\r\nLocation: /x.jpg\r\n\r\n"), "ok", "/x.jpg"),
    "300": (reply(b"", 300, **PLACE), "http_error", "/go"),
    "304": (reply(b"", 304, **PLACE), "http_error", "/go"),
    "305": (reply(b"", 305, **PLACE), "http_error", "/go"),
    "201": (reply(b"", 201, **PLACE), "not_an_image", "/go"),
    "200 with a picture": (reply(picture(2), 200, **PLACE), "ok", "/go"),
    "Refresh": (reply(b"", 200, Refresh="0; url=/x.jpg"), "not_an_image", "/go"),
    "a page that goes on": (
        reply(b'<meta http-equiv="refresh" content="0;url=/x.jpg">', Content_Type="text/html"),
        "not_an_image",
        "/go",
    ),
}


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_only_redirects_are_followed_and_their_bodies_left(tmp_path, kind):
    route, outcome, last = ELSEWHERE[kind]
    host = Host({"/go": route, "/x.jpg": lambda request: request.reply(picture(1))})
    with serving(host) as hosts:
        found = crawl(tmp_path, candidates_of(["http://0.test/go"]), hosts, opt_outs="none")
    assert [record.outcome for record in found.values()] == [outcome]
    assert host.targets[-1] == last


def test_a_redirect_to_the_same_address_may_lead_to_a_picture(tmp_path):
    def route(request):
        first = request.asked() == 1
        (redirect("/go") if first else reply(picture(1)))(request)

    with serving(Host({"/go": route})) as hosts:
        found = crawl(tmp_path, candidates_of(["http://0.test/go"]), hosts)
    assert list(outcomes(found).values()) == ["ok"]


@pytest.mark.parametrize(
    ("more", "outcome"), [(b"/x.jpg", "ok"), (b"/y.jpg", "http_error"), (b"", "http_error")]
)
def test_a_redirect_to_two_addresses_leads_nowhere(tmp_path, more, outcome):
    host = Host({"/go": raw_redirect(b"/x.jpg\r\nLocation: " + more)})
    host.otherwise = lambda request: request.reply(picture(1))
    with serving(host) as hosts:
        found = crawl(tmp_path, candidates_of(["http://0.test/go"]), hosts, opt_outs="none")
    assert [record.outcome for record in found.values()] == [outcome]


@pytest.mark.parametrize(
    "spelling", ["/private/x.jpg", "/./private\\x.jpg", "/a/%2e./private/x.jpg"]
)
def test_robots_txt_binds_every_spelling_of_a_path(tmp_path, spelling):
    rules = b"User-agent: *\nDisallow: /private/\n"
    host = Host({"/robots.txt": lambda request: request.reply(rules)})
    with serving(host) as hosts:
        found = crawl(tmp_path, candidates_of([f"http://0.test{spelling}"]), hosts)
    assert list(outcomes(found).values()) == ["robots"] and host.images_asked() == 0


def test_a_blocked_host_stays_blocked_in_every_spelling(tmp_path):
    host, rules = Host(), Blocklist(hosts=frozenset({"xn--bcher-kva.test"}))
    host.otherwise = redirect("http://b%C3%BCcher.test/x.jpg")
    with serving(host) as hosts:
        hosts["xn--bcher-kva.test"] = hosts["0.test"]
        urls = ["http://b%C3%BCcher.test/a b.jpg", "http://0.test/go.jpg"]
        alone = {"robots": False, "opt_outs": "none"}
        found = crawl(tmp_path, candidates_of(urls), hosts, blocklist=rules, **alone)
    assert list(outcomes(found).values()) == ["blocked", "blocked"]
    assert host.targets == ["/go.jpg"]


def test_the_short_cut_for_plain_addresses_leads_where_the_long_way_does(monkeypatch):
    pieces = ["a", "B9", ".", "..", "%2e", "%2F", "/", "//", "-", "~", "?", "&=", "%", "%zz", "'"]
    pieces += ["()", "*+", ",;", ":", "@", "!$_", "|", " ", "#f", ":80", "é", "xn--", "1.1", ".com"]
    draw = random.Random(0)
    starts = [
        "http://a.test/",
        "https://a-b.c.test/x",
        "http://1.2.3.4/",
        "HTTP://a.test/",
        "http://",
    ]
    urls = [
        draw.choice(starts) + "".join(draw.choices(pieces, k=draw.randrange(7)))
        for _ in range(9000)
    ]
    plain = [url for url in urls if addresses.PLAIN.fullmatch(url)]
    assert len(plain) > 1000
    short = [as_asked(url) for url in plain]
    monkeypatch.setattr(addresses, "PLAIN", re.compile("never"))
    for url, found in zip(plain, short, strict=True):
        long = as_asked(url)
        assert (found, str(found), found.raw_host) == (long, str(long), long.raw_host)
        assert (found.port, found.raw_path_qs) == (long.port, long.raw_path_qs)
