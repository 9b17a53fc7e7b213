"""Scheduler of requests: hosts take turns, each within its own pace."""

import asyncio
import heapq
import itertools
from collections import deque
from dataclasses import dataclass, field

from kd3_pipeline.crawl.optouts.origin import Question
from kd3_pipeline.manifest import Fetched

MOST_BACK_OFF = 60.0  # seconds between requests to a host that asked for fewer
MOST_UNASKED = 8.0  # seconds, where it did not say how long it wants to be left alone
STEP_BACK_AFTER = 10  # good answers in a row
LONE_AFTER = 20  # good answers in a row, behind which one error says nothing of the pace
DOWN_AFTER = 5  # requests without an answer in a row
FIRST_PAUSE = 0.5  # seconds, where a refusal names none; twice as many after each one in vain
ILL_AFTER = 30  # answers 5xx in a row, for one address or many
REFUSALS = 8  # in a row: of a host, whose own pauses add up to a minute then; or of one address
EARNED = 30.0  # seconds of pauses that a good answer is worth
SLACK = 1.05  # longer gaps than the limit wants, since neither clock is exact


@dataclass(slots=True, eq=False)
class Host:
    """One host name: its jobs and its pace. Times are seconds of the event loop's clock."""

    name: str
    most: int  # requests at once, at the best of times
    least_gap: float  # seconds between two requests, at the best of times
    limit: int  # requests at once, now
    gap: float
    jobs: deque["Job"] = field(default_factory=deque)
    running: int = 0
    next_start: float = 0.0
    paused_until: float = 0.0  # after a refusal
    slowed: float = -1.0  # when the pace was last taken back
    good: int = 0  # good answers in a row
    unbroken: int = 0  # good answers since the last sign of any kind
    step: int = STEP_BACK_AFTER  # how many of them undo one step of `slow_down`
    silent: int = 0  # requests without an answer in a row
    refusals: int = 0  # without a good answer in between
    ill: int = 0  # answers in a row that were neither good nor refusals
    waited: float = 0.0  # seconds of pauses that good answers have not earned yet
    since: float = -1.0  # when it was first asked, or asked again after a pause
    given: int = 0  # good answers since then
    gave: int = 0  # good answers in all
    well: int = 0  # of these, to what was asked for after the last refusal
    picky: bool = False  # it refuses some addresses for ever, and gives others
    refuser: str = ""  # the address whose refusals alone are in a row; "" of several
    listed: bool = False  # has an entry in the scheduler's heap

    @property
    def room(self) -> bool:
        """Another request may begin; after a refusal one at a time until one is good."""
        return self.running < (1 if self.refusals else self.limit)

    @property
    def down(self) -> bool:
        """The host did not answer too often in a row."""
        return self.silent >= DOWN_AFTER

    def slow_down(self, now: float, asked: float, most: float = MOST_BACK_OFF) -> bool:
        """Takes the pace back after an answer to what was asked for at `asked`.

        The gap grows to `most` seconds at most. Several answers to requests that were under way
        together are one sign: the others are False.
        """
        sign = asked >= self.slowed
        if sign:
            self.limit = max(1, self.limit // 2)
            self.gap = max(min(2 * self.gap, max(most, self.gap)), self.least_gap)
            self.slowed = now
        self.good = self.unbroken = 0
        self.next_start = max(self.next_start, now + self.gap)
        return sign

    def hiccup(self) -> bool:
        """Takes an error behind many good answers for chance, which no slower pace would avoid.

        The next one, unless as many good ones come before it, is a sign.
        """
        lone = self.unbroken >= LONE_AFTER
        self.unbroken = 0
        return lone

    def take_back(self, gap: float | None = None) -> None:
        """Undoes one step of `slow_down`; `gap`: all since it was so, which was no sign of it."""
        self.limit = min(2 * self.limit, self.most)
        self.gap = max(self.gap / 2 if gap is None else min(self.gap, gap), self.least_gap)

    def pause(self, now: float, asked: float, named: float | None) -> bool:
        """Leaves the host alone for as long as its refusal says; False if it is no new sign.

        A pause that was in vain was too short, whatever the host says: ours are added, and grow.
        """
        sign = self.slow_down(now, asked, MOST_BACK_OFF if named else MOST_UNASKED)
        self.refusals += sign
        vain = self.refusals - (1 if named is None else 2)
        own = FIRST_PAUSE * 2**vain if sign and vain >= 0 else 0.0
        self.rest(now, max(named or 0.0, own))
        return sign

    def rest(self, now: float, seconds: float) -> None:
        """Leaves the host alone for so long; its pace stays what it is."""
        until = max(self.paused_until, now + seconds)
        self.waited += until - max(self.paused_until, now)
        self.paused_until = until
        self.next_start = max(self.next_start, until)

    def pause_again(self, now: float, named: float | None) -> None:
        """Takes a pause back that grew by refusals of what is asked for no more."""
        until = min(self.paused_until, now + max(named or 0.0, FIRST_PAUSE))
        self.waited -= self.paused_until - until
        self.paused_until = self.next_start = until
        self.refusals = max(1, self.refusals - 1)  # the next pause is no longer for it

    def speed_up(self, asked: float) -> None:
        """Counts a good answer to what was asked for at `asked`.

        Enough of them in a row undo one step of `slow_down`.
        """
        self.ill = 0
        self.gave += 1
        self.unbroken += 1
        if asked < self.slowed:
            self.given += 1
            return  # it says nothing of the time since then
        self.well += 1
        if self.refusals:
            self._learn()
        self.given += 1
        self.waited = max(0.0, self.waited - EARNED)
        self.good += 1
        if self.good >= self.step:
            self.good = 0
            self.take_back()

    def _learn(self) -> None:
        """Takes what came before the pause that is over now for what the host allows in that time.

        Evenly spread, so many requests bring no refusal; and so many have to be good before faster
        ones are tried again, twice as many after each time that faster ones were refused.
        """
        if self.given and self.since >= 0:
            pace = SLACK * (self.paused_until - self.since) / self.given
            self.gap = max(min(pace, MOST_BACK_OFF), self.least_gap)
            few = self.given < STEP_BACK_AFTER  # may be chance, or another's requests
            self.step = STEP_BACK_AFTER if few else max(self.given, 2 * self.step)
        self.since, self.given, self.refusals = self.paused_until, 0, 0

    def be_slower(self, least_gap: float) -> None:
        """Never asks faster than this again, as its robots.txt wants."""
        self.least_gap = max(self.least_gap, least_gap)
        self.next_start += max(0.0, self.least_gap - self.gap)
        self.gap = max(self.gap, self.least_gap)


@dataclass(slots=True, eq=False)
class Job:
    """A URL that is to be asked for, and how far that has come."""

    url: str  # the candidate's; of a question: the address that it began with
    address: str  # where redirects have led
    host: Host  # of the address
    question: Question | None = None  # what it asks of an origin, not for an image
    page: str = ""  # that shows the image, where hosts are told
    redirects: int = 0
    failures: int = 0  # that may be tried again
    refusals: int = 0  # by its host, whatever was asked for
    refused_at: int | None = None  # good answers of its host before the first; -1: by another run
    told_at: int | None = None  # answers of its well host before the last refusal
    sign: float | None = None  # the gap of its host before its first refusal took the pace back
    # it waits behind the next one of its host, whose answer tells which of the two is ill
    behind: bool = False
    alone: int = 0  # refusals while its host gave others
    wait: float = 0.0  # seconds until its next try, in which its host gives others
    started: float = 0.0  # the last request
    status: int | None = None  # of the last request's answer
    doubt: Exception | None = None  # what is wrong with that, unless its bytes are a whole picture
    last: Fetched | None = None  # what it would have ended with, had that been its last try

    @property
    def overtaken(self) -> bool:
        """It was refused, and its host has given others since, or may have in another run."""
        return self.refused_at is not None and self.host.gave > self.refused_at

    def leads(self, address: str, host: Host) -> None:
        """A redirect leads to another address, of which nothing is known."""
        self.address, self.host, self.redirects, self.last = address, host, self.redirects + 1, None
        self.refused_at, self.told_at, self.sign, self.alone = None, None, None, 0
        self.behind = False

    @property
    def robots(self) -> bool:
        """It asks for a robots.txt."""
        return self.question is not None and self.question.kind == "robots"


class Scheduler:
    """Gives workers their next job. Waiting jobs hold no worker and no connection.

    `most` requests at once to a host, `gap` seconds apart.
    """

    def __init__(self, most: int, gap: float) -> None:
        self.hosts: dict[str, Host] = {}
        self._most, self._gap = most, gap
        self._loop = asyncio.get_running_loop()
        # (when, order, host, job): the host may start a job then, or the job is due at it
        self._heap: list[tuple[float, int, Host, Job | None]] = []
        self._order = itertools.count()
        self._idle: deque[asyncio.Future[Job | None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def host(self, name: str) -> Host:
        """The host of this name; `https` and `http`, and all of its ports, are one."""
        name = name.removesuffix(".")
        if name not in self.hosts:
            self.hosts[name] = Host(name, self._most, self._gap, self._most, self._gap)
        return self.hosts[name]

    def add(self, job: Job, *, first: bool = False, after: float = 0.0) -> None:
        """Queues a job at its host: as the last, as the `first`, or so in `after` seconds.

        The first one that is refused comes second: see `Job.behind`.
        """
        if after:
            when = self._loop.time() + after
            heapq.heappush(self._heap, (when, next(self._order), job.host, job))
            self._wake(when)
        else:
            job.host.jobs.insert(job.behind if first else len(job.host.jobs), job)
            self._list(job.host)

    def drain(self, host: Host) -> list[Job]:
        """Takes away all that waits for a host."""
        late = sorted(entry for entry in self._heap if entry[2] is host and entry[3] is not None)
        if late:
            self._heap = [entry for entry in self._heap if entry[2] is not host or not entry[3]]
            heapq.heapify(self._heap)
        jobs = [*host.jobs, *(job for *_, job in late if job is not None)]
        host.jobs.clear()
        return jobs

    def others(self, host: Host) -> int:
        """How many other hosts have something to do, and are not in a pause."""
        now = self._loop.time()
        return sum(
            bool(other.jobs or other.running) and other.paused_until <= now
            for other in self.hosts.values()
            if other is not host
        )

    async def next(self) -> Job | None:
        """The next job, as soon as its host is ready; None when there will be none."""
        job = self._take()
        if job is not None or self._closed:
            return job
        self._idle.append(self._loop.create_future())
        if self._heap:
            self._wake(self._heap[0][0])
        return await self._idle[-1]

    def done(self, host: Host) -> None:
        """A request to this host has ended."""
        host.running -= 1
        self._list(host)

    def close(self) -> None:
        """No more jobs will come: sends the workers home."""
        self._closed = True
        for worker in self._idle:
            if not worker.done():
                worker.set_result(None)
        self._idle.clear()

    def _list(self, host: Host) -> None:
        if host.jobs and host.room and not host.listed:
            host.listed = True
            when = max(host.next_start, self._loop.time())
            heapq.heappush(self._heap, (when, next(self._order), host, None))
            self._wake(when)

    def _wake(self, when: float) -> None:
        if self._idle and (self._timer is None or when < self._timer.when()):
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(when, self._hand_out)

    def _hand_out(self) -> None:
        self._timer = None
        while self._idle:
            if self._idle[0].done():  # its worker was cancelled
                self._idle.popleft()
                continue
            job = self._take()
            if job is None:
                break
            self._idle.popleft().set_result(job)
        if self._heap and self._idle:
            self._wake(self._heap[0][0])

    def _take(self) -> Job | None:
        """Starts a job of the host that has been ready for longest."""
        while self._heap and self._heap[0][0] <= self._loop.time():
            _, _, host, late = heapq.heappop(self._heap)
            if late is not None:
                host.jobs.insert(late.behind, late)
                self._list(host)
                continue
            host.listed = False
            if host.next_start > self._loop.time():
                self._list(host)
                continue
            if host.jobs and host.room:
                return self._start(host.jobs.popleft())
        return None

    def _start(self, job: Job) -> Job:
        now = self._loop.time()
        job.started = now
        if job.host.since < 0:
            job.host.since = now
        job.host.running += 1
        job.host.next_start = max(job.host.next_start, now + job.host.gap)
        self._list(job.host)
        return job
