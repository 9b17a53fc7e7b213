"""Pictures without their last bytes, of which nothing that is shown is missing.

Servers and tools drop the last two bytes of a JPEG, or count the size of a WebP wrongly. Browsers
show such pictures. Here they are read as well, where their pixels decode to the end.
"""

from collections.abc import Sequence

from kd3_pipeline.damage import jpeg_segments, jpeg_warning

END = b"\xff\xd9"  # of a JPEG
NEAR = 64  # bytes at the end of a JPEG in which its end usually is
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers of ITU-T T.81, table B.1
COEFFICIENTS = 64


def with_its_end(data: bytes, mode: str) -> bytes:
    """A JPEG that may lack its end: with it, if all that comes before is there.

    Args:
        mode: Pillow's, of the image.
    """
    if END in data[-NEAR:]:
        return data
    segments = list(jpeg_segments(data))
    try:
        complete = bool(segments) and segments[-1][0] == 0xDA and _complete(data, segments)
    except (IndexError, ValueError):  # the header of a scan is cut off
        complete = False
    if not complete:
        return data
    mended = data + END
    return mended if jpeg_warning(mended, mode) == "" else data


def _complete(data: bytes, segments: Sequence[tuple[int, int, int]]) -> bool:
    """Whether the scans of a JPEG bring every coefficient of every component to its last bit."""
    missing: dict[int, set[int]] = {}
    for marker, start, _ in segments:
        if marker in FRAMES:
            components = data[start + 10 : start + 10 + 3 * data[start + 9] : 3]
            missing = {one: set(range(COEFFICIENTS)) for one in components}
        elif marker == 0xDA:
            count = data[start + 4]
            at = start + 5 + 2 * count
            first, last, bits = data[at : at + 3]
            if bits & 15:  # there is more to come of these
                continue
            for one in data[start + 5 : at : 2]:
                if one in missing:
                    missing[one] -= set(range(first, last + 1))
    return bool(missing) and not any(missing.values())


def webp_of_its_size(data: bytes) -> bytes:
    """A WebP whose header claims more bytes than there are: of those that are, if all chunks are.

    Others are returned as they are.
    """
    if int.from_bytes(data[4:8], "little") + 8 <= len(data):
        return data
    at = 12
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + length + length % 2
    if at not in (len(data), len(data) + 1):
        return data
    return data[:4] + (at - 8).to_bytes(4, "little") + data[8:] + bytes(at - len(data))
