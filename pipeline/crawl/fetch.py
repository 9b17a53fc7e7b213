"""Downloads candidates in rank order until every class has its images.

A class stops at the shortest run of candidates that holds the wanted number of distinct images.
That depends on the answers alone and not on their timing, so the same web gives the same data set.
"""

import asyncio
import contextlib
import os
import random
import time
import urllib.robotparser
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin

import aiohttp
from yarl import URL

from pipeline.console import Advance
from pipeline.crawl.candidates import Candidate, Fetched
from pipeline.crawl.guard import Forbidden, GuardedResolver, HostTable, check_url, opted_out
from pipeline.crawl.journal import Journal
from pipeline.images import ImageError, ImageInfo, inspect

CONNECTIONS = 64
CLASS_AT_ONCE = 64  # candidates of one class under way, waiting for their hosts included
DECODERS = min(8, os.cpu_count() or 1)  # threads; a picture takes up to 1 GB while it is decoded
MAX_REDIRECTS = 5
TRIES = 3
CONNECT_TIMEOUT = 5.0  # seconds
RETRY_AFTER_MOST = 10.0  # seconds; a host that asks for more is left alone in this crawl
PAUSE = 0.1  # seconds before the next try at least
ROBOTS_BYTES = 512 * 1024
REDIRECTS = {301, 302, 303, 307, 308}
BUSY = {408, 429, 500, 502, 503, 504}
TRY_AGAIN = {"timeout", "connection", "busy", "too_large", "too_small", "robots_unreachable"}


@dataclass(frozen=True)
class Limits:
    """How much one image and one host may be asked for."""

    per_class: int
    min_side: int  # pixels
    max_bytes: int
    connections_per_host: int
    host_gap: float  # seconds
    timeout: float  # seconds


class Failure(Exception):
    """One URL gave no image: the outcome, and what happened."""

    def __init__(self, outcome: str, detail: str = "", status: int | None = None) -> None:
        super().__init__(detail)
        self.outcome, self.detail, self.status = outcome, detail, status


@dataclass
class Host:
    """One host's share of attention."""

    slots: asyncio.Semaphore
    robots: asyncio.Lock = field(default_factory=asyncio.Lock)
    rules: urllib.robotparser.RobotFileParser | None = None
    failure: tuple[str, str, int | None] | None = None  # of robots.txt, as Failure takes it
    next_start: float = 0.0


def fetch(
    candidates: Iterable[Candidate],
    limits: Limits,
    journal: Journal,
    user_agent: str,
    advance: Advance,
    hosts: HostTable | None = None,
) -> dict[Candidate, Fetched]:
    """What each needed candidate gave; the images are in the journal's folder.

    `advance` is called for each distinct image. `hosts` maps names to addresses that are
    otherwise forbidden; it is for the demo and for tests, and no parameter reaches it.
    """
    # threads of their own: names that do not resolve hold the common ones for long
    with ThreadPoolExecutor(DECODERS, "decode") as decoders:
        return asyncio.run(
            _fetch_all(candidates, limits, journal, user_agent, advance, hosts or {}, decoders)
        )


