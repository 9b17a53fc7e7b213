"""Cases of `share_saved`: 200 addresses, after public bug reports of crawlers and HTTP clients."""

import gzip
import zlib
from collections.abc import Callable, Iterator, Sequence

from benchmarks.share_pictures import Pictures, encoded, svg
from benchmarks.share_web import Case, Routes, answer, led

JPEG = "Content-Type: image/jpeg"
TEXT = "Content-Type: text/plain"
HTML = "Content-Type: text/html; charset=utf-8"
Plain = tuple[str, bytes, Sequence[bytes], Routes]  # name, answer, files, more routes
Sent = Callable[[bytes], bytes]  # of a picture: the answer that brings it

# asked for as they are listed: servers sign what they are asked
SIGNED = [
    "/s/photo%281%29.jpg?sig=1",
    "/s/http%3A%2F%2Fb.test%2Fx.jpg?sig=2",
    "/s/foo%27bar.jpg?sig=3",
    "/s/x.jpg?cred=a%40b&t=1%2F2&sig=4",
    "/s/x.jpg?w=1|h=2&sig=5",
    "/s/%7Eme/x.jpg?sig=6",
    "/s/x.jpg?a=b%2Bc+d&sig=7",
    "/s/100%.jpg?sig=8",
    "/s/%C3%A9.jpg?sig=9",
    "/s/twice%2520encoded.jpg?sig=10",
    "/s/a%2Fb.jpg?sig=11",
    "/s/%E9t%E9.jpg?sig=12",
    "/s/x.jpg?X-Goog-Credential=a%40b.com%2F2021&t=a+b",
    "/s/[brackets].jpg?sig=15",
    "/s/%zz.jpg?sig=18",
    "/s/y.jpg?",
    "/s/html.jpg?a=1&amp;b=2",
]
SPELT = {  # as a list has them -> the targets that browsers ask for
    "/my photo.jpg": "/my%20photo.jpg",
    "/q.jpg?size=a b": "/q.jpg?size=a%20b",
    "/two  spaces.jpg": "/two%20%20spaces.jpg",
    "/peñoles.jpg": "/pe%C3%B1oles.jpg",
    "/p.jpg?ñ=日本": "/p.jpg?%C3%B1=%E6%97%A5%E6%9C%AC",
    "/a|b{c}.jpg": "/a|b%7Bc%7D.jpg /a%7Cb%7Bc%7D.jpg",
    "/^caret.jpg": "/^caret.jpg /%5Ecaret.jpg",
    "/nbsp\xa0here.jpg": "/nbsp%C2%A0here.jpg",
    "/zero\u200bwidth.jpg": "/zero%E2%80%8Bwidth.jpg",
    "/wide\u3000space.jpg": "/wide%E3%80%80space.jpg",
    "/nfd-e\u0301.jpg": "/nfd-e%CC%81.jpg",
    "/back\\slash.jpg": "/back/slash.jpg",
    "/../b/./c//d.jpg": "/b/c//d.jpg",
    "/x.jpg#fragment": "/x.jpg",
    '/"quoted".jpg': "/%22quoted%22.jpg",
    "/<angle>.jpg?x='y'": "/%3Cangle%3E.jpg?x=%27y%27",
}
NAMES = {  # as a list has them -> as they are looked up
    "xn--bcher-kva.test": "xn--bcher-kva.test",
    "bücher2.test": "xn--bcher2-3ya.test",
    "b%C3%BCcher3.test": "xn--bcher3-3ya.test",
    "BÜCHER4.test": "xn--bcher4-3ya.test",
    "☃.test": "xn--n3h.test",
    "a_b.test": "a_b.test",
    "UPPER.TEST": "upper.test",
    "日本.test": "xn--wgv71a.test",
}


def cases(seed: int) -> list[Case]:
    """All addresses, each with a picture of its own."""
    drawn = Pictures(seed)
    made = [
        *_spelt("signed addresses", "signed.test", dict(zip(SIGNED, SIGNED, strict=True)), drawn),
        *_spelt("spaces and letters", "spelt.test", SPELT, drawn),
        *(_of("names of hosts", n, f"http://{n}/x.jpg", drawn, name=w) for n, w in NAMES.items()),
        *_plain("redirects", [*_redirects(drawn)]),
        *_plain("heads of answers", [*_heads(drawn)]),
        *_plain("lengths and ends", [*_ends(drawn)]),
        *_plain("content encodings", [*_encodings(drawn)]),
        *_plain("statuses", [*_statuses(drawn)]),
        *_files("formats", drawn.formats()),
        *_files("colour profiles", drawn.profiled()),
        *_files("damage of no pixel", drawn.damaged()),
        *_robots(drawn),
        *_busy_host(drawn),
        *_files("no pictures", drawn.nothing()),
        *_left_on_purpose(drawn),
    ]
    return made


