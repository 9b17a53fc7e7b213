"""Heads of HTTP answers, tidied as browsers read them before the client's parser sees them.

The parser refuses an answer for a space before a colon, for a line without one, or for a length
that is said twice, and loses what came with it. Where two lengths differ it still does.
"""

import re
from functools import partial
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError

HEAD_BYTES = 256 * 1024  # of all lines together
LINE_BYTES = 64 * 1024  # of one; a content security policy may be long
LINES = 1000
END = re.compile(rb"\n\r*\n")
STATUS = re.compile(rb"HTTP/\d\.\d[ \t]+(\d{3})(?!\d)")
NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
LONGEST_LENGTH = 18  # digits
NO_BODY = {204, 304}
SWITCHING = 101  # to what was not asked for: the parser would take all that follows for it


class Connector(aiohttp.TCPConnector):
    """Connections whose answers have tidy heads."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # the client has no public place for this; were it to move, answers would come untidied
        made = getattr(self, "_factory", None)
        if not isinstance(made, partial) or made.func is not ResponseHandler:
            raise RuntimeError(
                f"aiohttp {aiohttp.__version__} makes its connections elsewhere than in"
                " TCPConnector._factory, where the heads of answers are tidied"
            )
        self._factory = partial(TidyHandler, loop=self._loop)  # type: ignore[assignment]


class TidyHandler(ResponseHandler):
    """One connection: each answer's head comes to the parser whole and tidy, its body after it.

    So what is wrong with a body never loses its head, and what follows a body of known length is
    dropped, and the connection with it.
    """

    def __init__(self, loop: Any) -> None:
        super().__init__(loop=loop)
        self._head: bytearray | None = None  # so far; None while a body comes
        self._left: int | None = None  # bytes of the body that are to come, where that is known
        self._bodiless = False

    def set_response_params(self, **options: Any) -> None:
        """The next answer is to come."""
        self._head, self._left = bytearray(), None
        self._bodiless = bool(options.get("skip_payload"))
        super().set_response_params(**options)

    def data_received(self, data: bytes) -> None:
        """Takes what came; nothing wakes a parser that was paused."""
        woken = not data
        while data and self._head is not None:
            self.start_timeout()
            seen = max(0, len(self._head) - 2)
            self._head += data
            data = self._rest(seen)
        if self._left is not None and len(data) > self._left:
            self.force_close()
            data = data[: self._left]
        if self._left is not None:
            self._left -= len(data)
        if data or woken:
            super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Hands on half a head: the parser says what is wrong with it; and ends a broken body."""
        if self._head:
            head, self._head = bytes(self._head), None
            super().data_received(head)
        body, broken = self._payload, self.exception()
        super().connection_lost(exc)
        # who reads a body that the parser gave up would wait for ever
        if body is not None and not body.is_eof() and body.exception() is None:
            why = " ".join(str(broken).split())[:160]
            body.set_exception(aiohttp.ClientPayloadError(f"the body is malformed: {why}"))

    def _rest(self, seen: int) -> bytes:
        """What follows the head, once it has come and was handed on; nothing before."""
        assert self._head is not None
        if self._head[:1] in (b"\r", b"\n"):  # a blank line before an answer
            self._head, seen = self._head.lstrip(b"\r\n"), 0
        if not b"HTTP/".startswith(self._head[:5]):
            whole, self._head = bytes(self._head), None
            return whole  # no HTTP, as the parser will say
        end = END.search(self._head, seen)
        if end is None or end.end() > HEAD_BYTES:
            if len(self._head) > HEAD_BYTES:
                self._refuse(f"a head of more than {HEAD_BYTES:,} bytes")
            return b""
        head, rest = bytes(self._head[: end.end()]), bytes(self._head[end.end() :])
        tidy, status, length = tidied(head)
        interim = 100 <= status < 200
        if not interim:
            self._left = 0 if self._bodiless or status in NO_BODY else length
        self._head = bytearray() if interim else None
        if status != SWITCHING:
            super().data_received(tidy)
        return rest

    def _refuse(self, why: str) -> None:
        self._head = bytearray()
        if self.transport is not None:
            self.transport.close()
        self.set_exception(HttpProcessingError(message=why))


def tidied(head: bytes) -> tuple[bytes, int, int | None]:
    """A head as a browser reads it; its status, 0 if it has none; the length of the body, if known.

    Lines without a name or a colon are left out, as is white space before a colon. Of lengths that
    are equal one stays; what is no number says nothing, nor does any length of a body in chunks.
    """
    first, *lines = head.strip(b"\r\n").split(b"\n")
    kept, lengths, codings = [first.rstrip(b"\r")], list[bytes](), list[bytes]()
    into: list[bytes] | None = None  # where a folded line goes
    for line in (line.rstrip(b"\r") for line in lines):
        if line[:1] in (b" ", b"\t"):
            if into is not None:
                into.append(line)
            continue
        name, colon, value = line.partition(b":")
        name = name.rstrip(b" \t")
        if not colon or not NAME.fullmatch(name):
            into = None
            continue
        into = {b"content-length": lengths, b"transfer-encoding": codings}.get(name.lower(), kept)
        into.append(name + b":" + value)
    length, lines = _framing(lengths, codings)
    status = STATUS.match(kept[0])
    return b"\r\n".join([*kept, *lines]) + b"\r\n\r\n", int(status[1]) if status else 0, length


def _framing(lengths: list[bytes], codings: list[bytes]) -> tuple[int | None, list[bytes]]:
    """The length of a body, if known, and the lines that say how long it is."""
    values = {value for line in codings for value in _values(line)}
    if codings and values != {b"identity"}:
        return None, codings if b"chunked" in values else [*lengths, *codings]
    sizes = {value for line in lengths for value in _values(line)}
    numbers = {value for value in sizes if value.isdigit() and len(value) <= LONGEST_LENGTH}
    if len(numbers) == len(sizes) == 1:
        size = numbers.pop()
        return int(size), [b"Content-Length: " + size]
    return None, lengths if numbers else []  # they differ


def _values(line: bytes) -> list[bytes]:
    return [value.strip().lower() for value in line.rpartition(b":")[2].split(b",")]
