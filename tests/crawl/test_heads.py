"""Heads of answers as the web has them, sent by a real host and read by the real client."""

import asyncio
import inspect
import random
import re
from collections import Counter

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler

from kd3_pipeline.crawl import fetch as module
from kd3_pipeline.crawl import heads
from kd3_pipeline.crawl.heads import HEAD_BYTES, LINE_BYTES, Connector, TidyHandler, tidied
from tests.crawl.hosts import Host, candidates_of, crawl, outcomes, picture, raw, reply, serving

BODY = picture(0)
SIZE = b"Content-Length: %d" % len(BODY)
POLICY = b"Content-Security-Policy: "


def sent(*lines, body=BODY, first=b"HTTP/1.1 200 OK", end=b"\r\n"):
    """A route that sends this head, line by line, and a body."""
    return raw(end.join([first, *lines, b"", body]))


def chunked(coding=b"chunked", size=b"%x", end=b"0\r\n\r\n"):
    """A route that sends the body in one chunk."""
    body = size % len(BODY) + b"\r\n" + BODY + b"\r\n" + end
    return sent(b"Transfer-Encoding: " + coding, body=body)


def crawled(folder, *routes, **limits):
    """Record by path of one image at each host; and its host's requests."""
    hosts = [Host({"/a.jpg": route}) for route in routes]
    with serving(*hosts) as table:
        urls = [f"http://{n}.test/a.jpg" for n in range(len(routes))]
        limits = {"robots": False, "opt_outs": "none"} | limits
        candidates = candidates_of(urls)
        found = crawl(folder, candidates, table, **limits)
    return [found[one] for one in candidates], [host.requests["/a.jpg"] for host in hosts]


READ = {
    "a space before a colon": sent(b"X-Echo : 1", SIZE),
    "a space before the length's colon": sent(SIZE.replace(b":", b" :")),
    "a name with a space": sent(b"X Echo: 1", SIZE),
    "a line without a colon": sent(b"nonsense", SIZE),
    "no name": sent(b": x", SIZE),
    "a line that goes on": sent(b"X: a", b"  b", SIZE),
    "a line that goes on after nonsense": sent(b"nonsense", b"  b: c", SIZE),
    "two equal lengths": sent(SIZE, SIZE),
    "two equal lengths in one line": sent(SIZE + b", %d" % len(BODY)),
    "no length, as a number": sent(b"Content-Length: -1"),
    "a length beyond all numbers": sent(b"Content-Length: " + b"9" * 40),
    "an empty length": sent(b"Content-Length:"),
    "a length beside chunks": sent(
        b"Content-Length: 5",
        b"Transfer-Encoding: chunked",
        body=b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY),
    ),
    "HTTP/1.0": sent(SIZE, first=b"HTTP/1.0 200 OK"),
    "HTTP/1.0 without a length": sent(first=b"HTTP/1.0 200 OK"),
    "a version that is not spoken": sent(SIZE, first=b"HTTP/2.0 200 OK"),
    "no length, and the end of the connection": sent(b"Connection: close"),
    "chunks in capitals": chunked(b"Chunked"),
    "a chunk with an extension": chunked(size=b"%x;name=value"),
    "a chunk with spaces": chunked(size=b"%x   "),
    "a chunk with zeros": chunked(size=b"0000%x"),
    "a trailer": chunked(end=b"0\r\nX-Sum: 1\r\n\r\n"),
    "a chunk for each byte": sent(
        b"Transfer-Encoding: chunked",
        body=b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n",
    ),
    "an offer of another protocol": sent(SIZE, b"Upgrade: h2,h2c", b"Connection: Upgrade"),
    "another place for the same": sent(SIZE, b'Alt-Svc: h3="127.0.0.1:1"; ma=9'),
    "a file to save": sent(SIZE, b'Content-Disposition: attachment; filename="../../x.exe"'),
    "a type that is none": sent(SIZE, b'Content-Type: ;;;="x'),
    "two types": sent(SIZE, b"Content-Type: image/jpeg", b"Content-Type: text/html"),
    "a control character": sent(SIZE, b"Set-Cookie: a=\x01b"),
    "Latin-1": sent(SIZE, b"Content-Disposition: inline; filename=\xe9t\xe9.jpg"),
    "identity beside a length": sent(SIZE, b"Transfer-Encoding: identity"),
    "what follows the body": sent(SIZE, body=BODY + b"\r\n\r\n<!-- -->"),
    "a line of 9 KB": sent(POLICY + b"x" * 9000, SIZE),
    "a line of nearly 64 KiB": sent(POLICY + b"x" * (LINE_BYTES - len(POLICY) - 8), SIZE),
    "300 lines": sent(*(b"X-%d: y" % n for n in range(300)), SIZE),
    "line ends LF": sent(SIZE, end=b"\n"),
    "line ends CR CR LF": sent(SIZE, end=b"\r\r\n"),
    "a blank line first": sent(SIZE, first=b"\r\nHTTP/1.1 200 OK"),
    "no reason": sent(SIZE, first=b"HTTP/1.1 200"),
    "no space before the reason": sent(SIZE, first=b"HTTP/1.1 200OK"),
    "two spaces": sent(SIZE, first=b"HTTP/1.1  200 OK"),
    "small letters": sent(SIZE, first=b"http/1.1 200 OK"),
    "a version that is none here": sent(SIZE, first=b"HTTP/3.0 200 OK"),
    "a version without keep-alive": sent(first=b"HTTP/1.0 200 OK"),
    "a carriage return in a line": sent(b"X: a\rY: b", SIZE),
    "a length with a colon": sent(b"Content-Length: 99:5"),
    "2,000 lines": sent(*(b"X-%d: y" % n for n in range(2000)), SIZE),
    "early hints first": sent(
        b"Link: </a.css>", b"", b"HTTP/1.1 200 OK", SIZE, first=b"HTTP/1.1 103 Early Hints"
    ),
    "an upgrade that nobody asked for first": sent(
        b"Upgrade: h2c",
        b"Connection: Upgrade",
        b"",
        b"HTTP/1.1 200 OK",
        SIZE,
        first=b"HTTP/1.1 101 Switching Protocols",
    ),
    "100 words of patience": raw(
        b"HTTP/1.1 102 Processing\r\n\r\n" * 100
        + b"HTTP/1.1 200 OK\r\n"
        + SIZE
        + b"\r\n\r\n"
        + BODY
    ),
}


