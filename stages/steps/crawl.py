"""Step of `pipeline crawl`: images from a search engine, a site, a list, or files."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kd3_pipeline.classes import ClassSet, load_classes, renamed
from kd3_pipeline.console import Console, printable
from kd3_pipeline.crawl.backlog import Backlog
from kd3_pipeline.crawl.blocklist import Blocklist
from kd3_pipeline.crawl.captions.cache import search_once
from kd3_pipeline.crawl.captions.found import CaptionAccount
from kd3_pipeline.crawl.captions.search import progress_total
from kd3_pipeline.crawl.collection import collect, read_collection
from kd3_pipeline.crawl.fetch import fetch
from kd3_pipeline.crawl.gather import Fetch, Gathered, gather
from kd3_pipeline.crawl.gather import Search as Searching
from kd3_pipeline.crawl.http import Web
from kd3_pipeline.crawl.journal import Journal
from kd3_pipeline.crawl.lists import listed_candidates
from kd3_pipeline.crawl.pack import pack
from kd3_pipeline.crawl.pagelog import PageLog
from kd3_pipeline.crawl.placeholders import drawn_in_few_colours
from kd3_pipeline.crawl.removal.targets import refusals
from kd3_pipeline.crawl.rounds import by_wanted, cover
from kd3_pipeline.crawl.search import Search
from kd3_pipeline.crawl.shortfall import class_table, later_line, shortfall_lines, warning
from kd3_pipeline.crawl.site import site_candidates
from kd3_pipeline.crawl.spread import Spread
from kd3_pipeline.engine import Engine
from kd3_pipeline.errors import UserError
from kd3_pipeline.imagesource.matching import Matcher
from kd3_pipeline.manifest import Candidate, Fetched
from kd3_pipeline.params import Crawl, Embed
from kd3_pipeline.store import replacing, write_json
from kd3_stages import paths, sources
from kd3_stages.steps.crawl_remarks import remarks
from kd3_stages.steps.crawl_search import made_how, manner_of, plan, told_before

if TYPE_CHECKING:
    from kd3_stages.steps.teacher_labels import TeacherLabels


def run(
    section: Crawl,
    console: Console,
    retry: frozenset[str],
    search_again: bool,
    shown: Embed | None = None,
    engine: Engine | None = None,
) -> tuple[str, dict[str, Any]]:
    """Crawls into data/crawl: the result for a person, and as one JSON object.

    `shown` is how the teacher of `crawl.rounds` is shown an image. A cluster of `engine` downloads.
    """
    with Journal(paths.CACHE / "crawl") as journal:
        manner = made_how(section)
        about = (section, journal, console, retry, search_again, shown or Embed())
        crawling = Crawling(*about, engine or Engine())
        gathered = crawling.gathered()
        labelled = any(one.label >= 0 for one in gathered.candidates)
        with replacing(paths.CRAWL) as folder:
            names = crawling.class_names if labelled else []
            summary = pack(folder, gathered, journal, names, manner)
            journal.seal(folder)
    covered = [] if gathered.coverage is None else gathered.coverage.lines()
    if gathered.coverage is not None:
        summary["coverage"] = gathered.coverage.summary()
    if isinstance(gathered.account, CaptionAccount):
        summary["captions"] = gathered.account.counts
    write_json(paths.summary("crawl"), summary | {"made": manner})
    for line in remarks(section, summary):
        console.note(line)
    if short := warning(summary):
        console.warn(short)
    lines = [
        class_table(summary),
        *shortfall_lines(summary),
        *filter(None, [later_line(summary)]),
        *covered,
        f"crawl: {summary['stored']:,} images from {summary['candidates']:,} candidates"
        f" → {paths.CRAWL}",
    ]
    return "\n".join(lines), summary


@dataclass(frozen=True)
class Crawling:
    """One run of `pipeline crawl`; outcomes or statuses in `retry` are asked for once more."""

    section: Crawl
    journal: Journal
    console: Console
    retry: frozenset[str]
    search_again: bool
    shown: Embed = field(default_factory=Embed)
    engine: Engine = field(default_factory=Engine)

    def gathered(self) -> Gathered:
        """Everything that the section asks for; images are in the journal's folder."""
        rule = self.blocklist.host(self.section.source)  # a wrong line is told before any request
        if rule and self.section.engine == "site":
            raise UserError(f"crawl.source is refused by {self.section.blocklist}: {rule}")
        places = {
            **{"files": self._files, "urls": self._list, "site": self._site},
            "captions": self._captions,
        }
        return places.get(self.section.engine, self._search)()

    @cached_property
    def blocklist(self) -> Blocklist:
        """What is not stored; images that were stored before are dropped when this is made."""
        path = self.section.blocklist
        if not path:
            return refusals(path, self.journal, self.retry)
        with self.console.progress("crawl: comparing with the blocklist") as advance:
            return refusals(path, self.journal, self.retry, advance)

    @cached_property
    def web(self) -> Web:
        """The web as all but a search of the demo's reaches it."""
        return sources.web_of(self.section, self.console)

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
                {str(role): name for role, name in section.columns.items()},
            )
            keep = section.damaged == "keep"
            found = collect(
                entries,
                section.min_side,
                self.journal,
                advance,
                keep_damaged=keep,
                blocklist=self.blocklist,
            )
        for line in lines:
            self.console.note(line)
        return Gathered(list(found), found, {})

    def _list(self) -> Gathered:
        path, lines = Path(self.section.source), list[str]()
        with self.console.progress("crawl: reading the list") as advance:
            candidates = listed_candidates(path, self.class_names, lines, advance)
        for line in lines:
            self.console.note(line)
        if any(one.label >= 0 for one in candidates):
            gathered = self._all_of(candidates, self.class_names, self.section.per_class)
            listed = Counter(one.label for one in candidates)
            # a list that has fewer is no shortfall, but a class that it does not have at all is
            wanted = [
                min(self.section.per_class, listed[label] or 1)
                for label in range(len(self.class_names))
            ]
            return replace(gathered, wanted=wanted)
        return self._all_of(candidates, [], self.section.sample or len(candidates))

    def _captions(self) -> Gathered:
        section, names = self.section, self.class_names
        for line in renamed(self.classes):
            self.console.say(f"note: {printable(line)}")
        with self.console.progress("crawl: captions, rows", progress_total(section)) as advance:
            found = search_once(
                *(section, self.classes.classes, self.journal.folder / "captions"),
                *(self.search_again, advance),
            )
        for line in found.notes():
            self.console.note(line)
        wanted = [section.per_class] * len(names)
        gathered = self._gathered(found.first, self.web, names, wanted)
        return replace(gathered, wanted=wanted, account=found.account())

    def _site(self) -> Gathered:
        section, lines = self.section, list[str]()
        with self.console.progress("crawl: reading pages") as advance:
            candidates = site_candidates(
                *(section.source, section.depth, section.host_gap, self.web, advance),
                *(self.blocklist, lines),
            )
        for line in lines:
            self.console.note(line)
        return self._all_of(candidates, [], section.sample or len(candidates))

    def _all_of(self, candidates: list[Candidate], names: list[str], wanted: int) -> Gathered:
        """Downloads from a list that does not grow."""
        return self._gathered(lambda _: candidates, self.web, names, wanted)

    def _gathered(
        self, search: Searching, web: Web, names: list[str], wanted: int | Sequence[int]
    ) -> Gathered:
        """Images of what `search` finds, and what is left to the next run."""
        get = self._fetch(web, names, wanted)
        urls = self.section.placeholder_urls
        gathered = gather(search, get, len(names), wanted, urls, self._few_colours)
        later = self._backlog.summary(gathered.found, wanted, frozenset(gathered.refused))
        return replace(gathered, later=later)

    def _few_colours(self, name: str) -> bool:
        """Whether the image with this SHA-256 is drawn in a few flat colours."""
        return drawn_in_few_colours(self.journal.read(name))

    def _search(self) -> Gathered:
        section, folder, names = self.section, self.journal.folder, self.class_names
        teacher = self._teacher()
        with (
            sources.engine_for(section, self.classes, self.console) as (engine, hosts),
            PageLog(folder) as log,
        ):
            web = sources.web_of(section, self.console, hosts)
            if self.search_again:
                log.clear()
            for line in told_before(self.classes, log):
                self.console.say(f"note: {printable(line)}")

            def announce() -> None:
                if engine.name != "demo":  # which is asked without a pause
                    self.console.say(plan(section, self.classes, engine))

            manner = manner_of(section, engine)
            searching = Search(engine, self.classes, manner, web, log, folder, announce)

            def ask(wanted: Sequence[int]) -> list[Candidate]:
                with self.console.progress("crawl: searching", len(names)) as advance:
                    return searching.candidates(wanted, advance)

            def all_of(wanted: Sequence[int]) -> Gathered:
                return self._gathered(ask, web, names, wanted)

            wanted = [section.per_class] * len(names)
            if teacher is None:
                gathered = all_of(wanted)
            else:
                about = (teacher, names, teacher.known, section.per_class, section.rounds)
                gathered, coverage = cover(all_of, *about)
                gathered = replace(gathered, coverage=coverage)
            for line in searching.remarks():
                self.console.note(line)
            return replace(gathered, wanted=wanted, account=searching.account())

    def _teacher(self) -> "TeacherLabels | None":
        """Who says which classes are starved; None without `crawl.rounds`."""
        if not self.section.rounds:
            return None
        from kd3_stages.steps.teacher_labels import TeacherLabels  # and with it torch

        return TeacherLabels(self.class_names, self.journal, self.console, self.shown)

    def _fetch(self, web: Web, names: list[str], wanted: int | Sequence[int]) -> Fetch:
        """`fetch` with this crawl's limits and progress; only its first round tries again.

        Args:
            wanted: images of each class; one number is that of all.
        """
        # the demo's hosts are this process's own
        limits = {"host_gap": 0.0} if web.hosts else {}
        most = wanted if isinstance(wanted, int) else max(wanted)

        def get(
            candidates: Sequence[Candidate], refused: frozenset[str]
        ) -> dict[Candidate, Fetched]:
            results = Counter(one.label for one in candidates)
            found = {name: results[label] for label, name in enumerate(names)}
            about: dict[str, Any] = {
                **{"refused": refused, "retry": next(self._retries, frozenset())},
                **{"backlog": self._backlog, "blocklist": self.blocklist},
            }
            parts = [
                (some, self.section.model_copy(update=limits | {"per_class": count}))
                for count, some in by_wanted(candidates, wanted)
            ]
            known: dict[str, Fetched] = {}
            # one machine is limited by what hosts allow, which more processes do not change; and
            # the demo's hosts are here
            if self.engine.cluster is not None and not web.hosts:
                with self.console.progress("crawl: fetching by workers") as advance:
                    for some, section in parts:
                        spread = self._spread.prefetch
                        known |= spread(some, section, self.journal, web, advance=advance, **about)
            fetched: dict[Candidate, Fetched] = {}
            with self.console.progress_by_class(
                "crawl: fetching", found or {"images": len(candidates)}, most
            ) as progress:
                for some, section in parts:
                    report, note = progress.report, self.console.say
                    fetched |= fetch(
                        *(some, section, self.journal, web, report),
                        **about,
                        note=note,
                        known=known,
                    )
            return fetched

        return get

    @cached_property
    def _retries(self) -> Iterator[frozenset[str]]:
        return iter([self.retry])

    @cached_property
    def _spread(self) -> Spread:
        return Spread(self.engine, self.console.say)

    @cached_property
    def _backlog(self) -> Backlog:
        """What this run leaves to the next."""
        return Backlog()
