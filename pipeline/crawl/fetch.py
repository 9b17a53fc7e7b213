"""Downloads candidates in rank order until every class has its images.

A class stops at the shortest run of candidates that holds the wanted number of distinct images.
That depends on the answers alone and not on their timing, so the same web gives the same data set.
What a host refuses for the moment is left to the next run, and told: `kd3_pipeline.crawl.backlog`.

The life of a download, from `_begun` to `_settle`:

    needed ─▶ robots.txt unread ─▶ waits for its host ─▶ asked by a worker ─▶ decoded ─▶ settled
                  ▲                      ▲                  │   │
                  └───── a redirect ─────┼──────────────────┘   └─ fails for good ─────▶ settled
                                         └── another try, later ┘

A host that refuses waits out its pause with all of its jobs: they hold no worker and no connection,
and other hosts go on. A job may be settled wherever it waits: robots.txt disallows it, its host is
down or put off. A robots.txt is a job of the same life; in the end it sets free the jobs that
waited for it. When a URL is settled, its classes need the next ones.

`Needed` says which URLs, `Scheduler` says when, workers ask and hand back what came of it. Only
`_advance` moves a job on, and only `_settle` ends URLs and begins others.
"""

import asyncio
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from kd3_pipeline.crawl.backlog import (
    ELSEWHERE,
    FOR_NOW,
    SILENT,
    UNREACHABLE,
    UNREAD,
    Backlog,
    was_asked,
)
from kd3_pipeline.crawl.blocklist import NOTHING_BLOCKED, Blocklist
from kd3_pipeline.crawl.decoding import Decoder
from kd3_pipeline.crawl.exchange import SLOW_DOWN, UNREADABLE, Exchange, Failure
from kd3_pipeline.crawl.guard import Forbidden, check_url
from kd3_pipeline.crawl.http import MAX_REDIRECTS, Client, Web
from kd3_pipeline.crawl.incoming import Incoming
from kd3_pipeline.crawl.journal import Journal
from kd3_pipeline.crawl.needed import Needed, Report
from kd3_pipeline.crawl.optouts.origin import Answer
from kd3_pipeline.crawl.optouts.signals import OptedOut, obeyed_kinds
from kd3_pipeline.crawl.origins import Origin, Origins, origin_of
from kd3_pipeline.crawl.outage import NO_TRUST, Outage
from kd3_pipeline.crawl.pauses import Note, Pauses, no_note
from kd3_pipeline.crawl.robots import Rules
from kd3_pipeline.crawl.scheduler import REFUSALS, Host, Job, Scheduler
from kd3_pipeline.manifest import BLOCKED, FORBIDDEN_DNS, NOT_NOW, Candidate, Fetched
from kd3_pipeline.params import Crawl
from kd3_pipeline.picturefile import ImageError

WORKERS = 64  # requests at once
BACK_OFF = 0.5  # seconds before the second try, twice as many before the third
# what an image is called that may be whole at another try, or without its encoding
DOUBTFUL = {"not_an_image", "truncated", "damaged"}
# failures that say the same of whatever else is there, robots.txt or image
OF_THE_ORIGIN = (BLOCKED, "forbidden_address", FORBIDDEN_DNS, *NO_TRUST, "unknown_host")


def any_host(name: str) -> bool:
    """Where one machine does the whole crawl, it may ask every host."""
    return True


