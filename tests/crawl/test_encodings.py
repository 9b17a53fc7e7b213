"""Pictures in encodings that nobody asked for, and answers whose end did not come."""

import gzip
import io
import struct
import time
import zlib
from socket import SHUT_WR, SO_LINGER, SOL_SOCKET

import pytest
from PIL import Image

from kd3_pipeline.crawl import fetch as module
from kd3_pipeline.crawl.encodings import Packed, Swollen, Unpacker
from kd3_pipeline.crawl.journal import Journal
from tests.crawl.hosts import (
    LIMITS,
    Host,
    candidates_of,
    chunks,
    crawl,
    picture,
    raw,
    reply,
    serving,
)

PICTURE = picture(1)


def crawled(folder, routes, **limits):
    """By name: outcome, and how often it was asked for; what is stored has to be the picture."""
    hosts = [Host({"/a.jpg": route}) for route in routes.values()]
    with serving(*hosts) as table:
        candidates = candidates_of([f"http://{n}.test/a.jpg" for n in range(len(routes))])
        limits = {"robots": False, "opt_outs": "none"} | limits
        found = crawl(folder, candidates, table, **limits)
    records = [found[one] for one in candidates]
    with Journal(folder) as journal:
        assert {journal.read(record.id) for record in records if record.id} <= {PICTURE}
    return {
        name: (record.outcome, host.requests["/a.jpg"])
        for name, record, host in zip(routes, records, hosts, strict=True)
    }


def deflated(data, bits):
    packer = zlib.compressobj(9, zlib.DEFLATED, bits)
    return packer.compress(data) + packer.flush()


def packed(data, *encodings):
    """A route that names these encodings, a header each."""
    lines = [b"Content-Encoding: " + name.encode() for name in encodings]
    head = [b"HTTP/1.1 200 OK", *lines, b"Content-Length: %d" % len(data), b"", b""]
    return raw(b"\r\n".join(head) + data)


STORED = {
    "gzip": packed(gzip.compress(PICTURE), "gzip"),
    "x-gzip": packed(gzip.compress(PICTURE), "X-GZip"),
    "two files of gzip": packed(
        gzip.compress(PICTURE[:500]) + gzip.compress(PICTURE[500:]), "gzip"
    ),
    "gzip with something behind": packed(gzip.compress(PICTURE) + b"\r\n", "gzip"),
    "deflate": packed(zlib.compress(PICTURE), "deflate"),
    "deflate without a head": packed(deflated(PICTURE, -15), "deflate"),
    "deflate that is gzip": packed(gzip.compress(PICTURE), "deflate"),
    "gzip twice": packed(gzip.compress(gzip.compress(PICTURE)), "gzip, gzip"),
    "gzip twice, in two headers": packed(gzip.compress(gzip.compress(PICTURE)), "gzip", "gzip"),
    "gzip once, said twice": packed(gzip.compress(PICTURE), "gzip, gzip"),
    "plain, said to be gzip": packed(PICTURE, "gzip"),
    "plain, said to be deflate": packed(PICTURE, "deflate"),
    "plain, said to be br": packed(PICTURE, "br"),
    "identity": packed(PICTURE, "identity"),
    "identity twice": packed(PICTURE, "identity, identity"),
    "nothing": packed(PICTURE, ""),
} | {
    f"said to be {name}": packed(PICTURE, name)
    for name in ("UTF-8", "none", "binary", "aws-chunked", "image/jpeg", "7bit", "gzip;q=1")
}


def test_a_picture_is_stored_whatever_its_encoding_is_called(tmp_path):
    assert crawled(tmp_path, STORED) == dict.fromkeys(STORED, ("ok", 1))


def test_pictures_of_every_format_are_known_under_a_wrong_encoding(tmp_path):
    kinds = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
    routes = {
        f"/{kind}/{name}": reply(picture(9, kind), Content_Encoding=name)
        for kind in kinds
        for name in ("gzip", "deflate", "br")
    }
    with serving(Host(routes)) as hosts:
        urls = [f"http://0.test{path}" for path in routes]
        found = crawl(tmp_path, candidates_of(urls), hosts)
    assert {one.url: record.outcome for one, record in found.items()} == dict.fromkeys(urls, "ok")


