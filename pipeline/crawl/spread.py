"""Crawl on many machines: a prefetch into the one journal of what is needed for certain.

Of each class as many candidates as it lacks are asked for, whatever they give. They go to workers
in parts. A site, which is the last two labels of a host's name and so no less than one owner's, is
in one part at a time: the limits of a host hold because one worker keeps them. Workers give records
and bytes back, and the caller alone writes the journal. Then the ordinary `fetch` finds them there,
asks for the rest, and decides: what comes out is what it is without workers.

A worker leaves to the caller what may be its own fault or another part's business: whether the
network is down, what gave no answer, certificates, and redirects to sites that are not its own.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from kd3_pipeline.console import Advance, listed, no_progress
from kd3_pipeline.crawl.backlog import Backlog, PutOffHost, was_asked
from kd3_pipeline.crawl.blocklist import Blocklist
from kd3_pipeline.crawl.fetch import fetch
from kd3_pipeline.crawl.guard import Forbidden, check_url
from kd3_pipeline.crawl.http import Web
from kd3_pipeline.crawl.journal import Journal
from kd3_pipeline.crawl.needed import Needed
from kd3_pipeline.crawl.outage import NO_TRUST
from kd3_pipeline.crawl.pauses import Note
from kd3_pipeline.crawl.wording import counted
from kd3_pipeline.engine import Engine
from kd3_pipeline.errors import ExternalError, UserError, first_line
from kd3_pipeline.manifest import Candidate, Fetched
from kd3_pipeline.params import Crawl

MOST = 200  # addresses of a site that go out at once, and of a part of several sites
LEAST = 20  # addresses of a part, unless there are no more
FEW = 200  # addresses for which no worker is asked
SECONDS = 120.0  # after which a part gives back what it has: others may wait for its hosts' turn
FULL = 256 * 2**20  # bytes of images, likewise


@dataclass(frozen=True)
class Part:
    """Addresses that one worker asks for, all of them on sites that are its own meanwhile."""

    pages: dict[str, str]  # address → the page that shows it, "" where no host is told
    sites: frozenset[str]
    closed: dict[str, PutOffHost]  # hosts of these that want to be asked no more in this run

    def has(self, host: str) -> bool:
        """Whether a host may be asked by who has this part."""
        return site_of(host) in self.sites

    def __str__(self) -> str:
        return f"addresses of {listed(sorted(self.sites), 3)}"


@dataclass(frozen=True)
class Brought:
    """What became of a part.

    Attributes:
        images: their bytes, by SHA-256.
        backlog: what hosts refused for now, and what gave no answer.
        notes: for a person.
        trouble: why it ended before all was asked for, if not for want of time or room.
        ended: all was asked for.
    """

    records: list[Fetched]
    images: dict[str, bytes]
    backlog: Backlog
    notes: list[str]
    trouble: str
    ended: bool


class _Enough(Exception):
    """A part has taken its time, or has as many bytes as are sent at once."""


@dataclass(frozen=True)
class Visit:
    """The work on a part: the ordinary `fetch` with the same limits, and a journal of its own."""

    params: Crawl
    web: Web
    blocklist: Blocklist

    def __call__(self, part: Part) -> Brought:
        backlog, notes, trouble, ended = Backlog(), list[str](), "", False
        backlog.hosts |= part.closed
        asked = [
            Candidate(0, "", "", "", rank, url, page)
            for rank, (url, page) in enumerate(part.pages.items())
        ]
        params = self.params.model_copy(update={"per_class": len(asked)})
        end = time.monotonic() + SECONDS
        with TemporaryDirectory() as folder, Journal(Path(folder)) as journal:

            def report(label: int, outcome: str) -> None:
                size = sum(one.size for one in journal.records.values() if one.id is not None)
                if size > FULL or time.monotonic() > end:
                    raise _Enough

            try:
                fetch(
                    *(asked, params, journal, self.web, report),
                    note=notes.append,
                    backlog=backlog,
                    blocklist=self.blocklist,
                    mine=part.has,
                )
                ended = True
            except ExternalError as error:  # of this machine: whether of all, the caller finds out
                trouble = first_line(error)
            except _Enough:
                pass
            # whether a certificate is trusted is a matter of the machine, too
            records = [one for one in journal.records.values() if one.outcome not in NO_TRUST]
            images = {one.id: journal.read(one.id) for one in records if one.id is not None}
        time.sleep(params.host_gap)  # who asks these hosts next knows of no request before
        return Brought(records, images, backlog, notes, trouble, ended)


class Spread:
    """Workers that fetch for a crawl; one for all of its rounds."""

    def __init__(self, engine: Engine, note: Note) -> None:
        """`note` is called with a line for a person."""
        self.engine, self.note = engine, note
        self._told = self._over = False

    def prefetch(
        self,
        candidates: Sequence[Candidate],
        params: Crawl,
        journal: Journal,
        web: Web,
        *,
        refused: frozenset[str] = frozenset(),
        retry: frozenset[str] = frozenset(),
        backlog: Backlog,
        blocklist: Blocklist,
        advance: Advance = no_progress,
    ) -> dict[str, Fetched]:
        """Brings what is needed for certain into the journal: address → record, all of them.

        Args: as `fetch` has them.
            advance: called with a number of addresses that are done with.

        Raises:
            UserError, ExternalError: as `Engine.map`; workers lack a package; the disk will not
                have an image. The journal has what came before.
        """
        done: dict[str, Fetched] = {}
        sent: set[str] = set()
        begun = True
        while begun and not self._over:
            decided = {**done, **backlog.records}
            needed = Needed(params, journal, _silent, refused, retry, decided, blocklist)
            urls = [
                url
                for url in needed.start(candidates)
                # what was asked in vain by an earlier run is asked last, behind all others
                if url not in sent and not was_asked(journal.put_off.get(url))
            ]
            sent.update(urls)
            sites, begun = _by_site(urls), False
            while not self._over and (parts := self._wave(sites, needed.pages, backlog)):
                begun, before, trouble = True, len(done), ""
                for part, brought in zip(
                    parts, self._results(Visit(params, web, blocklist), parts), strict=True
                ):
                    _keep(part, brought, journal, done)
                    backlog.join(brought.backlog)
                    for line in brought.notes:
                        self.note(line)
                    trouble = trouble or brought.trouble
                    advance(len(brought.records))
                    _go_on(part, brought, sites)
                if len(done) == before:
                    why = f": {trouble}" if trouble else ""
                    self.note(f"workers brought nothing, so the rest is asked from here{why}")
                    self._over = True
        return done

    def _wave(
        self, sites: dict[str, deque[str]], pages: Mapping[str, str], backlog: Backlog
    ) -> list[Part]:
        """Takes addresses of all sites, some of each; none where one worker would do as well."""
        count = sum(min(len(urls), MOST) for urls in sites.values())
        if count < FEW or len(sites) < 2:
            return []
        workers = self.engine.pool.workers
        if not self._told:
            what, where = self.engine.cluster or ("processes", "this machine")
            self.note(f"the crawl is spread over {counted(workers, 'worker')} of {what} at {where}")
            self._told = True
        size = min(MOST, max(LEAST, -(-count // workers)))
        parts: list[list[str]] = []
        for site in list(sites):
            some = [sites[site].popleft() for _ in range(min(len(sites[site]), MOST))]
            if not sites[site]:
                del sites[site]
            if not parts or len(parts[-1]) + len(some) > size:
                parts.append([])
            parts[-1] += some
        closed = dict[str, dict[str, PutOffHost]]()
        for host, why in backlog.hosts.items():
            closed.setdefault(site_of(host), {})[host] = why
        made = []
        for urls in parts:
            own = frozenset(map(_site, urls))
            shut = {host: why for site in own for host, why in closed.get(site, {}).items()}
            made.append(Part({url: pages.get(url, "") for url in urls}, own, shut))
        return made

    def _results(self, work: Visit, parts: Sequence[Part]) -> Iterator[Brought]:
        try:
            yield from self.engine.map(work, parts, ahead=2 * self.engine.pool.workers)
        except ModuleNotFoundError as error:
            why = getattr(error, "cause", error)  # of Ray's
            told = f"the workers of the crawl: {first_line(why)}"
            raise UserError(told, "install this software there as well: docs/clusters.md") from None
        except ExternalError as error:
            here = "the same command goes on, without workers by `pipeline --engine processes:0`"
            raise ExternalError(str(error).removesuffix(f": {error.hint}"), here) from None


def site_of(host: str) -> str:
    """The last two labels of a host's name, or as many as it has."""
    return ".".join(host.rstrip(".").split(".")[-2:])


