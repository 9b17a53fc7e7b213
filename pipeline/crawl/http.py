"""HTTP client of the crawl: searches, sites and downloads ask through it, under one guard.

Whoever asks, the same holds: public addresses only, checked at every hop and again where the
connection is made; no proxy but the user's, no cookie, certificates verified, no body beyond its
limit.
"""

import asyncio
import html
import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from ssl import SSLContext
from threading import Thread
from typing import Any, Self

import aiohttp
from multidict import CIMultiDictProxy, MultiMapping

from kd3_pipeline.crawl.addresses import target_of
from kd3_pipeline.crawl.guard import Forbidden, GuardedResolver, HostTable, check_url
from kd3_pipeline.crawl.heads import LINE_BYTES, LINES, Connector
from kd3_pipeline.crawl.proxy import Proxy, ProxyError
from kd3_pipeline.errors import ExternalError

CONNECT_TIMEOUT = 5.0  # seconds
READ_TIMEOUT = 10.0  # seconds without a byte
KEEP_ALIVE = 2.0  # seconds; thousands of hosts, each kept for long, would use up the open files
SLOWEST = 5 * 1024  # bytes that have to come before `receive` loses its patience
MAX_REDIRECTS = 5
BUSY = {408, 425, 429}  # refusals for now besides those that begin with 5
WITH_PAUSE = {403, 413}  # too, where a pause is named (RFC 9110, section 10.2.3, for 413)
REDIRECTS = {301, 302, 303, 307, 308}
SEARCHED = 64 * 1024  # bytes of a body in which its first words are looked for
LONGEST_LINE = 200  # letters of a body that are shown
LONGEST_RETRY_AFTER = 24 * 3600.0  # seconds; who asks for more is not asked again anyway

Headers = Mapping[str, str]


class Unanswered(Exception):
    """There is no whole answer, and why. `transient` trouble may pass."""

    def __init__(self, reason: str, transient: bool = False) -> None:
        super().__init__(reason)
        self.transient = transient


class TooSlow(Exception):
    """Too little of a body came in time."""


@dataclass(frozen=True)
class Web:
    """The web as one crawl reaches it.

    Attributes:
        user_agent: who asks.
        hosts: names, and the addresses, otherwise forbidden, that they lead to; for the demo and
            for tests, and no parameter reaches it.
        tls: authorities that are trusted; those of the system by default.
        proxy: through which all but `hosts` are asked; it resolves their names, and no guard of
            ours sees to what.
    """

    user_agent: str
    hosts: HostTable = field(default_factory=dict)
    tls: SSLContext | None = None
    proxy: Proxy | None = None


@dataclass(frozen=True)
class Page:
    """An answer with its body, decompressed."""

    address: str  # where redirects have led
    status: int
    headers: CIMultiDictProxy[str]
    body: bytes
    leads_to: str | None = None  # by a redirect that was not to be followed