def fetch(
    candidates: Sequence[Candidate],
    params: Crawl,
    journal: Journal,
    web: Web,
    report: Report,
    *,
    refused: frozenset[str] = frozenset(),
    retry: frozenset[str] = frozenset(),
    note: Note = no_note,
    backlog: Backlog | None = None,
    blocklist: Blocklist = NOTHING_BLOCKED,
    known: Mapping[str, Fetched] = MappingProxyType({}),
    mine: Callable[[str], bool] = any_host,
) -> dict[Candidate, Fetched]:
    """Downloads what is needed: candidate → record; the images are in the journal's folder.

    Args:
        params: `per_class` images are wanted of each class; the limits of an image and of a host.
        report: called with the class and `ok` for a new image of the class, `duplicate`,
            `placeholder`, or why there is none, once for each needed candidate.
        refused: ids of images that do not count for a class, such as placeholders.
        retry: failures on record that are to be tried again: outcomes, statuses such as `404`,
            or classes of them such as `5xx`.
        note: called with a line for a person when a host wants a pause, or is put off.
        backlog: what earlier rounds of the same run left to the next; it comes to hold more.
        blocklist: of hosts that are not asked, and of images that are not stored.
        known: records of addresses that this run asked for already, and asks for no more.
        mine: whether a host may be asked from here; what leads to another is left, as put off.

    Raises:
        ExternalError: the network seems to be down, or the disk will not have an image.
    """
    backlog = backlog or Backlog()
    decided = {**known, **backlog.records}
    needed = Needed(params, journal, report, refused, retry, decided, blocklist)
    outage = Outage(journal, candidates, blocklist)

    async def run() -> None:
        async with Client(web) as client:
            with Decoder(
                params.min_side,
                keep_damaged=params.damaged == "keep",
                obeyed=obeyed_kinds(params),
                blocklist=blocklist,
            ) as decoder:
                exchange = Exchange(client, params, web.user_agent)
                about = (exchange, needed, outage, decoder, backlog, note, mine)
                await Fetcher(params, journal, *about).run(candidates)

    asyncio.run(run())
    journal.leave(needed.put_off(), params.per_class)
    return needed.found


Outcome = str | Answer | Fetched | Failure | None