GZIP = gzip.compress(PICTURE)
LOST = {
    "nothing but gzip's head": (packed(GZIP[:2], "gzip"), "truncated"),
    "half of gzip": (packed(GZIP[: len(GZIP) // 2], "gzip"), "truncated"),
    "gzip that is broken": (packed(GZIP[:20] + b"\xff" * 40 + GZIP[60:], "gzip"), "encoded"),
    "an encoding that is unknown": (packed(bytes(range(256)), "br"), "encoded"),
    "a page, said to be packed": (packed(b"<html>", "gzip"), "encoded"),
    "a page, packed": (packed(gzip.compress(b"<html>"), "gzip"), "not_an_image"),
    "most of a picture, packed": (packed(gzip.compress(PICTURE[:-200]), "gzip"), "truncated"),
    "many layers": (packed(GZIP, ", ".join(["gzip"] * 4)), "encoded"),
    "a bomb": (packed(gzip.compress(bytes(50_000_000)), "gzip"), "too_large"),
    "a bomb in a bomb": (
        packed(gzip.compress(gzip.compress(bytes(50_000_000))), "gzip, gzip"),
        "too_large",
    ),
    "more than is wanted before it is unpacked": (
        packed(gzip.compress(picture(2, "BMP", 300), 1), "gzip"),
        "too_large",
    ),
}


def test_what_cannot_be_unpacked_is_named_and_asked_for_once(tmp_path):
    got = crawled(tmp_path, {name: route for name, (route, _) in LOST.items()})
    assert got == {name: (outcome, 1) for name, (_, outcome) in LOST.items()}


def test_a_bomb_is_unpacked_no_further_than_the_limit():
    taken = []
    unpacker = Unpacker("gzip, gzip", taken.append, 1_000_000)
    with pytest.raises(Swollen):
        unpacker.write(gzip.compress(gzip.compress(bytes(500_000_000), 1)))
    assert 1_000_000 < sum(map(len, taken)) < 1_100_000


def test_a_bomb_that_comes_to_nothing_in_the_end_is_unpacked_no_further():
    nothing = gzip.compress(b"", mtime=0)
    with pytest.raises(Packed, match="more than 1,000 members"):
        Unpacker("gzip", bytearray().extend, 10**6).write(nothing * 2000)
    unpacker = Unpacker("gzip, gzip", bytearray().extend, 10**6)
    with pytest.raises(Swollen):  # 50 MB in between, and then one byte
        unpacker.write(gzip.compress(gzip.compress(b"x") + bytes(50 * 10**6), mtime=0))


def test_what_comes_in_small_parts_is_unpacked_as_in_one():
    for data, encoding in (
        (GZIP, "gzip"),
        (GZIP + GZIP, "gzip"),
        (gzip.compress(GZIP), "gzip, gzip"),
        (zlib.compress(PICTURE), "deflate"),
        (deflated(PICTURE, -15), "deflate"),
        (PICTURE, "gzip"),
        (b"x", "gzip"),
    ):
        for step in (1, 3, len(data)):
            taken = bytearray()
            unpacker = Unpacker(encoding, taken.extend, 10**6)
            for start in range(0, len(data), step):
                unpacker.write(data[start : start + step])
            assert unpacker.end()
            assert taken in (PICTURE, PICTURE * 2, b"x"), (encoding, step)


def test_what_is_no_deflate_is_told():
    unpacker = Unpacker("deflate", bytearray().extend, 100)
    with pytest.raises(Packed, match="deflate: "):
        unpacker.write(b"\x9f\x9f" * 20)


# answers whose end does not come


def unended(head, body, then=None):
    """A route that sends this, and goes on as `then` does."""

    def route(request):
        request.wfile.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n" + body)
        request.wfile.flush()
        if then is not None:
            then(request)
        request.close_connection = True

    return route


def reset(request):
    time.sleep(0.1)  # a reset takes back what was not read yet
    request.connection.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))


def wait(request):
    time.sleep(1.5)


LENGTH = b"Content-Length: %d" % (len(PICTURE) + 3)
CHUNKED = b"Transfer-Encoding: chunked"
CHUNK = b"%x\r\n%s" % (len(PICTURE), PICTURE)
WHOLE = {
    "length 3 too large": unended(LENGTH, PICTURE),
    "length 3 too large, then a reset": unended(LENGTH, PICTURE, reset),
    "length 3 too large, and no end": unended(LENGTH, PICTURE, wait),
    "no last chunk": unended(CHUNKED, CHUNK + b"\r\n"),
    "no last chunk, and no end": unended(CHUNKED, CHUNK + b"\r\n", wait),
    "no line end after the chunk": unended(CHUNKED, CHUNK),
    "a last chunk cut in half": unended(CHUNKED, CHUNK + b"\r\n0\r\n"),
    "nonsense after the chunk": unended(CHUNKED, CHUNK + b"\r\nnonsense\r\n"),
    "packed, length too large": unended(b"Content-Encoding: gzip\r\nContent-Length: 99999", GZIP),
    "203": reply(PICTURE, 203),
    "206, and whole": reply(PICTURE, 206, Content_Range=f"bytes 0-{len(PICTURE) - 1}/*"),
}


def test_a_whole_picture_is_kept_however_its_answer_ends(tmp_path):
    got = crawled(tmp_path, WHOLE, timeout=0.7)
    assert got == dict.fromkeys(WHOLE, ("ok", 1))


def test_part_of_a_picture_is_asked_for_again_and_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BACK_OFF", 0.01)
    half = PICTURE[:-200]
    routes = {
        "short": unended(LENGTH, half),
        "a chunk cut in half": unended(CHUNKED, CHUNK[:-200]),
        "no end": unended(LENGTH, half, wait),
        "a page": unended(b"Content-Length: 99", b"<html>"),
        "part, as it says": reply(half, 206),
        "no content": reply(b"", 204),
    }
    assert crawled(tmp_path, routes) == {
        "short": ("truncated", 3),
        "a chunk cut in half": ("truncated", 3),
        "no end": ("not_now", 2),
        "a page": ("truncated", 3),
        "part, as it says": ("truncated", 1),
        "no content": ("http_error", 1),
    }


def test_a_large_picture_whose_end_does_not_come_is_kept_as_it_came(tmp_path):
    out = io.BytesIO()
    Image.effect_noise((1000, 1000), 200).save(out, "PNG")
    data = out.getvalue()
    assert len(data) > 500_000
    host = Host({"/a.png": unended(b"Content-Length: %d" % (len(data) + 9), data)})
    with serving(host) as hosts:
        candidates = candidates_of(["http://0.test/a.png"])
        found = crawl(tmp_path, candidates, hosts, max_bytes=10**7, timeout=9.0)
        record = found[candidates[0]]
        assert (record.outcome, record.size, host.requests["/a.png"]) == ("ok", len(data), 1)
        with Journal(tmp_path) as journal:
            assert journal.holds(record)
            assert journal.read(record.id) == data
        assert crawl(tmp_path, candidates, hosts, max_bytes=10**7) == found
        assert host.requests["/a.png"] == 1


def test_large_bodies_whose_connection_is_closed_at_once_come_whole(tmp_path):
    data = picture(3, "BMP", 1000)

    def route(request):
        request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
        request.wfile.flush()
        request.connection.shutdown(SHUT_WR)
        request.close_connection = True

    hosts = [Host({"/a.bmp": route}) for _ in range(8)]
    with serving(*hosts) as table:
        candidates = candidates_of([f"http://{n}.test/a.bmp" for n in range(8)])
        limits = {"robots": False, "opt_outs": "none", "timeout": 9.0, "max_bytes": 10**7}
        found = crawl(tmp_path, candidates, table, **limits)
    assert {(one.outcome, one.size) for one in found.values()} == {("ok", len(data))}
    assert [host.requests["/a.bmp"] for host in hosts] == [1] * 8


def test_a_body_without_end_is_not_kept_as_a_picture(tmp_path):
    host = Host({"/a.jpg": chunks(PICTURE, most=200)})
    with serving(host) as hosts:
        found = crawl(tmp_path, candidates_of(["http://0.test/a.jpg"]), hosts)
    assert [record.outcome for record in found.values()] == ["too_large"]
    assert LIMITS.max_bytes < 200 * len(PICTURE)
