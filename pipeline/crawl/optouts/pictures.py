"""What the bytes of an image say of its use: XMP and C2PA data in JPEG, PNG, WebP and GIF."""

import zlib
from collections.abc import Iterator

from kd3_pipeline.crawl.optouts.jumbf import training_signals
from kd3_pipeline.crawl.optouts.signals import Signal
from kd3_pipeline.crawl.optouts.xmp import MAX_BYTES as XMP_BYTES
from kd3_pipeline.crawl.optouts.xmp import mining_signals

XMP = b"http://ns.adobe.com/xap/1.0/\0"
MORE_XMP = b"http://ns.adobe.com/xmp/extension/\0"
PNG_XMP = b"XML:com.adobe.xmp\0"
GIF_XMP = b"\x21\xff\x0bXMP DataXMP"
GIF_C2PA = b"\x21\xff\x0bC2PA_GIF\1\0\0"
MOST = 5_000  # parts of a file that are looked at

Part = tuple[bytes, int, int]  # kind, start, end


def image_signals(data: bytes) -> list[Signal]:
    """All that the bytes of an image say. Other formats say nothing."""
    if data.startswith(b"\xff\xd8"):
        parts = [part for part in _segments(data) if part[0] in (b"\xe1", b"\xeb")]
        if not parts:
            return []
        packets, stores = _jpeg_packets(data, parts), _jpeg_stores(data, parts)
    elif data.startswith(b"\x89PNG"):
        chunks = list(_chunks(data, 8, "big", 4))
        packets = _png_packets(data, chunks)
        stores = (data[start:end] for kind, start, end in chunks if kind == b"caBX")
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        chunks = list(_chunks(data, 12, "little", 0))
        packets = (data[start:end] for kind, start, end in chunks if kind == b"XMP ")
        stores = (data[start:end] for kind, start, end in chunks if kind == b"C2PA")
    elif data.startswith(b"GIF8"):
        packets, stores = _gif_packets(data), _gif_stores(data)
    else:
        return []
    found = list(mining_signals(packets))
    for store in stores:
        found += training_signals(store)
    return found


def _segments(data: bytes) -> Iterator[Part]:
    """The segments of a JPEG before its first scan, without their lengths."""
    at = 2
    for _ in range(MOST):
        at = data.find(b"\xff", at)
        if at < 0 or at + 4 > len(data):
            return
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in (0xDA, 0xD9):
            return
        elif marker in (0x00, 0x01, 0xD8) or 0xD0 <= marker <= 0xD7:  # without a length
            at += 2
        else:
            end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
            yield data[at + 1 : at + 2], at + 4, min(end, len(data))
            at = max(end, at + 4)


def _jpeg_packets(data: bytes, parts: list[Part]) -> Iterator[bytes]:
    more: dict[bytes, list[tuple[int, bytes]]] = {}
    for kind, start, end in parts:
        if kind == b"\xe1" and data.startswith(XMP, start, end):
            yield data[start + len(XMP) : end]
        elif kind == b"\xe1" and data.startswith(MORE_XMP, start, end):
            # the rest of a long packet: its MD5 in hex, the length of it all, the place of this
            at = start + len(MORE_XMP)
            place = int.from_bytes(data[at + 36 : at + 40], "big")
            more.setdefault(data[at : at + 32], []).append((place, data[at + 40 : end]))
    for pieces in more.values():
        yield b"".join(piece for _, piece in sorted(pieces))


def _jpeg_stores(data: bytes, parts: list[Part]) -> Iterator[bytes]:
    """JUMBF boxes, which go through as many segments as they need (ISO 19566-5, annex D)."""
    pieces: dict[bytes, list[tuple[int, int, int]]] = {}
    for kind, start, end in parts:
        if kind == b"\xeb" and data.startswith(b"JP", start) and end - start >= 16:
            number = int.from_bytes(data[start + 4 : start + 8], "big")
            pieces.setdefault(data[start + 2 : start + 4], []).append((number, start + 8, end))
    for found in pieces.values():
        found.sort()
        whole = bytearray()
        for index, (_, start, end) in enumerate(found):
            # every segment repeats the head of the box
            head = 16 if data.startswith(b"\0\0\0\1", start) else 8
            whole += data[start if index == 0 else start + head : end]
        yield bytes(whole)


def _chunks(data: bytes, at: int, order: str, behind: int) -> Iterator[Part]:
    """Chunks of a PNG (length, kind, contents, checksum) or a WebP (kind, length, contents)."""
    for _ in range(MOST):
        if at + 8 > len(data):
            return
        if order == "big":
            size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        else:
            size, kind = int.from_bytes(data[at + 4 : at + 8], "little"), data[at : at + 4]
        end = min(at + 8 + size, len(data))
        yield kind, at + 8, end
        at += 8 + size + (behind if order == "big" else size % 2)


def _png_packets(data: bytes, chunks: list[Part]) -> Iterator[bytes]:
    left = XMP_BYTES  # of all chunks: a picture has one, and thousands of small ones may unpack
    for kind, start, end in chunks:
        if kind != b"iTXt" or not data.startswith(PNG_XMP, start, end):
            continue
        at = start + len(PNG_XMP)
        # compressed or not, the method, a language and a translated keyword, both with an end
        text = data[at + 2 : end].split(b"\0", 2)[-1]
        if data[at : at + 1] == b"\1":
            try:
                # one more than is read shows that it is too long
                text = zlib.decompressobj().decompress(text, left + 1)
            except zlib.error:
                continue
            left = max(0, left - len(text))
        yield text


def _gif_packets(data: bytes) -> Iterator[bytes]:
    at = data.find(GIF_XMP)
    if at >= 0:
        # the packet stands there as it is; a trailer makes blocks of it for who does not know
        end = data.find(b"<?xpacket end=", at)
        yield data[at + len(GIF_XMP) : end if end >= 0 else len(data)]


def _gif_stores(data: bytes) -> Iterator[bytes]:
    at = data.find(GIF_C2PA)
    if at >= 0:
        at, store = at + len(GIF_C2PA), bytearray()
        while at < len(data) and data[at]:  # blocks of up to 255 bytes, and an empty one
            store += data[at + 1 : at + 1 + data[at]]
            at += 1 + data[at]
        yield bytes(store)