def _of(kind: str, label: str, url: str, drawn: Pictures, *, name: str, target: str = "") -> Case:
    data = drawn.jpeg()
    targets = target.split() or ["/" + url.split("/", 3)[3]]
    routes = {(name, one): answer(data, JPEG) for one in targets}
    return Case(kind, label, url, routes=routes, files=[data])


def _spelt(kind: str, name: str, listed: dict[str, str], drawn: Pictures) -> Iterator[Case]:
    for written, target in listed.items():
        url = f"http://{name}{written}"
        yield _of(kind, written, url, drawn, name=name, target=target)


def _plain(kind: str, found: Sequence[Plain]) -> Iterator[Case]:
    """Cases of a host each, so that none suffers from another."""
    for place, (label, sent, files, more) in enumerate(found):
        host = f"{kind.replace(' ', '-').replace('.', '-')}-{place}.test"
        routes = {(host, "/x.jpg"): sent}
        routes |= {(name or host, target): data for (name, target), data in more.items()}
        yield Case(kind, label, f"http://{host}/x.jpg", "", routes, list(files))


def _files(kind: str, found: Iterator[tuple[str, bytes]]) -> Iterator[Case]:
    """Cases whose answers are sound, and whose bytes may not be."""
    plain: list[Plain] = []
    for label, data in found:
        what = HTML if label == "a page" else JPEG
        plain.append((label, answer(data, what), [data], {}))
    return _plain(kind, plain)


def _each(drawn: Pictures, forms: dict[str, Sent]) -> Iterator[Plain]:
    """A picture for each form of an answer."""
    for label, sent in forms.items():
        data = drawn.jpeg()
        yield label, sent(data), [data], {}


def _redirects(drawn: Pictures) -> Iterator[Plain]:
    leads: dict[str, tuple[bytes, str]] = {  # name -> answer, target that it means
        "a space": (led("/to a place.jpg"), "/to%20a%20place.jpg"),
        "UTF-8": (led("/aufräumen.jpg".encode()), "/aufr%C3%A4umen.jpg"),
        "Latin-1": (led("/synsprøve.jpg"), "/synspr%F8ve.jpg"),
        "relative": (led("y.jpg"), "/y.jpg"),
        "a fragment": (led("/y.jpg#top"), "/y.jpg"),
        "spaces around": (led("   /y.jpg   "), "/y.jpg"),
        "a tab inside": (led("/y\t.jpg"), "/y.jpg"),
        "escapes": (led("/p%28x%29.jpg"), "/p%28x%29.jpg"),
        "a backslash": (led("\\y.jpg"), "/y.jpg"),
        "a query alone": (led("?v=2"), "/x.jpg?v=2"),
        "entities": (led("/y.jpg?a=1&amp;b=2"), "/y.jpg?a=1&amp;b=2"),
        "7,000 letters": (led("/y.jpg?" + "x" * 7000), "/y.jpg?" + "x" * 7000),
        "20,000 letters": (led("/y.jpg?" + "x" * 20_000), "/y.jpg?" + "x" * 20_000),
        "303": (led("/y.jpg", "303 See Other"), "/y.jpg"),
        "308": (led("/y.jpg", "308 Permanent Redirect"), "/y.jpg"),
    }
    for label, (sent, target) in leads.items():
        data = drawn.jpeg()
        yield label, sent, [data], {("", target): answer(data, JPEG)}
    data = drawn.jpeg()
    yield "to another host", led("//b.test/y6.jpg"), [data], {("b.test", "/y6.jpg"): answer(data)}
    data = drawn.jpeg()
    hops = {("", f"/{hop}.jpg"): led(f"/{hop + 1}.jpg") for hop in range(1, 5)}
    yield "five in a row", led("/1.jpg"), [data], {**hops, ("", "/5.jpg"): answer(data, JPEG)}
    yield "to itself", led("/x.jpg"), [], {}
    yield "to nothing", led("/gone.jpg"), [], {}
    yield "to a page", led("/login"), [], {("", "/login"): answer(b"<html>Log in</html>", HTML)}
    yield "no address", led("http%3A//b.test/y6.jpg"), [], {}


