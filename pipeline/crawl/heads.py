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
LINES = 8000
END = re.compile(rb"\n\r*\n")
STATUS = re.compile(rb"(?i:HTTP)/(\d+\.\d+)[ \t]+(\d{3})(?!\d)[ \t]*(.*)", re.DOTALL)
NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
LONGEST_LENGTH = 18  # digits
# most heads need nothing: no line that is left out or read in another way, and one length
TIDY = re.compile(
    rb"HTTP/1\.[01] (\d{3})(?: [^\r\n]*+)?\r\n(?:" + NAME.pattern + rb"+:[^\r\n]*+\r\n)*+\r\n"
)
FRAMING = re.compile(rb"\n((?:Content-Length|Transfer-Encoding):[^\r\n]*+)", re.IGNORECASE)
LENGTH = re.compile(rb"Content-Length:[ \t]*(\d{1,18})[ \t]*", re.IGNORECASE)
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
            data = self._rest(data)
        data = self._within(data)
        if data or woken:
            super().data_received(data)

    def _within(self, data: bytes) -> bytes:
        """What of this belongs to the body."""
        if self._left is None:
            return data
        if len(data) > self._left:
            self.force_close()
            data = data[: self._left]
        self._left -= len(data)
        return data

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

    def _rest(self, data: bytes) -> bytes:
        """What follows the head and was not handed on with it; nothing before it has come."""
        assert self._head is not None
        seen = max(0, len(self._head) - 2)
        came: bytes | bytearray = data  # mostly it is whole, with a body that need not be copied
        if self._head:
            self._head += data
            came = self._head
        if came[:1] in (b"\r", b"\n"):  # a blank line before an answer
            came, seen = came.lstrip(b"\r\n"), 0
        if not b"HTTP/".startswith(came[:5].upper()):
            self._head = None
            return bytes(came)  # no HTTP, as the parser will say
        end = END.search(came, seen)
        if end is None or end.end() > HEAD_BYTES:
            self._head = bytearray(came) if came is not self._head else self._head
            self.start_timeout()
            if len(came) > HEAD_BYTES:
                self._refuse(f"a head of more than {HEAD_BYTES:,} bytes")
            return b""
        tidy, status, length = tidied(bytes(came[: end.end()]))
        rest = bytes(came[end.end() :])
        if 100 <= status < 200:
            self._head = bytearray()
            if status != SWITCHING:
                super().data_received(tidy)
            return rest
        self._head = None
        self._left = 0 if self._bodiless or status in NO_BODY else length
        if self._left is None:
            super().data_received(tidy)
            return rest
        # of a body that is counted nothing can be wrong with how it comes: one call is enough
        super().data_received(tidy + self._within(rest))
        return b""

    def _refuse(self, why: str) -> None:
        self._head = bytearray()
        if self.transport is not None:
            self.transport.close()
        self.set_exception(HttpProcessingError(message=why))


def tidied(head: bytes) -> tuple[bytes, int, int | None]:
    """A head as a browser reads it; its status, 0 if it has none; the length of the body, if known.

    Its protocol is 1.0 or 1.1, whatever it is called, and a carriage return in a line is a space.
    Lines without a name or a colon are left out, as is white space before a colon. Of lengths that
    are equal one stays; what is no number says nothing, nor does any length of a body in chunks.
    """
    found, said = TIDY.fullmatch(head), FRAMING.findall(head)
    if found and len(said) == 1 and (digits := LENGTH.fullmatch(said[0])):
        return head, int(found[1]), int(digits[1])
    first, *lines = (
        line.rstrip(b"\r").replace(b"\r", b" ") for line in head.strip(b"\r\n").split(b"\n")
    )
    if status := STATUS.match(first):
        version = b"1.0" if status[1] in (b"1.0", b"0.9") else b"1.1"
        reason = b" " + status[3] if status[3] else b""
        first = b"HTTP/%s %s%s" % (version, status[2], reason)
    kept, lengths, codings = [first], list[bytes](), list[bytes]()
    into: list[bytes] | None = None  # where a folded line goes
    for line in lines:
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
    return b"\r\n".join([*kept, *lines]) + b"\r\n\r\n", int(status[2]) if status else 0, length


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
    return [value.strip().lower() for value in line.partition(b":")[2].split(b",")]