def _site(url: str) -> str:
    """The site of an address as it is asked for; raises Forbidden where it is not asked for."""
    return site_of(check_url(url).raw_host or "")


def _by_site(urls: Iterable[str]) -> dict[str, deque[str]]:
    sites: dict[str, deque[str]] = {}
    for url in urls:
        with suppress(Forbidden):  # which takes no request
            sites.setdefault(_site(url), deque()).append(url)
    return sites


def _keep(part: Part, brought: Brought, journal: Journal, done: dict[str, Fetched]) -> None:
    """Writes what a part brought: the image comes first, as the journal wants it."""
    own = {url: url for url in part.pages}
    for record in brought.records:
        if record.id is not None:
            journal.keep(brought.images[record.id])
        url = own[record.url]  # one text where they are equal, as `exchange` has it
        final = url if record.final_url == url else record.final_url
        record = replace(record, url=url, final_url=final)
        journal.add(record)
        done[url] = record


def _go_on(part: Part, brought: Brought, sites: dict[str, deque[str]]) -> None:
    """What a part had no time or room for goes out again; a site that gave nothing does not."""
    gave = {_site(record.url) for record in brought.records}
    for site in part.sites - gave:
        sites.pop(site, None)
    settled = {record.url for record in brought.records} | brought.backlog.records.keys()
    for url in reversed(list(part.pages)) if not brought.ended else ():
        if url not in settled and (site := _site(url)) in gave:
            sites.setdefault(site, deque()).appendleft(url)


def _silent(label: int, outcome: str) -> None:
    """Candidates are told by the fetch that decides."""