def _heads(drawn: Pictures) -> Iterator[Plain]:
    long = "Content-Security-Policy: " + "x" * 9000
    lines: dict[str, Sequence[str]] = {
        "a line of 9 KB": [long],
        "a line of 20 KB": [long + "x" * 11_000],
        "60 lines of 1 KB": [f"Set-Cookie: a{number}=" + "x" * 1000 for number in range(60)],
        "300 lines": [f"X-{number}: y" for number in range(300)],
        "a space before a colon": ["X-Echo : 1"],
        "a name with a space": ["X Echo: 1"],
        "a line without a colon": ["nonsense"],
        "a control character": ["Set-Cookie: a=\x01b"],
        "Latin-1": ["Content-Disposition: inline; filename=été.jpg"],
        "a folded line": ["X: a\r\n  b"],
        "a name of no letter": [": x"],
        "no type": [],
        "two types": [JPEG, "Content-Type: text/html"],
        "a garbled type": ['Content-Type: ;;;="x'],
        "octet-stream": ["Content-Type: application/octet-stream"],
    }
    for label, some in lines.items():
        data = drawn.jpeg()
        yield label, answer(data, *some), [data], {}
    forms: dict[str, Sent] = {
        "line feeds alone": lambda data: answer(data, JPEG).replace(b"\r\n", b"\n", 4),
        "a blank line before": lambda data: b"\r\n" + answer(data, JPEG),
        "no reason": lambda data: answer(data, JPEG, status="200"),
    }
    yield from _each(drawn, forms)


def _sized(data: bytes, *sizes: object) -> bytes:
    """An answer that says these lengths."""
    return answer(data, JPEG, *(f"Content-Length: {one}" for one in sizes), length=False)


def _chunked(data: bytes, end: bytes, more: bytes = b"") -> bytes:
    """An answer in one chunk; `more` follows its size."""
    body = b"%x" % len(data) + more + b"\r\n" + data + b"\r\n" + end
    return answer(body, JPEG, "Transfer-Encoding: chunked", length=False)


def _ends(drawn: Pictures) -> Iterator[Plain]:
    last = b"0\r\n\r\n"
    forms: dict[str, Sent] = {
        "two equal lengths": lambda data: _sized(data, len(data), len(data)),
        "a length twice in a line": lambda data: _sized(data, f"{len(data)}, {len(data)}"),
        "3 bytes too much": lambda data: _sized(data, len(data) + 3),
        "bytes behind": lambda data: _sized(data + b"\r\n<!-- -->", len(data)),
        "an empty length": lambda data: _sized(data, ""),
        "no length": _sized,
        "HTTP/1.0, no length": lambda data: _sized(data).replace(b"1.1", b"1.0", 1),
        "chunks": lambda data: _chunked(data, last),
        "chunks without the last one": lambda data: _chunked(data, b""),
        "chunks, half an end": lambda data: _chunked(data, b"0\r\n"),
        "chunks with a trailer": lambda data: _chunked(data, b"0\r\nX-Sum: 1\r\n\r\n"),
        "chunks with extensions": lambda data: _chunked(data, last, b";name=value"),
        "chunks, spaces": lambda data: _chunked(data, last, b"   "),
        "says chunks, has none": lambda data: answer(
            data, JPEG, "Transfer-Encoding: chunked", length=False
        ),
    }
    yield from _each(drawn, forms)
    data = drawn.jpeg()
    yield "2 bytes too few", _sized(data, len(data) - 2), [data, data[:-2]], {}
    data = drawn.jpeg()
    yield "two lengths that differ", _sized(data, 5, len(data)), [data, data[:5]], {}


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def _encodings(drawn: Pictures) -> Iterator[Plain]:
    packers: dict[str, Sent] = {"gzip": _gzip, "x-gzip": _gzip, "deflate": zlib.compress}
    for name, pack in packers.items():
        data = drawn.jpeg()
        yield name, answer(pack(data), JPEG, f"Content-Encoding: {name}"), [data], {}
    plain = ["gzip", "UTF-8", "none", "binary", "aws-chunked", "br", "image/jpeg", "identity", ""]
    for name in plain:
        data = drawn.jpeg()
        yield f"says {name!r}", answer(data, JPEG, f"Content-Encoding: {name}"), [data], {}