class Fetcher:
    """One round of downloads. See above for the life of a job."""

    def __init__(
        self,
        params: Crawl,
        journal: Journal,
        exchange: Exchange,
        needed: Needed,
        outage: Outage,
        decoder: Decoder,
        backlog: Backlog,
        note: Note,
        mine: Callable[[str], bool] = any_host,
    ) -> None:
        self.params, self.journal, self.exchange = params, journal, exchange
        self.needed, self.outage, self.decoder = needed, outage, decoder
        self.backlog, self.mine = backlog, mine
        self.scheduler = Scheduler(params.connections_per_host, params.host_gap)
        self.pauses = Pauses(self.scheduler, params.patience, backlog, note)
        self.origins = Origins(params)

    async def run(self, candidates: Sequence[Candidate]) -> None:
        """Fetches what is needed. Of errors in several workers the first one is raised."""
        self._settle(self._begun(self.needed.start(candidates)))
        if not self.needed.complete:
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(WORKERS):
                        group.create_task(self._work())
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from None
        await self.outage.check(self.exchange.client)
        self.outage.finish()

    # workers

    async def _work(self) -> None:
        while (job := await self.scheduler.next()) is not None:
            with self.journal.incoming() as incoming:
                outcome = await self._outcome(job, incoming)
            self._settle(self._advance(job, outcome))
            await self.outage.check(self.exchange.client)

    async def _outcome(self, job: Job, incoming: Incoming) -> Outcome:
        """Result of one request: an address to go on to, an answer, an image, or a failure."""
        try:
            found = await self._answer(job, incoming)
            # the host may be asked the next while this is decoded
            if isinstance(found, Fetched):
                return await self._examined(job, found, incoming)
            return found
        except Failure as failure:
            return failure

    async def _answer(self, job: Job, incoming: Incoming) -> str | Answer | Fetched | None:
        outcome, good = "", False
        try:
            found = await self.exchange.ask(job, incoming, self.origins.said(job))
            good = getattr(job.doubt, "outcome", "") not in FOR_NOW
            return found
        except Failure as failure:
            outcome, good = failure.outcome, failure.outcome not in FOR_NOW
            raise
        finally:
            self._heard(job, outcome, good)
            self.scheduler.done(job.host)

    def _heard(self, job: Job, outcome: str, good: bool) -> None:
        """Takes note of a host that answered, whatever it said; `good`: not a refusal for now."""
        if outcome in NO_TRUST:
            self.outage.met()
        elif job.status is not None or outcome == UNREADABLE:
            self.outage.heard(origin_of(job.address))
        else:
            return
        job.host.silent = 0
        if job.status is None:
            return
        if good:
            job.host.speed_up(job.started)
        else:
            job.host.good = 0

    async def _examined(self, job: Job, found: Fetched, incoming: Incoming) -> Fetched:
        """An image as it is kept; of an answer that ended early, too, if it is a whole one."""
        try:
            return await self.decoder.kept(found, incoming)
        except ImageError as error:
            if job.doubt is not None and error.outcome in DOUBTFUL:
                raise job.doubt from None
            more = {"status": found.status, "size": found.size, "signals": found.signals}
            more |= {"width": error.width, "height": error.height}
            raise Failure(error.outcome, str(error), more=more) from None
        except OptedOut as error:
            more = {"status": found.status, "size": found.size, "signals": error.signals}
            raise Failure("opted_out", str(error), more=more) from None

    # what becomes of a job; each of these returns the records of the URLs that end here

    def _settle(self, records: Iterable[Fetched]) -> None:
        """Ends URLs, and begins with those that are needed in their place."""
        ended = deque(records)
        while ended:
            record = ended.popleft()
            if record.url in self.needed.pages:
                record = replace(record, referer=True)
            if record.outcome != NOT_NOW:
                self.outage.note(record)
            ended += self._begun(self.needed.settle(record))
        if self.needed.complete:
            self.scheduler.close()

    def _begun(self, urls: Iterable[str]) -> list[Fetched]:
        ended, known = [], self.journal.put_off
        # what was asked in vain before comes last: a host that has nothing else may be put off
        for url in sorted(urls, key=lambda url: was_asked(known.get(url))) if known else urls:
            try:
                job = Job(url, *self._place(url), page=self.needed.pages.get(url, ""))
                job.refused_at = -1 if was_asked(known.get(url)) else None
            except Failure as failure:
                ended.append(failure.record(url))
            else:
                ended += self._queued(job, first=False)
        return ended

    def _advance(self, job: Job, outcome: Outcome) -> list[Fetched]:
        """Moves a job on after a request."""
        if isinstance(outcome, Fetched):
            return [outcome]
        if isinstance(outcome, Failure):
            return self._failed(job, outcome)
        if outcome is None:  # its licence comes first
            origin = self.origins.of(job)
            begun, origin.ready = origin.ready, False
            origin.waiting.append(job)
            return self._ask(origin) if begun else []
        if not isinstance(outcome, str):
            return self._released(job, outcome)
        try:
            if job.redirects == MAX_REDIRECTS:
                raise Failure("too_many_redirects", f"more than {MAX_REDIRECTS}")
            job.leads(*self._place(outcome))
        except Failure as failure:
            failure.more = {"final_url": outcome, **failure.more}
            return self._failed(job, failure)
        return self._queued(job)

    def _queued(self, job: Job, *, first: bool = True) -> list[Fetched]:
        """Lets a job wait for its host, or for its origin before; jobs under way go first."""
        refusal = self.pauses.refusal(job.host)
        if refusal is not None:
            return self._ended(job, refusal.record(job.url))
        if job.question is None:
            origin = self.origins.of(job)
            if not origin.ready:
                origin.waiting.append(job)
                return self._ask(origin) if len(origin.waiting) == 1 else []
            if (record := origin.refusal(job)) is not None:
                return self._ended(job, record)
        self.scheduler.add(job, first=first)
        return []

    def _ask(self, origin: Origin) -> list[Fetched]:
        """Asks for the next file that an origin is judged by; after the last, its jobs go on."""
        while (question := self.origins.question(origin)) is not None:
            if self.origins.is_asked(question, origin):
                return []
            address = question.address
            try:
                job = Job(address, *self._place(address), question=question)
            except Failure as failure:
                if failure.outcome == ELSEWHERE:
                    origin.failure = failure.record(address)
                else:
                    origin.said.hear(question, question.nothing(str(failure)))
                continue
            self.origins.ask(question, origin)
            return self._queued(job)
        # each is put before the others of its host
        ended = [record for job in origin.set_free() for record in self._queued(job)]
        return ended[::-1]

    def _failed(self, job: Job, failure: Failure) -> list[Fetched]:
        """Puts the job back for another try, or ends it; the host's pace may change for all."""
        host, now = job.host, asyncio.get_running_loop().time()
        ended, again = list[Fetched](), True
        if failure.outcome in ("connection", "timeout"):
            host.silent += 1
        if failure.refusal:
            job.refusals += 1
            again = self.pauses.begin(job, now, failure) and job.refusals < REFUSALS
        else:
            job.failures += 1
            again = job.failures < failure.tries
            if failure.more.get("status") in SLOW_DOWN:
                self.pauses.slow(job, now)
            if failure.outcome == "busy":
                self.pauses.missed(host, failure)
        job.last = failure.record(job.url)
        refused = self.pauses.refusal(host) is not None
        if refused or not again:
            ended += self._ended(job, job.last)
        elif failure.refusal:
            # behind others: what they get tells whether the host refuses all, or this one
            first = job.question is not None or job.behind
            self.scheduler.add(job, first=first, after=job.wait)
        else:
            self.scheduler.add(job, first=True, after=_pause(job))
        if refused:
            for waiting in self.scheduler.drain(host):
                ended += self._queued(waiting)
        return ended

    def _ended(self, job: Job, record: Fetched) -> list[Fetched]:
        question = job.question
        if question is None and record.outcome not in FOR_NOW:
            if record.outcome == FORBIDDEN_DNS:
                self.backlog.records[record.url] = record  # one look a run is enough
            return [record]
        if question is None:
            if record.outcome in ("put_off", "host_down"):
                record = job.last or record  # it was asked before its host was put off
            later = self.backlog.take(record, job.host.name)
            unread = record.outcome == UNREACHABLE and record.status is None
            self.outage.note(later, silent=unread or record.outcome in SILENT)
            return [later]
        if record.outcome == ELSEWHERE:  # whatever it says there, it may be a no
            return self._released(job, record)
        missing = record.outcome == "http_error" and question.lacks(record.status or 500)
        if missing or not job.robots or not self.params.robots:
            problem = f"{record.outcome} {record.detail or record.status or ''}"
            return self._released(job, question.nothing(problem.rstrip()))
        led = bool(job.redirects or record.final_url)  # what fails is no fault of the origin's
        if record.outcome in (BLOCKED, "forbidden_address") and led:
            detail = f"{question.address} leads where nothing is asked: {record.detail}"[:200]
            return self._released(job, replace(record, detail=detail))
        if record.outcome in OF_THE_ORIGIN and not led:
            return self._released(job, record)
        word = "" if record.outcome in ("busy", "http_error") else f"{record.outcome}: "
        detail = f"{job.address}: {word}{record.detail}"[:200].rstrip(": ")
        unread = record.outcome == UNREADABLE or (record.outcome in OF_THE_ORIGIN and led)
        outcome = UNREAD if unread else UNREACHABLE
        return self._released(job, replace(record, outcome=outcome, detail=detail))

    def _released(self, job: Job, found: Answer | Fetched) -> list[Fetched]:
        """A question has its answer, or can have none: the origins that asked go on."""
        assert job.question is not None
        ended = []
        for origin in self.origins.hear(job.question, found):
            if isinstance(found, Rules) and self.params.robots:
                origin.waiting[0].host.be_slower(found.delay)
            ended += self._ask(origin)
        return ended

    def _place(self, address: str) -> tuple[str, Host]:
        """An address as it is asked for, which says where it leads, and its host."""
        if rule := self.needed.blocklist.host(address):  # a redirect's: others are not begun
            raise Failure(BLOCKED, rule, more={"final_url": address})
        try:
            url = check_url(address)
        except Forbidden as error:
            raise Failure("forbidden_address", str(error)) from None
        host = url.raw_host or ""
        if not self.mine(host):
            raise Failure(ELSEWHERE, f"{host} is another machine's to ask")
        return str(url), self.scheduler.host(host)


def _pause(job: Job) -> float:
    """Seconds until the next try, another number for every URL and try."""
    key = f"{job.failures} {job.url}".encode("utf-8", "replace")
    return BACK_OFF * job.failures * (0.5 + zlib.crc32(key) / 2**32)
