"""Step of `pipeline crawl`: images from a search engine, a site, a list, or files."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.classes import load_classes
from pipeline.console import Console
from pipeline.crawl.collection import collect, read_collection
from pipeline.crawl.fetch import Limits, fetch
from pipeline.crawl.gather import Fetch, Gathered, gather
from pipeline.crawl.guard import HostTable
from pipeline.crawl.journal import Journal
from pipeline.crawl.lists import listed_candidates
from pipeline.crawl.pack import pack, summary_table
from pipeline.crawl.pagelog import PageLog
from pipeline.crawl.search import search
from pipeline.crawl.session import guarded_session
from pipeline.crawl.site import site_candidates
from pipeline.manifest import Candidate, Fetched
from pipeline.params import Crawl
from pipeline.runkey import fields_of
from pipeline.store import replacing, write_json
from stages import paths
from stages.steps.engines import engine_for, user_agent

Found = tuple[list[str], Gathered]  # names of the classes, if any; what the crawl brought


def run(
    section: Crawl, console: Console, retry: frozenset[str], search_again: bool
) -> tuple[str, dict[str, Any]]:
    """Crawls into data/crawl: the result for a person, and as one JSON object."""
    with Journal(paths.CACHE / "crawl") as journal:
        crawling = Crawling(section, journal, console, retry, search_again)
        names, found = crawling.gathered()
        with replacing(paths.CRAWL) as folder:
            summary = pack(folder, found, journal, names)
            journal.seal(folder)
    write_json(paths.summary("crawl"), summary)
    return (
        f"{summary_table(summary)}\n"
        f"crawl: {summary['stored']:,} images from {summary['candidates']:,} candidates"
        f" → {paths.CRAWL}",
        summary,
    )


@dataclass(frozen=True)
class Crawling:
    """One run of `pipeline crawl`; outcomes or statuses in `retry` are asked for once more."""

    section: Crawl
    journal: Journal
    console: Console
    retry: frozenset[str]
    search_again: bool

    def gathered(self) -> Found:
        """Everything that the section asks for; images are in the journal's folder."""
        sources = {"files": self._files, "urls": self._list, "site": self._site}
        return sources.get(self.section.engine, self._search)()

    def _files(self) -> Found:
        section = self.section
        source = Path(section.source)
        entries = read_collection(source, section.sample, section.seed, section.max_bytes)
        with self.console.progress("crawl: reading", section.sample or None) as advance:
            candidates, found = collect(entries, section.min_side, self.journal, advance)
        return [], Gathered(candidates, found, frozenset())

    def _list(self) -> Found:
        names = [one.name for one in load_classes(self.section.classes).classes]
        candidates = listed_candidates(Path(self.section.source), names)
        if any(one.label >= 0 for one in candidates):
            return names, self._all_of(candidates, names, self.section.per_class)
        return [], self._all_of(candidates, [], self.section.sample or len(candidates))

    def _site(self) -> Found:
        section = self.section
        agent = user_agent(section.contact)
        with (
            guarded_session(agent, {}) as session,
            self.console.progress("crawl: reading pages") as advance,
        ):
            candidates = site_candidates(
                section.source, section.depth, section.host_gap, session, agent, advance
            )
        return [], self._all_of(candidates, [], section.sample or len(candidates))

    def _search(self) -> Found:
        section, folder = self.section, self.journal.folder
        classes = load_classes(section.classes)
        names = [one.name for one in classes.classes]
        with (
            engine_for(section, classes, self.console) as (engine, hosts),
            guarded_session(user_agent(section.contact), hosts) as session,
            PageLog(folder) as log,
        ):
            if self.search_again:
                log.clear()

            def ask(wanted: Sequence[int]) -> list[Candidate]:
                with self.console.progress("crawl: searching", len(names)) as advance:
                    return search(
                        engine, classes, wanted, section.licence, session, log, folder, advance
                    )

            get = self._fetch(names, section.per_class, hosts)
            return names, gather(ask, get, len(names), section.per_class, section.placeholder_urls)

    def _all_of(self, candidates: list[Candidate], names: list[str], wanted: int) -> Gathered:
        get = self._fetch(names, wanted, {})
        urls = self.section.placeholder_urls
        return gather(lambda _: candidates, get, len(names), wanted, urls)

    def _fetch(self, names: list[str], wanted: int, hosts: HostTable) -> Fetch:
        """`fetch` with this crawl's limits and progress; only its first round tries again."""
        limits = Limits(**fields_of(Limits, self.section))
        limits = replace(limits, per_class=wanted, host_gap=0.0 if hosts else limits.host_gap)
        retries = iter([self.retry])

        def get(
            candidates: Sequence[Candidate], refused: frozenset[str]
        ) -> dict[Candidate, Fetched]:
            results = Counter(one.label for one in candidates)
            found = {name: results[label] for label, name in enumerate(names)}
            with self.console.progress_by_class(
                "crawl: fetching", found or {"images": len(candidates)}, wanted
            ) as progress:
                return fetch(
                    candidates,
                    limits,
                    self.journal,
                    user_agent(self.section.contact),
                    progress.report,
                    hosts,
                    refused=refused,
                    retry=next(retries, frozenset()),
                )

        return get
