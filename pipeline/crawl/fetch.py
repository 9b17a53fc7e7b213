"""Downloads candidates in rank order until every class has its images.

A class stops at the shortest run of candidates that holds the wanted number of distinct images.
That depends on the answers alone and not on their timing, so the same web gives the same data set.
"""

import asyncio
import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from functools import partial
from ssl import SSLContext
from typing import Any

import aiohttp
from yarl import URL

from pipeline.crawl.exchange import SLOW_DOWN, Client, Failure, Limits
from pipeline.crawl.guard import Forbidden, HostTable, check_url
from pipeline.crawl.journal import Incoming, Journal
from pipeline.crawl.needed import Needed, Report
from pipeline.crawl.outage import Outage
from pipeline.crawl.robots import Rules, rules_of
from pipeline.crawl.scheduler import DOWN_AFTER, Host, Job, Scheduler
from pipeline.images import ImageError, ImageInfo, inspect, open_image
from pipeline.manifest import Candidate, Fetched

__all__ = ["Limits", "Report", "fetch"]

WORKERS = 64  # requests at once
DECODERS = min(8, os.cpu_count() or 1)  # threads
LARGE = 8_000_000  # pixels; of such images one is decoded at a time, in up to 250 MB
MAX_REDIRECTS = 5
LONGEST_WAIT = 30.0  # seconds; a host that asks for more is left alone in this crawl
BACK_OFF = 0.5  # seconds before the second try, twice as many before the third
FOUND = [field.name for field in fields(ImageInfo)]


def fetch(
    candidates: Sequence[Candidate],
    limits: Limits,
    journal: Journal,
    user_agent: str,
    report: Report,
    hosts: HostTable | None = None,
    *,
    refused: frozenset[str] = frozenset(),
    retry: frozenset[str] = frozenset(),
    tls: SSLContext | None = None,
) -> dict[Candidate, Fetched]:
    """What each needed candidate gave; the images are in the journal's folder.

    Args:
        report: called with the class and `ok` for a new image of the class, `duplicate`,
            `placeholder`, or why there is none, once for each needed candidate.
        hosts: names, and the addresses, otherwise forbidden, that they lead to; for the demo and
            for tests, and no parameter reaches it.
        refused: ids of images that do not count for a class, such as placeholders.
        retry: failures on record that are to be tried again: outcomes, statuses such as `404`,
            or classes of them such as `5xx`.

    Raises:
        ExternalError: the network seems to be down, or the disk will not have an image.
    """
    decoders = ThreadPoolExecutor(DECODERS, "decode")

    async def run() -> dict[Candidate, Fetched]:
        fetcher = Fetcher(candidates, limits, journal, report, refused, retry, decoders)
        client = Client(limits, user_agent, hosts or {}, tls, fetcher.heard)
        async with client.session:
            return await fetcher.run(client)

    try:
        return asyncio.run(run())
    finally:
        decoders.shutdown(cancel_futures=True)


@dataclass(slots=True, eq=False)
class Origin:
    """A scheme, host and port: what its robots.txt says, once that has been read."""

    rules: Rules | None = None
    failure: Fetched | None = None
    waiting: list[Job] = field(default_factory=list)  # until then


