"""Candidates that are needed: in rank order, until a class has its images, each URL once.

A candidate that is refused for now gives its place to the next ones, and the next run asks for it
again if the class is still short: then, once its host answers, the class is what it would have been
without the refusal. A class that others have filled is full, and asks for nothing again.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from kd3_pipeline.crawl.blocklist import NOTHING_BLOCKED, Blocklist
from kd3_pipeline.crawl.guard import Forbidden, check_url
from kd3_pipeline.crawl.journal import Journal
from kd3_pipeline.crawl.links import without_tracking
from kd3_pipeline.crawl.optouts.signals import kind_of, obeyed_kinds, refusal_in
from kd3_pipeline.crawl.placeholders import given_for_many
from kd3_pipeline.manifest import (
    BLOCKED,
    DUPLICATE,
    FORBIDDEN_DNS,
    FORGOTTEN,
    NOT_NOW,
    PLACEHOLDER,
    Candidate,
    Fetched,
)
from kd3_pipeline.params import Crawl
from kd3_pipeline.weight import is_too_large, may_fit_now

Report = Callable[[int, str], None]
# what hosts answer who refuse to show an image elsewhere than on its page, besides placeholders
WITHOUT_PAGE = {"http_error", "not_an_image", "too_small"}
LONGEST_PAGE = 2000  # letters of an address


@dataclass(slots=True, eq=False)
class ClassRun:
    """One class on its way to its images."""

    label: int
    waiting: Iterator[Candidate]
    distinct: set[str] = field(default_factory=set)  # ids of its images
    under_way: int = 0  # candidates


class Needed:
    """The candidates of every class that are needed, and in `found` what they gave.

    `start` and `settle` name the URLs that are to be asked for now. Each of them has to be settled
    some time; those that the journal knows, or that this run has `put_off`, are settled here.
    Addresses that differ in fragment and tracking parameters are one, and the first is asked for.

    Attributes:
        pages: with `crawl.referer`: URL → the page that shows it.
    """

    def __init__(
        self,
        params: Crawl,
        journal: Journal,
        report: Report,
        refused: frozenset[str],
        retry: frozenset[str],
        put_off: Mapping[str, Fetched],
        blocklist: Blocklist = NOTHING_BLOCKED,
    ) -> None:
        self.params, self.journal, self.report = params, journal, report
        self.blocklist = blocklist
        self.refused, self.retry = refused, retry
        self.found: dict[Candidate, Fetched] = {}
        self._runs: dict[int, ClassRun] = {}  # by label
        self._asking: dict[str, list[tuple[ClassRun, Candidate]]] = {}
        self._decided = dict(put_off)  # in this run
        self.pages: dict[str, str] = {}
        self._first: dict[str, str] = {}  # address without what tracks → the first of its spellings
        self._one_for_many: frozenset[str] = frozenset()  # ids that came without a page

    @property
    def complete(self) -> bool:
        """Nothing is under way."""
        return not self._asking

    def start(self, candidates: Sequence[Candidate]) -> list[str]:
        """Begins with the first candidates of every class."""
        self._spell(candidates)
        if self.params.referer:
            self._place(candidates)
        by_class: dict[int, list[Candidate]] = {}
        for candidate in candidates:
            by_class.setdefault(candidate.label, []).append(candidate)
        self._runs = {label: ClassRun(label, iter(some)) for label, some in by_class.items()}
        return [url for run in self._runs.values() for url in self._fill(run)]

    def settle(self, record: Fetched) -> list[str]:
        """A URL that was under way is decided, and its classes go on."""
        self._decided[record.url] = record
        asked_by = self._asking.pop(record.url)
        for run, candidate in asked_by:
            run.under_way -= 1
            self._account(run, candidate, record)
        runs = {id(run): run for run, _ in asked_by}
        return [url for run in runs.values() for url in self._fill(run)]

    def put_off(self) -> Iterator[tuple[Candidate, Fetched, bool]]:
        """The candidates that are left to the next run, each with whether its class is full."""
        for candidate, record in self.found.items():
            if record.outcome in (NOT_NOW, FORBIDDEN_DNS):
                run = self._runs[candidate.label]
                yield candidate, record, len(run.distinct) == self.params.per_class

    def _spell(self, candidates: Sequence[Candidate]) -> None:
        """Finds the first spelling of each address of which there may be several."""
        keys = {
            key
            for candidate in candidates
            if (key := without_tracking(candidate.url)) != candidate.url.partition("#")[0]
        }
        for candidate in candidates if keys else ():
            key, url = without_tracking(candidate.url), candidate.url.partition("#")[0]
            if key in keys and not self._is_forgotten(url):
                self._first.setdefault(key, url)

    def _place(self, candidates: Sequence[Candidate]) -> None:
        """Finds the page of each address, and what hosts gave for many without one."""
        for candidate in candidates:
            if 0 < len(candidate.page_url) <= LONGEST_PAGE:
                with suppress(Forbidden):
                    self.pages.setdefault(
                        self._address(candidate), str(check_url(candidate.page_url))
                    )
        known = filter(None, map(self.journal.records.get, self.pages))
        given = [(one.url, one.id) for one in known if one.id is not None and not one.referer]
        self._one_for_many = frozenset(given_for_many(given))

    def _address(self, candidate: Candidate) -> str:
        """The address that is asked for; its fragment never leaves a browser either."""
        url = candidate.url.partition("#")[0]
        if not self._first or self._is_forgotten(url):
            return url
        return self._first.get(without_tracking(url), url)

    def _is_forgotten(self, url: str) -> bool:
        record = self.journal.records.get(url)
        return record is not None and record.outcome == FORGOTTEN

    def _fill(self, run: ClassRun) -> list[str]:
        urls = []
        # with more under way than are wanted still, a class could end beyond its shortest run
        while run.under_way < self.params.per_class - len(run.distinct):
            candidate = next(run.waiting, None)
            if candidate is None:
                break
            url = self._address(candidate)
            record = self._blocked(candidate) or self._decided.get(url)
            if record is None and (left := self._left(candidate, url)) is not None:
                self._account(run, candidate, left)
                continue
            if record is None and url not in self._asking:
                record = self._known(url)
                if record is None:
                    urls.append(url)
                else:
                    self._decided[url] = record
            if record is not None:
                self._account(run, candidate, record)
            else:
                self._asking.setdefault(url, []).append((run, candidate))
                run.under_way += 1
        return urls

    def _left(self, candidate: Candidate, url: str) -> Fetched | None:
        """What was put off before, if the class was full without it; none that is to be asked."""
        later = self.journal.put_off.get(url)
        if later is None or self._named(later) or self._known(url) is not None:
            return None
        full = self.journal.full.get(url, {})
        return later if full.get(candidate.class_name, 0) >= self.params.per_class else None

    def _account(self, run: ClassRun, candidate: Candidate, record: Fetched) -> None:
        self.found[candidate] = record
        outcome = record.outcome
        if record.id in self.refused:
            outcome = PLACEHOLDER
        elif record.id in run.distinct:
            outcome = DUPLICATE
        elif record.id is not None:
            run.distinct.add(record.id)
        self.report(run.label, outcome)

    def _blocked(self, candidate: Candidate) -> Fetched | None:
        """The outcome of a candidate whose host is in the blocklist: nobody is asked for it."""
        block = self.blocklist.host
        rule = block(candidate.url) or (candidate.original and block(candidate.original))
        return Fetched(self._address(candidate), BLOCKED, rule) if rule else None

    def _known(self, url: str) -> Fetched | None:
        """The journal's record, unless the URL is to be asked for again."""
        record, params = self.journal.records.get(url), self.params
        if record is None or self._may_change_by_page(record):
            return None
        if record.id is not None:
            if not self.journal.holds(record):
                return None
            if is_too_large(record.width, record.height, record.format):  # older crawls kept such
                return replace(record, outcome="too_many_pixels", id=None)
            if min(record.width, record.height) < params.min_side:
                return replace(record, outcome="too_small", id=None)
            if record.size > params.max_bytes:
                return replace(record, outcome="too_large", id=None)
            # what was taken while its opt-out was not obeyed
            if refusal := refusal_in(record.signals, obeyed_kinds(params)):
                return replace(record, outcome="opted_out", detail=refusal, id=None)
            return record
        changed = {
            "too_large": 0 < record.size <= params.max_bytes,
            "too_small": min(record.width, record.height) >= params.min_side,
            "too_many_pixels": may_fit_now(record.detail),
            "damaged": params.damaged == "keep",
            "robots": not params.robots,
            "forbidden_address": _taken_for_forbidden(record),
            "opted_out": kind_of(record.detail) not in obeyed_kinds(params),
            BLOCKED: not self.blocklist.holds_still(record),
        }
        return None if self._named(record) or changed.get(record.outcome) else record

    def _may_change_by_page(self, record: Fetched) -> bool:
        """Whether a host may give another answer to who says which page shows the image."""
        if record.referer or record.url not in self.pages:
            return False
        bad = record.id in self.refused or record.id in self._one_for_many
        return bad or record.outcome in WITHOUT_PAGE

    def _named(self, record: Fetched) -> bool:
        """True if it is to be tried again whatever else holds."""
        status = str(record.status)
        return not self.retry.isdisjoint({record.outcome, status, f"{status[0]}xx"})


def _taken_for_forbidden(record: Fetched) -> bool:
    """Whether an older version refused an address, or what DNS said of it, that may be asked.

    Of a redirect the record has where it leads.
    """
    if record.outcome != "forbidden_address" or record.final_url:
        return False
    with suppress(Forbidden):
        return bool(check_url(record.url))
    return False
