"""One question to one host, and what its answer means."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from ssl import SSLContext
from threading import Thread
from typing import Any
from urllib.parse import urljoin

import aiohttp

from pipeline.crawl.guard import Forbidden, GuardedResolver, HostTable, check_url, opted_out
from pipeline.crawl.journal import Incoming
from pipeline.crawl.robots import MAX_BYTES, Rules, rules_of
from pipeline.crawl.scheduler import Job
from pipeline.errors import PipelineError
from pipeline.manifest import Fetched

CONNECT_TIMEOUT = 5.0  # seconds
READ_TIMEOUT = 10.0  # seconds without a byte
KEEP_ALIVE = 2.0  # seconds; thousands of hosts, each kept for long, would use up the open files
SLOWEST = 5 * 1024  # bytes in `PATIENCE`
PATIENCE = 5.0  # seconds
TRIES = 3
TRIES_AFTER_TIMEOUT = 2  # a host that was silent once is rarely worth a third wait
REDIRECTS = {301, 302, 303, 307, 308}
SLOW_DOWN = {429, 503}


@dataclass(frozen=True)
class Limits:
    """How much one image and one host may be asked for."""

    per_class: int
    min_side: int  # pixels
    max_bytes: int
    connections_per_host: int
    host_gap: float  # seconds
    timeout: float  # seconds
    robots: bool = True  # obey robots.txt
    opt_outs: bool = True  # obey X-Robots-Tag and TDM-Reservation


class Failure(Exception):
    """An exchange that gave no image.

    Attributes:
        outcome: one word for counting; the text says more.
        tries: how many in all it deserves.
        retry_after: seconds for which the host wants to be left alone.
        more: what else `Fetched` has room for.
    """

    def __init__(
        self,
        outcome: str,
        detail: str = "",
        *,
        tries: int = 1,
        retry_after: float = 0.0,
        **more: Any,
    ) -> None:
        super().__init__(detail)
        self.outcome, self.tries, self.retry_after, self.more = outcome, tries, retry_after, more


class Client:
    """Asks for one address at a time. `heard` is called for every answer, before its body."""

    def __init__(
        self,
        limits: Limits,
        user_agent: str,
        hosts: HostTable,
        tls: SSLContext | None,
        heard: Callable[[Job, aiohttp.ClientResponse], None],
    ) -> None:
        self.limits, self.user_agent, self.heard = limits, user_agent, heard
        asyncio.get_running_loop().set_default_executor(Lookups())
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,
                resolver=GuardedResolver(hosts),
                ttl_dns_cache=300,
                keepalive_timeout=KEEP_ALIVE,
                ssl=tls or True,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": user_agent, "Accept": "image/*", "Accept-Encoding": "identity"},
            auto_decompress=False,
            trust_env=False,  # a proxy would resolve names behind the guard's back
            timeout=aiohttp.ClientTimeout(
                total=limits.timeout, sock_connect=CONNECT_TIMEOUT, sock_read=READ_TIMEOUT
            ),
        )

    async def exchange(self, job: Job, incoming: Incoming) -> str | Rules | Fetched:
        """The address that the answer leads to, the rules it states, or the image it has.

        The image's bytes go to `incoming`, unchecked.

        Raises:
            Failure: there is none of these.
            ExternalError: the disk will not have the bytes.
        """
        headers = {"Accept": "text/plain, */*"} if job.robots else None
        try:
            async with self.session.get(
                check_url(job.address), allow_redirects=False, headers=headers
            ) as answer:
                self.heard(job, answer)
                location = answer.headers.get("Location")
                if answer.status in REDIRECTS and location:
                    return urljoin(job.address, location)
                self._check_head(answer)
                return await (
                    self._rules(answer) if job.robots else self._image(job, answer, incoming)
                )
        except (Failure, PipelineError):
            raise
        except Forbidden as error:
            raise Failure("forbidden_address", str(error)) from None
        except aiohttp.ClientConnectorCertificateError as error:
            raise Failure("connection", f"{type(error).__name__}: {error}") from None
        except ValueError as error:  # aiohttp.InvalidURL, and what urljoin makes of a Location
            raise Failure("malformed_address", str(error)) from None
        except TimeoutError:
            detail = f"{self.limits.timeout} s"
            raise Failure("timeout", detail, tries=TRIES_AFTER_TIMEOUT) from None
        except aiohttp.ClientPayloadError as error:
            raise Failure("truncated", str(error), tries=TRIES) from None
        except Exception as error:  # a hostile answer may break the client anywhere
            detail = f"{type(error).__name__}: {error}"
            raise Failure("connection", detail, tries=TRIES) from None

    async def answers(self, address: str) -> bool:
        """Whether anything answers at this address now."""
        timeout = aiohttp.ClientTimeout(total=2 * CONNECT_TIMEOUT, sock_connect=CONNECT_TIMEOUT)
        try:
            async with self.session.get(check_url(address), allow_redirects=False, timeout=timeout):
                return True
        except (Forbidden, TimeoutError, ValueError, OSError, aiohttp.ClientError):
            return False

    def _check_head(self, answer: aiohttp.ClientResponse) -> None:
        status = answer.status
        if status >= 500 or status in (408, 429):
            wait = _retry_after(answer) if status in SLOW_DOWN else 0.0
            raise Failure("busy", tries=TRIES, retry_after=wait, status=status)
        if status != 200:
            raise Failure("http_error", answer.reason or "", status=status)
        encoding = answer.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):  # asked for; what unpacks may be a bomb
            raise Failure("encoded", encoding, status=status)

    async def _rules(self, answer: aiohttp.ClientResponse) -> Rules:
        text = bytearray()
        await _receive(answer, MAX_BYTES, text.extend)
        return await asyncio.to_thread(rules_of, bytes(text))

    async def _image(self, job: Job, answer: aiohttp.ClientResponse, incoming: Incoming) -> Fetched:
        status, most = answer.status, self.limits.max_bytes
        if self.limits.opt_outs and (opt_out := opted_out(answer.headers, self.user_agent)):
            raise Failure("opted_out", opt_out, status=status)
        size = answer.content_length or 0
        if size <= most:
            size = await _receive(answer, most, incoming.write)
        if size > most:
            raise Failure("too_large", f"more than {most} bytes", status=status, size=size)
        return Fetched(job.url, "ok", status=status, final_url=job.address, size=size)


async def _receive(
    answer: aiohttp.ClientResponse, most: int, write: Callable[[bytes], object]
) -> int:
    """Hands on the body as it arrives, up to little more than `most` bytes; returns its size."""
    loop = asyncio.get_running_loop()
    size = seen = 0
    try:
        async with asyncio.timeout(PATIENCE) as patience:
            async for part in answer.content.iter_any():
                write(part)
                size += len(part)
                if size > most:
                    break
                if size - seen >= SLOWEST:
                    seen = size
                    patience.reschedule(loop.time() + PATIENCE)
    except TimeoutError:
        if patience.expired():
            detail = f"{size - seen} bytes in {PATIENCE:g} s"
            raise Failure("too_slow", detail, status=answer.status) from None
        raise
    return size


def _retry_after(answer: aiohttp.ClientResponse) -> float:
    """Seconds that the server asks to wait (RFC 9110, section 10.2.3), 0 if it names none."""
    text = answer.headers.get("Retry-After", "").strip()
    with contextlib.suppress(ValueError, OverflowError):
        if text.isdecimal():
            return float(text)
        return max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    return 0.0


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