class Fetcher:
    """One crawl. A job goes from the scheduler to a worker, and back or to its end."""

    def __init__(
        self,
        candidates: Sequence[Candidate],
        limits: Limits,
        journal: Journal,
        report: Report,
        refused: frozenset[str],
        retry: frozenset[str],
        decoders: ThreadPoolExecutor,
    ) -> None:
        self.candidates, self.limits, self.journal = candidates, limits, journal
        self.decoders = decoders
        self.scheduler = Scheduler(limits.connections_per_host, limits.host_gap, self._admit)
        self.needed = Needed(limits, journal, report, refused, retry, self._begin)
        self.outage = Outage(journal, candidates)
        self._origins: dict[str, Origin] = {}
        self._large = asyncio.Lock()
        self._checking = False

    async def run(self, client: Client) -> dict[Candidate, Fetched]:
        """Fetches what is needed. Of errors in several workers the first one is raised."""
        self.client = client
        self.needed.start(self.candidates)
        if not self.needed.complete:
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(WORKERS):
                        group.create_task(self._work())
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from None
            if self.outage.suspected:
                await self._check_network()
        self.outage.finish()
        return self.needed.found

    def heard(self, job: Job, answer: aiohttp.ClientResponse) -> None:
        """A host answered."""
        job.host.silent = 0
        if answer.status == 429 or answer.status >= 500:
            job.host.good = 0
        else:
            job.host.speed_up()
        self.outage.heard(answer.url)

    async def _work(self) -> None:
        while (job := await self.scheduler.next()) is not None:
            with self.journal.incoming() as incoming:
                try:
                    self._go_on(job, await self._ask(job, incoming))
                except Failure as failure:
                    self._fail(job, failure)
            if self.outage.suspected and not self._checking:
                await self._check_network()

    async def _ask(self, job: Job, incoming: Incoming) -> str | Rules | Fetched:
        try:
            found = await self.client.exchange(job, incoming)
        finally:
            self.scheduler.done(job.host)
        # the host may be asked the next while this is decoded
        return await self._examined(found, incoming) if isinstance(found, Fetched) else found

    async def _examined(self, found: Fetched, incoming: Incoming) -> Fetched:
        loop = asyncio.get_running_loop()
        check = partial(loop.run_in_executor, self.decoders, _check, incoming, self.limits.min_side)
        try:
            checked = await check(LARGE)
            if checked is None:
                async with self._large:
                    checked = await check(None)
        except ImageError as error:
            sides = {"width": error.width, "height": error.height}
            raise Failure(
                error.outcome, str(error), status=found.status, size=found.size, **sides
            ) from None
        return replace(found, **checked)

    # what becomes of a job

    def _begin(self, url: str) -> Fetched | None:
        """Queues a URL, or says why it is not asked for."""
        try:
            host = self._host_of(url)
            refusal = self._refusal(host)
        except Failure as failure:
            refusal = failure
        if refusal is None:
            self.scheduler.add(Job(url, url, host))
            return None
        record = _record(url, refusal)
        self.outage.note(record)
        return record

    def _go_on(self, job: Job, found: str | Rules | Fetched) -> None:
        if isinstance(found, Fetched):
            self._settle(found)
        elif isinstance(found, Rules):
            self._release(job.robots, found)
        elif job.redirects == MAX_REDIRECTS:
            raise Failure("too_many_redirects", f"more than {MAX_REDIRECTS}")
        else:
            job.host, job.address = self._host_of(found), found
            job.redirects += 1
            self._put(job)

    def _fail(self, job: Job, failure: Failure) -> None:
        """Puts the job back for another try, or ends it; the host's pace may change for all."""
        host, slowed = job.host, failure.more.get("status") in SLOW_DOWN
        job.failures += 1
        if failure.outcome in ("connection", "timeout"):
            host.silent += 1
        if slowed:
            now = asyncio.get_running_loop().time()
            host.slow_down(now, job.started, failure.retry_after)
        refused = self._refusal(host) is not None
        if job.failures < failure.tries and not refused:
            self.scheduler.add(job, first=True, after=_pause(job))
        else:
            self._end(job, _record(job.url, failure))
        if refused:
            for waiting in self.scheduler.drain(host):
                self._put(waiting)

    def _put(self, job: Job) -> None:
        """Queues a job that is under way before new ones, if its host may be asked."""
        refusal = self._refusal(job.host)
        if refusal is None:
            self.scheduler.add(job, first=True)
        else:
            self._end(job, _record(job.url, refusal))

    def _end(self, job: Job, record: Fetched) -> None:
        if job.robots is None:
            self._settle(record)
        # RFC 9309, section 2.3.1: no file allows all, a host that is ill nothing
        elif record.outcome in ("http_error", "busy") and (record.status or 500) < 500:
            self._release(job.robots, rules_of(b""))
        elif record.outcome == "forbidden_address":
            self._release(job.robots, record)
        else:
            detail = f"{job.address}: {record.outcome} {record.detail}"[:200].rstrip()
            unreachable = replace(record, outcome="robots_unreachable", detail=detail)
            self._release(job.robots, unreachable)

    def _settle(self, record: Fetched) -> None:
        self.outage.note(record)
        self.needed.settle(record)
        if self.needed.complete:
            self.scheduler.close()

    # hosts and their rules

    def _host_of(self, address: str) -> Host:
        try:
            return self.scheduler.host(check_url(address).raw_host or "")
        except Forbidden as error:
            raise Failure("forbidden_address", str(error)) from None
        except ValueError as error:
            raise Failure("malformed_address", str(error)) from None

    def _refusal(self, host: Host) -> Failure | None:
        """Why a host is not asked any more."""
        if host.down:
            return Failure("host_down", f"{DOWN_AFTER} requests in a row without an answer")
        if host.paused_until - asyncio.get_running_loop().time() > LONGEST_WAIT:
            return Failure("busy", f"Retry-After: more than {LONGEST_WAIT:g} s")
        return None

    def _admit(self, job: Job) -> Job | None:
        """What may start in this job's turn: itself, a robots.txt before it, or nothing."""
        if job.robots is not None or not self.limits.robots:
            return job
        address = URL(job.address)
        name = str(address.origin())
        if name not in self._origins:
            origin = self._origins[name] = Origin(waiting=[job])
            return Job(name, f"{name}/robots.txt", job.host, robots=origin)
        origin = self._origins[name]
        if origin.failure is not None:
            self._settle(replace(origin.failure, url=job.url))
        elif origin.rules is None:
            origin.waiting.append(job)
        elif origin.rules.allow(str(address)):
            return job
        else:
            self._settle(Fetched(job.url, "robots", f"{name}/robots.txt disallows it"))
        return None

    def _release(self, origin: Origin, found: Rules | Fetched) -> None:
        """The robots.txt has been read, or cannot be: whoever waited for it goes on."""
        waiting, origin.waiting = origin.waiting, []
        if isinstance(found, Rules):
            origin.rules = found
            waiting[0].host.be_slower(found.delay)
        else:
            origin.failure = found
        for job in reversed(waiting):
            self._put(job)

    async def _check_network(self) -> None:
        """Raises ExternalError unless a host that answered before does so now."""
        self._checking = True
        for origin in self.outage.answered_before():
            if await self.client.answers(f"{origin}/robots.txt"):
                self.outage.heard(URL(origin))
                break
        self._checking = False
        if self.outage.suspected:
            raise self.outage.error()


def _record(url: str, failure: Failure) -> Fetched:
    return Fetched(url, failure.outcome, str(failure)[:200], **failure.more)


def _pause(job: Job) -> float:
    """Seconds until the next try, another number for every URL and try."""
    key = f"{job.failures} {job.url}".encode("utf-8", "replace")
    return BACK_OFF * job.failures * (0.5 + zlib.crc32(key) / 2**32)


def _check(incoming: Incoming, min_side: int, most: int | None) -> dict[str, Any] | None:
    """Keeps an image that is good, unless it has more than `most` pixels."""
    data = incoming.read()
    if most is not None:
        image = open_image(data)
        if image.width * image.height > most:
            return None
    found = inspect(data, min_side)
    return {name: getattr(found, name) for name in FOUND} | {"id": incoming.keep()}