def _statuses(drawn: Pictures) -> Iterator[Plain]:
    def whole(data: bytes) -> bytes:
        parts = f"Content-Range: bytes 0-{len(data) - 1}/{len(data)}"
        return answer(data, JPEG, parts, status="206 Partial Content")

    forms: dict[str, Sent] = {
        "203": lambda data: answer(data, JPEG, status="203 Non-Authoritative Information"),
        "206, whole": whole,
        "100 before": lambda data: b"HTTP/1.1 100 Continue\r\n\r\n" + answer(data, JPEG),
        "103 before": lambda data: b"HTTP/1.1 103 Early Hints\r\n\r\n" + answer(data, JPEG),
    }
    yield from _each(drawn, forms)
    for status in ("204 No Content", "404 Not Found", "410 Gone", "500 Oops", "999 Denied"):
        yield status, answer(b"", status=status), [], {}


def _robots(drawn: Pictures) -> Iterator[Case]:
    rules = b"User-agent: *\nDisallow: /private/\n"
    forms = {
        "203": answer(rules, TEXT, status="203 Non-Authoritative Information"),
        "206": answer(rules, TEXT, status="206 Partial Content"),
        "403": answer(b"", status="403 Forbidden"),
        "410": answer(b"", status="410 Gone"),
        "204": b"HTTP/1.1 204 No Content\r\n\r\n",
        "no rules": answer(b"", TEXT),
        "a page": answer(b"<!doctype html><p>Disallow: all</p>", HTML),
        "gzip": answer(_gzip(rules), TEXT, "Content-Encoding: gzip"),
        "says utf-8": answer(rules, TEXT, "Content-Encoding: utf-8"),
        "a head of 9 KB": answer(rules, TEXT, "X: " + "x" * 9000),
        "two equal lengths": answer(rules, TEXT, f"Content-Length: {len(rules)}"),
        "bytes missing": answer(rules + b"    ", TEXT)[:-4],
        "a byte order mark": answer(b"\xef\xbb\xbf" + rules, TEXT),
        "carriage returns": answer(rules.replace(b"\n", b"\r"), TEXT),
        "leads to a page": led("/"),
        "leads to nothing": led("/not found"),
    }
    plain: list[Plain] = []
    for label, sent in forms.items():
        data = drawn.jpeg()
        more = {("", "/robots.txt"): sent, ("", "/"): answer(b"<html>Home</html>", HTML)}
        plain.append((label, answer(data, JPEG), [data], more))
    return _plain("robots.txt", plain)


def _busy_host(drawn: Pictures) -> Iterator[Case]:
    """One host that refuses every tenth of its pictures, whenever they are asked for."""
    for place in range(10):
        data, target = drawn.jpeg(), f"/{place}.jpg"
        busy = place == 9
        sent = answer(b"", status="503 Service Unavailable") if busy else answer(data, JPEG)
        url = f"http://busy.test{target}"
        name = "refused" if busy else "given"
        yield Case("a host, 10% are 503", name, url, "", {("busy.test", target): sent}, [data])


def _left_on_purpose(drawn: Pictures) -> Iterator[Case]:
    """What a browser may show, and a crawl for training leaves by a rule of its own."""
    vector, pixel = svg(20), encoded(drawn.drawn().resize((1, 1)), "GIF")
    half, missing, forbidden, reserved = (drawn.jpeg() for _ in range(4))
    never = {("", "/robots.txt"): answer(b"User-agent: *\nDisallow: /\n", TEXT)}
    error = answer(missing, JPEG, status="404 Not Found")
    said = answer(reserved, JPEG, "X-Robots-Tag: noai")
    plain: dict[str, Plain] = {
        "no pixels": ("SVG", answer(vector, "Content-Type: image/svg+xml"), [vector], {}),
        "its end is missing": ("half a JPEG", answer(half[:2000], JPEG), [half[:2000]], {}),
        "too small": ("a GIF of one pixel", answer(pixel, JPEG), [pixel], {}),
        "an error's picture": ("404 with a picture", error, [missing], {}),
        "robots.txt says no": ("robots.txt", answer(forbidden, JPEG), [forbidden], never),
        "its owner says no": ("X-Robots-Tag: noai", said, [reserved], {}),
    }
    left = _plain("left on purpose", list(plain.values()))
    for case, refused in zip(left, plain, strict=True):
        case.refused = refused
        yield case
