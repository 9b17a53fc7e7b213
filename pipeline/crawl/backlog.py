"""Backlog: what a run leaves to the next one. An address has one of three outcomes:

an image; a failure for good, which the journal keeps; or a refusal for now (`not_now`), which it
never keeps, and which the next run asks for again if its class still needs it.

    answer                                                  asked          outcome
    ------------------------------------------------------  -------------  -----------------------
    2xx with what is no good image, opted out, too large    once           for good
    401, 403, 404, 410, 451 and what else begins with 4     once           for good: http_error
    501, 505, 526, and from 600 on                          once           for good: http_error
    redirects without end, or to what is no public address  once           for good
    a certificate that is not trusted                       once           for good: certificate
    TLS that fails otherwise                                twice          for good: tls
    a name that does not exist                              twice          for good: unknown_host
    a name that leads to no public address                  twice          never kept: forbidden_dns
    what is no HTTP                                         three times    for good: malformed
    a body that ends early, and is no whole picture         three times    for good: truncated
    408, 425, 500, 502, 503, 504, 520 and what else begins  three times    for now
    with 5
    429; and with Retry-After all of the two lines above,   after pauses   for now; its host may be
    403 and 413                                                            put off
    refused, reset, unreachable, its name not looked up     three times    for now
    no answer in time                                       twice          for now
    a body that drips                                       once           for now
    the proxy (`crawl.proxy`) refuses, or is out of reach   three times    for now
    nothing: its host gave no answer five times in a row,   never          for now: not asked
    or is put off, or its robots.txt cannot be had

A host is put off when it wants a longer pause than `crawl.patience`, when its pauses add up to more
than that and what it gave in between is not worth them, when it refuses eight times in a row, or
when thirty answers in a row are 5xx.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kd3_pipeline.console import printable
from kd3_pipeline.crawl.wording import iso
from kd3_pipeline.manifest import FORBIDDEN_DNS, NOT_NOW, Candidate, Fetched, host_of

# no answer at all
SILENT = frozenset({"connection", "timeout", "too_slow", "host_down", "proxy"})
# of a robots.txt: no answer, or the host is ill; and an answer that nobody can read
UNREACHABLE, UNREAD = "robots_unreachable", "robots_unreadable"
NOT_ASKED = frozenset({"host_down", UNREACHABLE, UNREAD, "put_off"})
ELSEWHERE = "elsewhere"  # a host that another machine may be asking: `kd3_pipeline.crawl.spread`
# what a record is called on its way here; the journals of older versions have such ones, too
FOR_NOW = SILENT | NOT_ASKED | {"busy", NOT_NOW, ELSEWHERE}
NEVER_KEPT = FOR_NOW | {FORBIDDEN_DNS}  # by a journal
UNASKED = "not asked: "  # so begin the details of these
LONGEST = 200  # letters of a detail


@dataclass(frozen=True, slots=True)
class PutOffHost:
    """Why a host is asked no more in this run, and when it may be again, if it says so."""

    why: str
    again_at: float | None = None  # seconds since 1970


class Backlog:
    """The addresses and hosts that a run leaves to the next; one for all rounds of the run."""

    def __init__(self) -> None:
        self.records: dict[str, Fetched] = {}  # by address
        self.hosts: dict[str, PutOffHost] = {}
        self._blamed: dict[str, tuple[str, str]] = {}  # address -> host, why

    def take(self, record: Fetched, host: str) -> Fetched:
        """The `not_now` record of an address that `host` did not give, or that it was not asked."""
        why = record.detail
        if record.outcome in SILENT - NOT_ASKED:
            why = f"{record.outcome}: {why}"
        if record.outcome in (UNREACHABLE, UNREAD):
            detail = f"{UNASKED}{why}"
        elif record.outcome in NOT_ASKED:
            detail = f"{UNASKED}{host} {why}"
        else:
            detail = f"{host}: {why}"
        later = replace(record, outcome=NOT_NOW, detail=printable(detail)[:LONGEST])
        self.records[record.url] = later
        self._blamed[record.url] = host, printable(why)
        return later

    def join(self, other: "Backlog") -> None:
        """Takes over what another machine left because a host said so, which holds here as well.

        What it left without an answer may be its own network's fault.
        """
        self.hosts |= other.hosts
        for url, record in other.records.items():
            if record.status is not None:
                self.records[url], self._blamed[url] = record, other._blamed[url]

    def summary(
        self,
        found: Mapping[Candidate, Fetched],
        wanted: int | Sequence[int],
        refused: frozenset[str] = frozenset(),
    ) -> dict[str, Any]:
        """What the next run will ask for: addresses in all and by host, why, and when to ask.

        A class that has its `wanted` images (one number is that of all) needs none of them;
        `refused` as for `fetch`.
        """
        images: dict[int, set[str]] = {}
        for one, record in found.items():
            if record.id is not None and record.id not in refused:
                images.setdefault(one.label, set()).add(record.id)
        needed = {
            record.url: record.detail
            for one, record in found.items()
            if record.outcome == NOT_NOW
            and len(images.get(one.label, ()))
            < (wanted if isinstance(wanted, int) else wanted[one.label])
        }
        hosts: dict[str, dict[str, Any]] = {}
        for url in needed:
            host, why = self._blamed.get(url) or (host_of(url), needed[url])
            known = self.hosts.get(host, PutOffHost(why))
            entry = {"images": 0, "why": known.why, "again_at": iso(known.again_at)}
            hosts.setdefault(host, entry)["images"] += 1
        ordered = sorted(hosts.items(), key=lambda pair: (-pair[1]["images"], pair[0]))
        return {"images": len(needed), "hosts": dict(ordered)}


def was_asked(later: Fetched | None) -> bool:
    """Whether an address that is put off was asked for, and brought no image."""
    return later is not None and not later.detail.startswith(UNASKED)
