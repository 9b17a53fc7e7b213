"""Content encodings that nobody asked for: unpacked as the bytes come, within a limit.

A name says little: gzip may be plain bytes, and `utf-8` or `aws-chunked` is no encoding of ours.
So gzip and deflate are unpacked where the bytes begin so, and all else is taken as it comes.
"""

import zlib
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterator

PIECE = 64 * 1024  # bytes that are unpacked at once
MOST = 3  # encodings of one body
MEMBERS = 1000  # of gzip, one after the other; of 64 KiB each, as some tools write them, 64 MB
NONE = {"", "identity"}
PACKED = {"gzip", "x-gzip", "deflate"}
GZIP = b"\x1f\x8b"
# how a JPEG, a PNG and a file of the AVIF family begin; others and texts begin with two letters
PLAIN = (b"\xff\xd8", b"\x89P", b"\0\0")


class Swollen(Exception):
    """What was unpacked has more bytes than are wanted."""


class Packed(Exception):
    """Bytes that cannot be unpacked, and why."""


class Unpacker:
    """Unpacks a body whose headers name some content encodings.

    Attributes:
        taken_as_is: encodings that are unknown, or that the bytes did not have.
    """

    def __init__(self, encoding: str, write: Callable[[bytes], object], most: int) -> None:
        """Hands on to `write`, up to little more than `most` bytes.

        Args:
            encoding: the header, or several of them with commas.
        """
        names = [name.strip().lower() for name in encoding.split(",")]
        self.encodings = [name for name in names if name not in NONE]
        self.taken_as_is = {name for name in self.encodings if name not in PACKED}
        self._write, self._most, self.size = write, most, 0
        layers = [name for name in reversed(self.encodings) if name in PACKED]
        if len(layers) > MOST:
            raise Packed(f"{len(layers)} encodings, one in the other")
        self._layers = [_Layer(name) for name in layers]

    def write(self, part: bytes) -> None:
        """Takes what came.

        Raises:
            Swollen: that is enough.
            Packed: it cannot be unpacked.
        """
        self._hand_on(part, 0)

    def end(self) -> bool:
        """No more will come: hands on what was held back. False where the end is missing."""
        whole = True
        for place, layer in enumerate(self._layers):
            for piece in layer.rest():
                self._hand_on(piece, place + 1)
            whole &= layer.whole
            if layer.plain:
                self.taken_as_is.add(layer.name)
        return whole

    def _hand_on(self, part: bytes, place: int) -> None:
        if place < len(self._layers):
            layer = self._layers[place]
            for piece in layer.pieces(part):
                self._hand_on(piece, place + 1)
                # what is packed in what was packed may come to nothing in the end, and take days
                layer.gave += len(piece)
                self._check(layer.gave)
        elif part:
            self.size += len(part)
            self._write(part)
            self._check(self.size)

    def _check(self, size: int) -> None:
        if size > self._most:
            raise Swollen(f"more than {self._most} bytes")


class _Layer:
    """One encoding, or plain bytes under its name."""

    def __init__(self, name: str) -> None:
        self.name, self.plain = name, False
        self.gave = self._members = 0  # bytes; members of gzip after the first
        self._start = b""  # until it is known what this is
        self._inflater: zlib._Decompress | None = None

    @property
    def whole(self) -> bool:
        """The packed bytes have come to their end, or are none."""
        return self._inflater is None or self._inflater.eof

    def pieces(self, part: bytes) -> Iterator[bytes]:
        if self.plain:
            yield part
        elif self._inflater is not None:
            yield from self._inflated(part)
        else:
            self._start += part
            if len(self._start) >= 2:
                start, self._start = self._start, b""
                yield from self._begun(start)

    def rest(self) -> Iterator[bytes]:
        """What was too short to be anything."""
        self.plain |= bool(self._start)
        yield self._start

    def _begun(self, start: bytes) -> Iterator[bytes]:
        zlib_head = start[0] & 0x0F == 8 and int.from_bytes(start[:2], "big") % 31 == 0
        if start.startswith(GZIP) or (zlib_head and self.name == "deflate"):
            self._inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)  # of both, by the header
            yield from self._inflated(start)
        elif self.name == "deflate" and not start.startswith(PLAIN) and not _letters(start[:2]):
            self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)  # as some old servers send it
            yield from self._inflated(start)
        else:
            self.plain = True
            yield start

    def _inflated(self, data: bytes) -> Iterator[bytes]:
        assert self._inflater is not None
        more = True
        while data or more:
            if self._inflater.eof:
                if not data.startswith(GZIP):
                    return  # what follows is nothing of ours
                self._members += 1
                if self._members == MEMBERS:
                    raise Packed(f"{self.name}: more than {MEMBERS:,} members")
                self._inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
            try:
                piece = self._inflater.decompress(data, PIECE)
            except zlib.error as error:
                raise Packed(f"{self.name}: {error}") from None
            done = self._inflater.eof
            data = self._inflater.unused_data if done else self._inflater.unconsumed_tail
            more = len(piece) == PIECE and not done
            yield piece


def is_text(data: bytes | bytearray) -> bool:
    """Whether bytes may be a text, and no packed ones."""
    try:
        text = getincrementaldecoder("utf-8")().decode(bytes(data))  # the end may be cut off
    except ValueError:
        return False
    return not any(letter < " " and letter not in "\t\n\v\f\r" for letter in text)


def _letters(start: bytes) -> bool:
    return all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start)
