"""Step of `pipeline crawl`: images from a search engine, a site, a list, or files."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.classes import ClassSet, load_classes
from pipeline.console import Console
from pipeline.crawl.captions.kept import search_once
from pipeline.crawl.captions.search import progress_total
from pipeline.crawl.collection import collect, read_collection
from pipeline.crawl.fetch import fetch
from pipeline.crawl.gather import Fetch, Gathered, gather
from pipeline.crawl.http import Web
from pipeline.crawl.journal import Journal
from pipeline.crawl.lists import listed_candidates
from pipeline.crawl.pack import pack, summary_table
from pipeline.crawl.pagelog import PageLog
from pipeline.crawl.placeholders import drawn_in_few_colours
from pipeline.crawl.search import search
from pipeline.crawl.site import site_candidates
from pipeline.imagesource.matching import Matcher
from pipeline.manifest import PLACEHOLDER, Candidate, Fetched
from pipeline.params import Crawl
from pipeline.store import replacing, write_json
from stages import paths, sources


def run(
    section: Crawl, console: Console, retry: frozenset[str], search_again: bool
) -> tuple[str, dict[str, Any]]:
    """Crawls into data/crawl: the result for a person, and as one JSON object."""
    with Journal(paths.CACHE / "crawl") as journal:
        crawling = Crawling(section, journal, console, retry, search_again)
        gathered = crawling.gathered()
        labelled = any(one.label >= 0 for one in gathered.candidates)
        with replacing(paths.CRAWL) as folder:
            summary = pack(folder, gathered, journal, crawling.class_names if labelled else [])
            journal.seal(folder)
    write_json(paths.summary("crawl"), summary)
    for line in _remarks(summary):
        console.note(line)
    return (
        f"{summary_table(summary)}\n"
        f"crawl: {summary['stored']:,} images from {summary['candidates']:,} candidates"
        f" → {paths.CRAWL}",
        summary,
    )


def _remarks(summary: dict[str, Any]) -> Iterator[str]:
    """What was decided about images that a person may see otherwise."""
    outcomes = summary["outcomes"]
    if count := outcomes.get(PLACEHOLDER, 0):
        yield (
            f"{count:,} candidates gave an image that says “not available”, as far as can be told,"
            f" and are put aside: see outcome '{PLACEHOLDER}' and its detail in {paths.MANIFEST};"
            " crawl.placeholder_urls: 0 keeps them"
        )
    if count := outcomes.get("damaged", 0):
        yield (
            f"{count:,} JPEGs are refused because data is missing or was overwritten: see outcome"
            f" 'damaged' in {paths.MANIFEST}; crawl.damaged: keep keeps them"
        )
    if count := summary["brightened"]:
        yield (
            f"{count:,} images of 16 bits use fewer, and are read as such: brighter than they were"
            f" written (see detail in {paths.MANIFEST})"
        )


@dataclass(frozen=True)
class Crawling:
    """One run of `pipeline crawl`; outcomes or statuses in `retry` are asked for once more."""

    section: Crawl
    journal: Journal
    console: Console
    retry: frozenset[str]
    search_again: bool

    def gathered(self) -> Gathered:
        """Everything that the section asks for; images are in the journal's folder."""
        places = {
            **{"files": self._files, "urls": self._list, "site": self._site},
            "captions": self._captions,
        }
        return places.get(self.section.engine, self._search)()

    @cached_property
    def classes(self) -> ClassSet:
        """The classes that the section names."""
        return load_classes(self.section.classes)

    @property
    def class_names(self) -> list[str]:
        """Their names, by label."""
        return [one.name for one in self.classes.classes]

    def _files(self) -> Gathered:
        section = self.section
        matcher, lines = Matcher(lambda: self.class_names), list[str]()
        with self.console.progress("crawl: reading", section.sample or None) as advance:
            entries = read_collection(
                Path(section.source),
                section.sample,
                section.seed,
                section.max_bytes,
                matcher,
                lines,
                advance,
            )
            keep = section.damaged == "keep"
            found = collect(entries, section.min_side, self.journal, advance, keep_damaged=keep)
        for line in lines:
            self.console.note(line)
        return Gathered(list(found), found, {})

    def _list(self) -> Gathered:
        candidates = listed_candidates(Path(self.section.source), self.class_names)
        if any(one.label >= 0 for one in candidates):
            return self._all_of(candidates, self.class_names, self.section.per_class)
        return self._all_of(candidates, [], self.section.sample or len(candidates))

    def _captions(self) -> Gathered:
        section, names = self.section, self.class_names
        with self.console.progress("crawl: captions, rows", progress_total(section)) as advance:
            found = search_once(
                *(section, self.classes.classes, self.journal.folder / "captions"),
                *(self.search_again, advance),
            )
        for line in found.notes():
            self.console.note(line)
        get = self._fetch(Web(sources.user_agent(section.contact)), names, section.per_class)
        urls, wanted = section.placeholder_urls, section.per_class
        return gather(found.first, get, len(names), wanted, urls, self._few_colours)

    def _site(self) -> Gathered:
        section, web = self.section, Web(sources.user_agent(self.section.contact))
        with self.console.progress("crawl: reading pages") as advance:
            candidates = site_candidates(
                section.source, section.depth, section.host_gap, web, advance
            )
        return self._all_of(candidates, [], section.sample or len(candidates))

    def _all_of(self, candidates: list[Candidate], names: list[str], wanted: int) -> Gathered:
        """Downloads from a list that does not grow."""
        get = self._fetch(Web(sources.user_agent(self.section.contact)), names, wanted)
        urls = self.section.placeholder_urls
        return gather(lambda _: candidates, get, len(names), wanted, urls, self._few_colours)

    def _few_colours(self, name: str) -> bool:
        """Whether the image with this SHA-256 is drawn in a few flat colours."""
        return drawn_in_few_colours(self.journal.read(name))

    def _search(self) -> Gathered:
        section, folder, names = self.section, self.journal.folder, self.class_names
        with (
            sources.engine_for(section, self.classes, self.console) as (engine, hosts),
            PageLog(folder) as log,
        ):
            web = Web(sources.user_agent(section.contact), hosts)
            if self.search_again:
                log.clear()

            def ask(wanted: Sequence[int]) -> list[Candidate]:
                with self.console.progress("crawl: searching", len(names)) as advance:
                    return search(
                        engine, self.classes, wanted, section.licence, web, log, folder, advance
                    )

            get = self._fetch(web, names, section.per_class)
            urls, wanted = section.placeholder_urls, section.per_class
            return gather(ask, get, len(names), wanted, urls, self._few_colours)

    def _fetch(self, web: Web, names: list[str], wanted: int) -> Fetch:
        """`fetch` with this crawl's limits and progress; only its first round tries again."""
        # the demo's hosts are this process's own
        limits = {"per_class": wanted} | ({"host_gap": 0.0} if web.hosts else {})
        params = self.section.model_copy(update=limits)
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
                    params,
                    self.journal,
                    web,
                    progress.report,
                    refused=refused,
                    retry=next(retries, frozenset()),
                )

        return get
