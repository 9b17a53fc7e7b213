"""Damage of JPEGs that Pillow passes over: what was overwritten, and not cut off.

libjpeg warns of data that is none and decodes on; Pillow loses the warnings. PNG has checksums, and
in a GIF most of what is overwritten is no code. WebP and BMP have nothing to tell it by.
"""

import re
from collections.abc import Iterator

MOST_SEGMENTS = 5000  # before the pixels; a profile of colours needs 255 at most
PADDING = 3  # stray bytes at the end of a picture that some cameras and web cams leave
CORRUPT = "Corrupt JPEG data: "  # how libjpeg's warnings of lost pixels begin (jerror.h)
STRAY = re.compile(r"(\d+) extraneous bytes before marker 0x([0-9a-f]{2})")
JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)  # none of entropy-coded data


def jpeg_warning(data: bytes, mode: str) -> str | None:
    """What libjpeg says of a JPEG that it reads to its end, at an eighth of its size.

    Args:
        mode: Pillow's, of the image.

    Returns:
        "" if it is whole; a warning; None where it gave up: Pillow may say more.
    """
    import simplejpeg  # its decoder is the only one here that hands the warnings on

    try:
        simplejpeg.decode_jpeg(
            data, "CMYK" if mode == "CMYK" else "GRAY", min_height=1, min_width=1, strict=True
        )
    except ValueError as warning:
        return str(warning) if str(warning).startswith(CORRUPT) else None
    return ""


def jpeg_damage(data: bytes, warning: str) -> str:
    """Why a JPEG with this warning shows something else than it did, or "".

    Stray bytes between the segments of the header, and padding at the end, harm no pixel.
    """
    if not warning.startswith(CORRUPT):
        return ""
    said = warning.removeprefix(CORRUPT)
    stray = STRAY.search(said)
    if stray is None:
        return said
    if not _header_is_tight(data):
        return ""  # the header's own stray bytes may be what was warned of
    count, marker = int(stray[1]), int(stray[2], 16)
    if marker == 0xD9:
        end = data.rfind(b"\xff\xd9")
        if count <= PADDING or len(set(data[max(0, end - count) : end])) == 1:
            return ""
    return said


def first_scan(data: bytes) -> int:
    """Where the first scan of a JPEG begins; 0 if it has none."""
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] not in b"\0\x01\xd8\xd9\xff":
        if data[at + 1] == 0xDA:
            return at
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    # stray bytes
    return next((start for marker, start, _ in jpeg_segments(data) if marker == 0xDA), 0)


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of the first picture's segments (ITU-T T.81, B.1.1), its end included.

    Entropy-coded data belongs to the segment before it; what is between others is left out.
    """
    found = JPEG_MARKER.search(data, 2)
    while found:
        start, marker = found.start(), data[found.start() + 1]
        end = start + 2
        if marker == 0xD9:
            yield marker, start, end
            return
        if marker not in (0x01, 0xD8):  # these have no length
            end += int.from_bytes(data[end : end + 2], "big")
        found = JPEG_MARKER.search(data, end)
        if marker == 0xDA:
            end = found.start() if found else len(data)
        yield marker, start, end


def has_many_segments(data: bytes) -> bool:
    """Whether a JPEG has so many segments before its first scan that they are made to fill memory.

    Pillow keeps each as an object of its own; and it reads on behind an end.
    """
    at = 2
    for _ in range(MOST_SEGMENTS):
        found = JPEG_MARKER.search(data, at)
        if found is None or (marker := data[found.end() - 1]) == 0xDA:
            return False
        at = found.end()
        if marker not in (0x01, 0xD8, 0xD9):  # these have no length
            at += max(2, int.from_bytes(data[at : at + 2], "big"))
    return True


def _header_is_tight(data: bytes) -> bool:
    """Whether nothing but fill bytes (0xFF) is between the segments before the first scan."""
    expected = 2
    for marker, start, end in jpeg_segments(data):
        if data[expected:start].strip(b"\xff"):
            return False
        if marker == 0xDA:
            return True
        expected = end
    return True