def test_a_head_that_browsers_read_is_read(tmp_path):
    records, asked = crawled(tmp_path, *READ.values())
    wrong = {
        name: (record.outcome, record.detail, times)
        for name, record, times in zip(READ, records, asked, strict=True)
        if (record.outcome, record.size, times) != ("ok", len(BODY), 1)
    }
    assert wrong == {}


UNREADABLE = {
    "two lengths": sent(b"Content-Length: 5", SIZE),
    "two lengths in one line": sent(SIZE + b", 5"),
    "a line of more than 64 KiB": sent(POLICY + b"x" * LINE_BYTES, SIZE),
    "a line without end": raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000),
    "lines without end": raw(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * (HEAD_BYTES // 6 + 1)),
    "a NUL": sent(b"X: a\x00b", SIZE),
    "no HTTP": raw(BODY),
}


def test_a_head_that_no_one_can_read_is_malformed(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BACK_OFF", 0.01)
    records, asked = crawled(tmp_path, *UNREADABLE.values())
    got = dict(zip(UNREADABLE, [record.outcome for record in records], strict=True))
    assert got == dict.fromkeys(UNREADABLE, "malformed")
    assert set(asked) == {3}


def test_a_head_that_comes_byte_by_byte_is_read(tmp_path):
    def route(request):
        for byte in b"HTTP/1.1 100 \r\n\r\nHTTP/1.1 200 OK\r\nX : y\r\n" + SIZE + b"\r\n\r\n":
            request.wfile.write(bytes([byte]))
            request.wfile.flush()
        request.wfile.write(BODY)

    records, asked = crawled(tmp_path, route)
    assert ([record.outcome for record in records], asked) == (["ok"], [1])


@pytest.mark.parametrize("garbage", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad"])
def test_a_connection_is_asked_again_unless_something_followed_the_body(tmp_path, garbage):
    ports = Counter()

    def route(request):
        ports[request.client_address[1]] += 1
        body = picture(ports.total())
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX : y\r\n\r\n" % len(body)
        request.wfile.write(head + body + garbage)

    host = Host({f"/{n}.jpg": route for n in range(4)})
    with serving(host) as hosts:
        limits = {"robots": False, "opt_outs": "none", "connections_per_host": 1}
        urls = [f"http://0.test/{n}.jpg" for n in range(4)]
        found = crawl(tmp_path, candidates_of(urls), hosts, **limits)
    assert Counter(record.outcome for record in found.values()) == {"ok": 4}
    assert sorted(ports.values()) == ([1, 1, 1, 1] if garbage else [4])


def test_a_body_that_breaks_ends_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BACK_OFF", 0.01)
    route = sent(b"Transfer-Encoding: chunked", body=b"no chunk\r\n")

    def open_end(request):
        route(request)
        request.close_connection = False

    records, asked = crawled(tmp_path, open_end, timeout=60.0)
    assert [record.outcome for record in records] == ["truncated"]
    assert "malformed" in records[0].detail
    assert "\n" not in records[0].detail
    assert asked == [3]


def test_a_header_with_a_space_before_its_colon_is_obeyed(tmp_path):
    records, _ = crawled(tmp_path, sent(b"X-Robots-Tag : noai", SIZE), opt_outs="all")
    assert [record.outcome for record in records] == ["opted_out"]


def test_a_long_policy_does_not_cost_the_robots_txt(tmp_path):
    policy = {"Content_Security_Policy": "x" * 9000}
    host = Host(
        {"/a.jpg": reply(BODY), "/robots.txt": reply(b"User-agent: *\nDisallow: /b", **policy)}
    )
    with serving(host) as hosts:
        urls = ["http://0.test/a.jpg", "http://0.test/b.jpg"]
        found = crawl(tmp_path, candidates_of(urls), hosts)
    assert outcomes(found) == dict(zip(urls, ["ok", "robots"], strict=True))


def test_a_length_that_is_said_twice_is_said_once():
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\nX: y\r\nContent-Length : 7\r\n\r\n"
    assert tidied(head) == (b"HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 7\r\n\r\n", 200, 7)


def meaning(found):
    """What a head says: its first line, its lines in any order, its status and the length."""
    head, status, length = found
    first, *lines = head.strip(b"\r\n").split(b"\r\n")
    pairs = [line.partition(b":") for line in lines]
    return first, sorted((name.lower(), value.strip()) for name, _, value in pairs), status, length


def test_a_head_that_needs_nothing_is_read_as_others_are(monkeypatch):
    lines = [SIZE, b"content-length:5", b"Content-Length: x", b"Content-Length : 5", b"A: b\rc"]
    lines += [b"Transfer-Encoding: chunked", b"transfer-encoding: identity", b" folded", b"X: y"]
    lines += [b"Content-Length: 5, 5", b"Content-Length: " + b"0" * 30, b"no colon", b"Type: a"]
    firsts = [b"HTTP/1.1 200 OK", b"HTTP/1.1 200", b"HTTP/1.0 404 no", b"HTTP/1.1 2000 x"]
    draw, made = random.Random(0), []
    for _ in range(6000):
        parts = [draw.choice(firsts), *draw.choices(lines, k=draw.randrange(5)), b""]
        made.append(b"".join(part + draw.choice([b"\r\n"] * 9 + [b"\n"]) for part in parts))
    short = [tidied(head) for head in made]
    as_it_came = [head for head, found in zip(made, short, strict=True) if found[0] == head]
    assert len(as_it_came) > 200
    monkeypatch.setattr(heads, "TIDY", re.compile(b"never"))
    for head, found in zip(made, short, strict=True):
        assert meaning(found) == meaning(tidied(head)), head


def test_a_body_behind_its_head_and_one_in_pieces_are_the_same_body(tmp_path):
    head = b"HTTP/1.1 200 OK\r\n" + SIZE + b"\r\n\r\n"
    routes = [sent(SIZE), lambda r: [r.wfile.write(p) for p in (head, BODY[:9], BODY[9:])]]
    records, requests = crawled(tmp_path, *routes)
    assert [record.outcome for record in records] == ["ok", "ok"]
    assert len({record.id for record in records}) == 1
    assert requests == [1, 1]


def test_the_client_has_the_places_in_which_heads_are_tidied():
    """They are private: a version of aiohttp without them must not be taken in silence."""
    for name in ("set_response_params", "data_received", "connection_lost"):
        theirs, ours = (getattr(one, name) for one in (ResponseHandler, TidyHandler))
        assert ours is not theirs
        assert inspect.iscoroutinefunction(theirs) == inspect.iscoroutinefunction(ours)
    assert "skip_payload" in inspect.signature(ResponseHandler.set_response_params).parameters

    async def made():
        connector = Connector()
        handler = connector._factory()
        await connector.close()
        return handler

    handler = asyncio.run(made())
    assert isinstance(handler, TidyHandler)
    assert hasattr(handler, "_payload") and handler.exception() is None


def test_a_client_that_makes_its_connections_elsewhere_is_refused(monkeypatch):
    begun = aiohttp.TCPConnector.__init__

    def moved(self, **options):
        begun(self, **options)
        self._maker = self.__dict__.pop("_factory")

    async def made():
        Connector()

    monkeypatch.setattr(aiohttp.TCPConnector, "__init__", moved)
    with pytest.raises(RuntimeError, match=r"aiohttp [0-9.]+ makes its connections elsewhere"):
        asyncio.run(made())
