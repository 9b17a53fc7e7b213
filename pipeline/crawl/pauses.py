"""Pauses of hosts that refuse: how long each waits, what a person hears of it, and when it ends."""

import time
from collections.abc import Callable

from kd3_pipeline.crawl.backlog import Backlog, PutOffHost
from kd3_pipeline.crawl.exchange import Failure
from kd3_pipeline.crawl.scheduler import (
    DOWN_AFTER,
    ILL_AFTER,
    MOST_UNASKED,
    REFUSALS,
    Host,
    Job,
    Scheduler,
)

TELLING = 3  # refusals in a row of one address, by a host that gave others, are about the address
TOLD = 2.0  # seconds; of longer pauses a person hears

Note = Callable[[str], None]


def no_note(line: str) -> None:
    """Notes for callers that do not want any."""


class Pauses:
    """Leaves hosts alone for a while, or for the rest of a run."""

    def __init__(self, scheduler: Scheduler, patience: float, backlog: Backlog, note: Note) -> None:
        """`patience`: the longest pause in seconds, and of several in vain their sum."""
        self.scheduler, self.patience, self.backlog, self.note = scheduler, patience, backlog, note

    def refusal(self, host: Host) -> Failure | None:
        """Why a host is asked no more; None if it may be."""
        if host.down:
            return Failure("host_down", f"gave no answer {DOWN_AFTER} times in a row")
        known = self.backlog.hosts.get(host.name)
        return None if known is None else Failure("put_off", known.why)

    def begin(self, job: Job, now: float, refused: Failure) -> bool:
        """Pauses the host of a job that was refused, or puts it off.

        False: the job is to be put off and not its host, which has given others between several
        refusals of it, or, after too many in a row, before them: all were of this one address, or
        it was refused before, too. Where nothing else is left to ask for, a few such addresses
        would put off all that come after.
        """
        host = job.host
        if job.refused_at is None:
            job.refused_at = host.gave
        if host.name in self.backlog.hosts:
            return True
        well = self._alone(job)
        host.picky = host.picky or job.alone >= TELLING - 1
        if host.picky and job.refusals >= TELLING and not self._too_long(refused):
            return False
        job.wait = 0.0
        if well and not self._too_long(refused):
            job.wait = refused.pause or 0.0  # which is for this address: others are given
            job.host.waited += job.wait
            return True
        before, gap = host.paused_until, host.gap
        sign = False
        if refused.pause and refused.more.get("status") != 429 and host.hiccup():
            host.rest(now, refused.pause)
        else:
            sign = host.pause(now, job.started, refused.pause)
        job.sign = gap if job.told_at is None and sign else None
        job.behind = job.sign is not None and job.question is None
        job.told_at = host.well
        host.refuser = job.url if host.refusals == 1 or host.refuser == job.url else ""
        if host.waited > self.patience or host.refusals >= REFUSALS:
            alone = host.refuser and host.refusals >= TELLING and host.given
            if alone and not self._too_long(refused):
                return False
            if job.overtaken and host.waited <= 2 * self.patience and not self._too_long(refused):
                host.pause_again(now, refused.pause)
                return False
            why = f"{self._why(host, refused)} ({refused})"
            again = time.time() + refused.pause if refused.pause else None
            self._put_off(host, why, again)
            return True
        seconds = host.paused_until - now
        if seconds >= TOLD and (sign or host.paused_until - before >= TOLD):
            others = self.scheduler.others(host)
            says = "asks for" if refused.pause else "refuses, and is left alone for"
            go_on = {0: "no other host has anything to do", 1: "1 other host goes on"}
            rest = go_on.get(others, f"{others:,} other hosts go on")
            self.note(f"{host.name} {says} {seconds:.0f} s ({refused}); {rest}")
        return True

    def slow(self, job: Job, now: float) -> None:
        """Takes the pace of a host back, which refused for a moment, at an address's first time.

        Not for one error among many good answers: a busy host has those at any pace.
        """
        if not self._alone(job) and not job.host.hiccup():
            if job.told_at is None:
                gap = job.host.gap
                sign = job.host.slow_down(now, job.started, MOST_UNASKED)
                job.sign, job.behind = gap if sign else None, sign and job.question is None
            job.told_at = job.host.well

    def _alone(self, job: Job) -> bool:
        """Whether a host that refuses an address again gave others since: then it is well.

        What it was slowed down by for the first time is taken back.
        """
        host = job.host
        if job.told_at is None or host.well <= job.told_at:
            return False
        if job.sign is not None:
            host.take_back(job.sign)
        job.sign, job.behind = None, False
        job.told_at, job.alone = host.well, job.alone + 1
        return True

    def missed(self, host: Host, failure: Failure) -> None:
        """Counts an answer such as 500, and puts off a host that has no other."""
        host.ill += 1
        if host.ill >= ILL_AFTER and host.name not in self.backlog.hosts:
            self._put_off(host, f"gave {host.ill} such answers in a row ({failure})")

    def _put_off(self, host: Host, why: str, again_at: float | None = None) -> None:
        self.backlog.hosts[host.name] = PutOffHost(why, again_at)
        self.note(f"{host.name} is left to the next run: it {why}")

    def _too_long(self, refused: Failure) -> bool:
        return refused.pause is not None and refused.pause > self.patience

    def _why(self, host: Host, refused: Failure) -> str:
        if self._too_long(refused):
            return f"asks for {refused.pause:.0f} s"
        if host.refusals >= REFUSALS:
            return f"refused {host.refusals} times in a row"
        return "asks for longer pauses than what it gives is worth"