class Client:
    """Asks one address at a time; to be made and used inside of one event loop."""

    def __init__(self, web: Web) -> None:
        asyncio.get_running_loop().set_default_executor(Lookups())
        self._web = web
        self._session = aiohttp.ClientSession(
            connector=Connector(
                limit=0,
                resolver=GuardedResolver(web.hosts, web.proxy.host if web.proxy else None),
                ttl_dns_cache=300,
                keepalive_timeout=KEEP_ALIVE,
                ssl=web.tls or True,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": web.user_agent},
            auto_decompress=False,
            max_line_size=LINE_BYTES,
            max_field_size=LINE_BYTES,
            max_headers=LINES,
            trust_env=False,  # a proxy that nobody named would resolve names behind our back
        )

    async def __aenter__(self) -> Self:
        """Raises ExternalError if there is a proxy, and nothing listens there."""
        if self._web.proxy is not None:
            try:
                await self._web.proxy.reach()
            except ExternalError:
                await self._session.close()
                raise
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._session.close()

    def get(
        self, address: str, *, method: str = "GET", **options: Any
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """One request, for an `async with` block; a redirect is an answer like others.

        Raises:
            Forbidden: the address is, or its name leads to one that is.
            aiohttp.ClientError, OSError, ValueError: there is no answer.
        """
        url, proxy = check_url(address), self._web.proxy
        if proxy is None or url.raw_host in self._web.hosts:
            return self._session.request(method, url, allow_redirects=False, **options)
        return proxy.ask(self._session, method, url, allow_redirects=False, **options)

    async def page(
        self,
        address: str,
        most: int,
        *,
        headers: Headers | None = None,
        silence: float = READ_TIMEOUT,
        seconds: float = 60.0,
        follow: bool = True,
        cut: bool = False,
        wanted: Callable[[int, Headers], bool] = lambda status, headers: True,
    ) -> Page:
        """The answer of an address, or of where at most five redirects lead.

        Args:
            most: bytes that the body may have; with `cut` it ends there instead.
            headers: sent to the address's own host, and to no other that a redirect leads to.
            silence: seconds to wait for a connection, and for each part of the answer.
            seconds: for the whole answer.
            follow: follow redirects.
            wanted: whether the body is to be read, by status and headers; it is empty otherwise.

        Raises:
            Forbidden: the address, or where a redirect leads.
            Unanswered: there is no whole answer.
        """
        timeout = aiohttp.ClientTimeout(seconds, sock_connect=silence, sock_read=silence)
        options: dict[str, Any] = {"timeout": timeout, "auto_decompress": True}
        with _told(silence, seconds):
            for _ in range(MAX_REDIRECTS + 1):
                async with self.get(address, headers=headers, **options) as answer:
                    target = leads_to(address, answer.status, answer.headers)
                    if target is None or not follow:
                        read = target is None and wanted(answer.status, answer.headers)
                        body = await _body(answer, most, cut) if read else b""
                        return Page(address, answer.status, answer.headers, body, target)
                if check_url(target).origin() != check_url(address).origin():
                    headers = None  # a token is its own host's business
                address = target
        raise Unanswered(f"more than {MAX_REDIRECTS} redirects")

    async def answers(self, address: str) -> bool:
        """True if anything answers at this address now, readable or not."""
        timeout = aiohttp.ClientTimeout(total=2 * CONNECT_TIMEOUT, sock_connect=CONNECT_TIMEOUT)
        try:
            async with self.get(address, timeout=timeout):
                return True
        except aiohttp.ClientResponseError:
            return True
        except (Forbidden, TimeoutError, ValueError, OSError, aiohttp.ClientError):
            return False


async def receive(
    answer: aiohttp.ClientResponse,
    most: int,
    write: Callable[[bytes], object],
    patience: float | None = None,
) -> int:
    """Hands on the body as it arrives, up to little more than `most` bytes; returns its size.

    Raises:
        TooSlow: fewer than 5 KiB came in `patience` seconds.
    """
    loop = asyncio.get_running_loop()
    size = seen = 0
    if answer.content.is_eof():  # all of a small body is there: no clock is needed
        while size <= most and (part := answer.content.read_nowait()):
            write(part)
            size += len(part)
        return size
    try:
        async with asyncio.timeout(patience) as limit:
            async for part in answer.content.iter_any():
                write(part)
                size += len(part)
                if size > most:
                    break
                if patience is not None and size - seen >= SLOWEST:
                    seen = size
                    limit.reschedule(loop.time() + patience)
    except TimeoutError:
        if limit.expired():
            raise TooSlow(f"{size - seen} bytes in {patience:g} s") from None
        raise
    return size


def leads_to(address: str, status: int, headers: MultiMapping[str]) -> str | None:
    """Target of the redirect that answers `address`; None if it is none, or names two.

    Raises:
        ValueError: it says something that is no address.
    """
    locations = set(headers.getall("Location", ())) if status in REDIRECTS else set[str]()
    if len(locations) != 1 or not (location := locations.pop()):
        return None
    return target_of(address, location)


def retry_after(headers: Headers) -> float | None:
    """Seconds that a server asks to be left alone, at most a day; None where it names none.

    A number of seconds or a date (RFC 9110, section 10.2.3), which is in UTC however it is
    written.
    """
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), LONGEST_RETRY_AFTER)
    try:
        when = parsedate_to_datetime(text)
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        return min(max(when.timestamp() - time.time(), 0.0), LONGEST_RETRY_AFTER)
    except (ValueError, OverflowError):
        return None


def first_line(body: bytes, content_type: str = "") -> str:
    """The first line of a body that has a word, for a person: what a refusal says.

    Of HTML it is the first line of its text. It is printable, and 200 letters at most.
    """
    text = body[:SEARCHED].decode("utf-8", "replace")
    if "html" in content_type.lower() or text.lstrip("\ufeff \t\r\n").startswith("<"):
        text = re.sub(r"(?is)<(script|style)\b.*?(</\1\s*>|$)|<!--.*?(-->|$)", " ", text)
        text = html.unescape(re.sub(r"<[^>]*(>|$)", "\n", text))
    for line in text.splitlines():
        words = "".join(letter if letter.isprintable() else " " for letter in line).split()
        if any(letter.isalnum() for word in words for letter in word):
            return " ".join(words)[:LONGEST_LINE]
    return ""


async def _body(answer: aiohttp.ClientResponse, most: int, cut: bool) -> bytes:
    body = bytearray()
    size = await receive(answer, most, body.extend)
    if size > most and not cut:
        raise Unanswered(f"it has more than {most:,} bytes")
    return bytes(body[:most])


@contextmanager
def _told(silence: float, seconds: float) -> Iterator[None]:
    """Turns what the client raises into `Unanswered`, with a reason for a person."""
    try:
        yield
    except (Forbidden, Unanswered):
        raise
    except ProxyError as error:
        raise Unanswered(str(error)) from None
    except aiohttp.ServerTimeoutError:  # of connecting, or between two parts
        raise Unanswered(f"no answer in {silence:g} s", transient=True) from None
    except TimeoutError:
        raise Unanswered(f"it took more than {seconds:g} s", transient=True) from None
    except aiohttp.ClientConnectorDNSError:
        raise Unanswered("its name cannot be resolved") from None
    except aiohttp.ClientConnectorCertificateError as error:
        raise Unanswered(f"its certificate is not trusted: {error}"[:160]) from None
    except aiohttp.ClientConnectorError as error:
        refused = isinstance(error.os_error, ConnectionRefusedError)
        raise Unanswered("connection refused" if refused else _line(error)) from None
    except (aiohttp.ClientPayloadError, aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
        raise Unanswered("the connection broke off", transient=True) from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise Unanswered(_line(error)) from None


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:160]


class Lookups(ThreadPoolExecutor):
    """A thread for each name that is looked up.

    A lookup may hang for a minute; it delays neither another one nor the end of the program.
    """

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def look_up() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(fn(*args, **kwargs))
                except BaseException as error:
                    future.set_exception(error)

        Thread(target=look_up, name="lookup", daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leaves what hangs alone."""
