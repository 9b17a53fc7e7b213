"""PNG files: what of them is read, so that a broken remark costs no picture.

Pillow reads a file to its end and gives it up for a text that has a wrong checksum, or that unpacks
to more than a megabyte. Of the chunks that are no pixels it gets to see those that change what is
shown or say where it was taken, and of these the sound ones.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

SIGNATURE = b"\x89PNG\r\n\x1a\n"
SHOWN = {b"tRNS", b"eXIf", b"sBIT", b"acTL"}  # pixels' meaning; of an animation that it is one
CRITICAL = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
COLOUR = {b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM"}
LEAST = {b"acTL": 8, b"cICP": 4, b"sRGB": 1, b"gAMA": 4, b"cHRM": 32, b"sBIT": 1}  # bytes
TRANSPARENT = {0: 2, 2: 6, 3: 1}  # colour type -> least bytes of tRNS; others have none
XMP, PROFILE = b"XML:com.adobe.xmp\0", b"Raw profile type exif\0"  # texts that may have a place
MOST_TEXT = 2**20  # bytes of one, unpacked: what Pillow takes
MOST_PROFILE = 4 * 2**20  # bytes of a colour profile, unpacked
TOLD = 3  # chunks in a remark
MOST_CHUNKS = 100_000  # that Pillow gets to see: it keeps what it does not know
PALETTE = 3  # colour type
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # colour type -> samples of a pixel
PIECE = 2**20  # bytes of pixels at once


class BrokenPng(ValueError):
    """A PNG that no browser shows, and why; Pillow shows something else in its place."""


@dataclass
class Tidied:
    """A PNG of the chunks that are read.

    Attributes:
        colour: data of the chunks that say what its colours are, by their type.
        remark: what was passed over that would have been read, in words; "" for nothing.
    """

    data: bytes
    colour: dict[bytes, bytes] = field(default_factory=dict)
    remark: str = ""


def chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end) of the data of each chunk (PNG 3rd edition, 5.3), as far as there are."""
    at = 8
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], at + 8, min(at + 8 + length, len(data))
        at += length + 12


def tidied(data: bytes) -> Tidied:
    """A PNG without what is not read of it; one that has nothing else stays as it is.

    Raises:
        BrokenPng: its chunks are not those of a picture.
    """
    found, parts = Tidied(data), [memoryview(data)[:8]]
    left_out, seen, known = [], set[bytes](), set[bytes]()
    kept_to = 8
    for kind, start, end in chunks(data):
        whole = end + 4 <= len(data)
        if not kind.isalpha() or not kind[0] & 0x20:  # critical, or nothing: for Pillow to judge
            keep = True
            _check(data, kind, known)
            known.add(kind)
        else:
            wrong = _wrong(data, kind, start, end)
            if wrong and whole:
                left_out.append(f"{kind.decode('ascii')} {wrong}")
            keep = not wrong and _read(data, kind, start, end, seen)
            if not wrong and kind in COLOUR:
                found.colour.setdefault(kind, data[start:end])
        if keep:
            parts.append(memoryview(data)[start - 8 : end + 4])
            kept_to += len(parts[-1])
            if len(parts) > MOST_CHUNKS:
                raise BrokenPng(f"a PNG of more than {MOST_CHUNKS:,} chunks")
        if kind == b"IEND":
            break
    if kept_to != len(data):
        found.data = b"".join(parts)
    if left_out:
        more = ", …" if len(left_out) > TOLD else ""
        found.remark = f"passed over: {', '.join(left_out[:TOLD])}{more}"
    return found


def _check(data: bytes, kind: bytes, before: set[bytes]) -> None:
    """Raises BrokenPng for a chunk that must not be where it is, by those `before` it."""
    if (kind == b"IHDR") == bool(before) or data[12:16] != b"IHDR":
        raise BrokenPng("a PNG that does not begin with its header, or has two")
    if kind == b"IHDR" and data[26:27] != b"\0":
        raise BrokenPng("a PNG in a packing that there is not")
    if kind == b"IDAT" and data[25:26] == bytes([PALETTE]) and b"PLTE" not in before:
        raise BrokenPng("a PNG without its palette")
    # such as CgBI, in which Apple's tools say that the colours are swapped
    if kind.isalpha() and kind not in CRITICAL and b"IDAT" not in before:
        raise BrokenPng(f"a PNG with the unknown chunk {kind.decode('ascii')}")


def _wrong(data: bytes, kind: bytes, start: int, end: int) -> str:
    """What is wrong with a chunk that is not critical; "" if nothing is."""
    view = memoryview(data)
    if zlib.crc32(view[start - 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
        return "of a wrong checksum"
    least = TRANSPARENT.get(data[25], 1) if kind == b"tRNS" else LEAST.get(kind, 0)
    return "too short" if end - start < least else ""


def _read(data: bytes, kind: bytes, start: int, end: int, seen: set[bytes]) -> bool:
    """Whether Pillow is shown a sound chunk: of those that say the same the first."""
    if kind in SHOWN:
        return True
    text = next((name for name in (XMP, PROFILE) if data[start:end].startswith(name)), b"")
    if not text or text in seen or kind not in (b"iTXt", b"zTXt", b"tEXt"):
        return False
    at = start + len(text)
    packed = b""
    if kind == b"zTXt":
        packed = data[at + 1 : end]
    elif kind == b"iTXt" and data[at : at + 1] != b"\0":
        packed = data[at + 2 : end].split(b"\0", 2)[-1]
    if packed and unpacked(packed, MOST_TEXT) is None:
        return False
    if kind == b"zTXt" and data[at : at + 1] != b"\0":  # a method that there is not
        return False
    seen.add(text)
    return end - start <= MOST_TEXT


def lacks_rows(data: bytes) -> bool:
    """Whether the pixels of a PNG end before its last row; of an interlaced one nothing is said.

    Pillow takes those that end with a row for whole, and the rest is black.
    """
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    depth, colour, interlaced = data[24], data[25], data[28]
    if interlaced or colour not in SAMPLES:
        return False
    left = height * (1 + (width * depth * SAMPLES[colour] + 7) // 8)
    stream = zlib.decompressobj()
    for kind, start, end in chunks(data):
        part = data[start:end] if kind == b"IDAT" else b""
        while part and left > 0:
            left -= len(stream.decompress(part, PIECE))
            part = stream.unconsumed_tail
    return left > 0


def unpacked(packed: bytes, most: int) -> bytes | None:
    """What zlib makes of bytes; None if they are none of its, or more than `most`."""
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(packed, most)
    except zlib.error:
        return None
    return None if stream.unconsumed_tail else plain