async def _fetch_all(
    candidates: Iterable[Candidate],
    limits: Limits,
    journal: Journal,
    user_agent: str,
    advance: Advance,
    hosts: HostTable,
    decoders: ThreadPoolExecutor,
) -> dict[Candidate, Fetched]:
    connector = aiohttp.TCPConnector(limit=0, resolver=GuardedResolver(hosts), ttl_dns_cache=300)
    session = aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": user_agent, "Accept": "image/*", "Accept-Encoding": "identity"},
        auto_decompress=False,
        trust_env=False,  # a proxy would resolve names behind the guard's back
        timeout=aiohttp.ClientTimeout(total=limits.timeout, sock_connect=CONNECT_TIMEOUT),
    )
    async with session:
        fetcher = Fetcher(session, limits, journal, user_agent, decoders)
        by_class: dict[int, list[Candidate]] = {}
        for candidate in candidates:
            by_class.setdefault(candidate.label, []).append(candidate)
        try:
            async with asyncio.TaskGroup() as group:
                for of_class in by_class.values():
                    group.create_task(_fetch_class(fetcher, of_class, limits.per_class, advance))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
    return fetcher.found


async def _fetch_class(
    fetcher: "Fetcher", candidates: list[Candidate], wanted: int, advance: Advance
) -> None:
    distinct: set[str] = set()
    running: set[asyncio.Task[Fetched]] = set()
    done: set[asyncio.Task[Fetched]] = set()
    waiting = iter(candidates)
    more = True
    try:
        while more or running:
            while more and len(running) < min(wanted - len(distinct), CLASS_AT_ONCE):
                candidate = next(waiting, None)
                more = candidate is not None
                if candidate is not None:
                    running.add(asyncio.create_task(fetcher.get(candidate)))
            if not running:
                break
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for record in (task.result() for task in done):
                if record.id is not None and record.id not in distinct:
                    distinct.add(record.id)
                    advance(1)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, *done, return_exceptions=True)  # the first one was raised


class Fetcher:
    """Fetches single URLs: politely, within limits, each one once."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        limits: Limits,
        journal: Journal,
        user_agent: str,
        decoders: ThreadPoolExecutor,
    ) -> None:
        self.session, self.limits, self.journal = session, limits, journal
        self.user_agent, self.decoders = user_agent, decoders
        self.found: dict[Candidate, Fetched] = {}
        self._connections = asyncio.Semaphore(CONNECTIONS)
        self._hosts: dict[str, Host] = {}
        self._under_way: dict[str, asyncio.Task[Fetched]] = {}

    async def get(self, candidate: Candidate) -> Fetched:
        """What the candidate's URL gave, from the journal where it is known."""
        url = candidate.url
        if url not in self._under_way:
            self._under_way[url] = asyncio.create_task(self._get(url))
        record = self.found[candidate] = await self._under_way[url]
        return record

    async def _get(self, url: str) -> Fetched:
        record = self._known(url)
        if record is None:
            try:
                record = await self._fetch(url)
            except Failure as failure:
                record = Fetched(url, failure.outcome, failure.detail[:200], failure.status)
            self.journal.add(record)
        return record

    def _known(self, url: str) -> Fetched | None:
        record = self.journal.records.get(url)
        if record is None or record.outcome in TRY_AGAIN:
            return None
        if record.id is not None:
            if not self.journal.path(record.id).exists():
                return None
            if min(record.width, record.height) < self.limits.min_side:
                return replace(record, outcome="too_small", id=None)
        return record

    async def _fetch(self, url: str) -> Fetched:
        tries = 0
        while True:
            tries += 1
            try:
                data, info, status, final_url = await self._follow(url)
                break
            except Failure:
                raise
            except TimeoutError:
                # a host that was silent once is rarely worth a third wait
                if tries == 2:
                    raise Failure("timeout", f"{self.limits.timeout} s") from None
                pause = 0.0
            except Busy as busy:
                if tries == TRIES or busy.seconds > RETRY_AFTER_MOST:
                    raise Failure("busy", "", busy.status) from None
                pause = busy.seconds
            except Exception as error:  # a hostile answer may break the client anywhere
                if tries == TRIES:
                    raise Failure("connection", f"{type(error).__name__}: {error}") from None
                pause = random.uniform(0.1, 0.5) * tries
            await asyncio.sleep(pause)
        loop = asyncio.get_running_loop()
        name = await loop.run_in_executor(self.decoders, self.journal.keep, data)
        return Fetched(url, "ok", "", status, final_url, name, info.width, info.height, info.format)

    async def _follow(self, url: str) -> tuple[bytes, ImageInfo, int, str]:
        address = url
        for _ in range(MAX_REDIRECTS + 1):
            try:
                target = check_url(address)
                async with self._turn(target):
                    async with self._open(target) as answer:
                        if location := _redirect(answer):
                            address = urljoin(address, location)
                            continue
                        data, status = await self._body(answer), answer.status
                    # still in turn: no more bodies are held in memory than there are connections
                    return data, await self._inspect(data, status), status, address
            except Forbidden as error:
                raise Failure("forbidden_address", str(error)) from None
            except (ValueError, aiohttp.InvalidURL) as error:
                raise Failure("malformed_address", str(error)) from None
        raise Failure("too_many_redirects", f"more than {MAX_REDIRECTS}")

    async def _body(self, answer: aiohttp.ClientResponse) -> bytes:
        if answer.status in BUSY:
            raise Busy(answer.status, _retry_after(answer))
        if answer.status != 200:
            raise Failure("http_error", answer.reason or "", answer.status)
        if opt_out := opted_out(answer.headers):
            raise Failure("opted_out", opt_out, answer.status)
        most = self.limits.max_bytes
        announced = answer.content_length or 0
        data = b"" if announced > most else await _read(answer, most)
        if max(announced, len(data)) > most:
            raise Failure("too_large", f"more than {most} bytes", answer.status)
        return data

    async def _inspect(self, data: bytes, status: int) -> ImageInfo:
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self.decoders, inspect, data, self.limits.min_side)
        except ImageError as error:
            raise Failure(error.outcome, str(error), status) from None

    def _open(self, url: URL) -> contextlib.AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self.session.get(url, allow_redirects=False)

    @contextlib.asynccontextmanager
    async def _turn(self, url: URL) -> AsyncIterator[None]:
        """Waits for this host's turn, and for its robots.txt to say yes."""
        origin = str(url.origin())
        if origin not in self._hosts:
            self._hosts[origin] = Host(asyncio.Semaphore(self.limits.connections_per_host))
        host = self._hosts[origin]
        async with host.slots:
            async with host.robots:
                if host.rules is None and host.failure is None:
                    await self._read_robots(origin, host)
                    host.next_start = time.monotonic() + self.limits.host_gap
            if host.failure is not None:
                raise Failure(*host.failure)
            if host.rules is None or not host.rules.can_fetch(self.user_agent, str(url)):
                raise Failure("robots", f"{origin}/robots.txt disallows it")
            start = max(time.monotonic(), host.next_start)
            host.next_start = start + self.limits.host_gap
            await asyncio.sleep(start - time.monotonic())
            async with self._connections:
                yield

    async def _read_robots(self, origin: str, host: Host) -> None:
        """Reads the host's rules (RFC 9309): no file allows all, a host that is ill nothing.

        A host that does not answer here is asked no further in this crawl.
        """
        address = f"{origin}/robots.txt"
        rules = urllib.robotparser.RobotFileParser()
        try:
            for _ in range(MAX_REDIRECTS + 1):
                target = check_url(address)
                async with self._connections, self._open(target) as answer:
                    if location := _redirect(answer):
                        address = urljoin(address, location)
                        continue
                    if answer.status >= 500:
                        host.failure = ("robots_unreachable", address, answer.status)
                        return
                    text = await _read(answer, ROBOTS_BYTES) if answer.status == 200 else b""
                    lines = text[:ROBOTS_BYTES].decode("utf-8-sig", "replace").splitlines()
                    # for robotparser a blank line ends a group, for RFC 9309 it means nothing
                    rules.parse([line for line in lines if line.strip()])
                    host.rules = rules
                    return
            host.failure = ("robots_unreachable", f"{address}: too many redirects", None)
        except Forbidden as error:
            host.failure = ("forbidden_address", str(error), None)
        except TimeoutError:
            host.failure = ("timeout", f"{address}: no answer", None)
        except Exception as error:  # a hostile answer may break the client anywhere
            host.failure = ("connection", f"{type(error).__name__}: {error}", None)


class Busy(Exception):
    """The server asks to come back later."""

    def __init__(self, status: int, seconds: float) -> None:
        super().__init__(status)
        self.status, self.seconds = status, seconds


async def _read(answer: aiohttp.ClientResponse, most: int) -> bytes:
    """The body, of which little more than `most` bytes are read."""
    parts, size = [], 0
    async for part in answer.content.iter_chunked(64 * 1024):
        parts.append(part)
        size += len(part)
        if size > most:
            break
    return b"".join(parts)


def _redirect(answer: aiohttp.ClientResponse) -> str | None:
    return answer.headers.get("Location") if answer.status in REDIRECTS else None


def _retry_after(answer: aiohttp.ClientResponse) -> float:
    """Seconds that the server asks to wait (RFC 9110), or a short pause if it names none."""
    text = answer.headers.get("Retry-After", "")
    with contextlib.suppress(ValueError, OverflowError):
        if text.strip().isdecimal():
            return max(float(text), PAUSE)
        return max(parsedate_to_datetime(text).timestamp() - time.time(), PAUSE)
    return PAUSE
