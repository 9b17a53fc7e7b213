"""Which candidates are needed: in rank order, until a class has its images, each URL once."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from pipeline.crawl.exchange import Limits
from pipeline.crawl.journal import Journal
from pipeline.manifest import Candidate, Fetched

Report = Callable[[int, str], None]


@dataclass(slots=True, eq=False)
class ClassRun:
    """One class on its way to its images."""

    label: int
    waiting: Iterator[Candidate]
    distinct: set[str] = field(default_factory=set)  # ids of its images
    under_way: int = 0  # candidates


class Needed:
    """`found` is what the candidates gave that were needed.

    `begin` queues a URL, or says at once why it gives nothing; once what was queued is decided,
    that goes to `settle`.
    """

    def __init__(
        self,
        limits: Limits,
        journal: Journal,
        report: Report,
        refused: frozenset[str],
        retry: frozenset[str],
        begin: Callable[[str], Fetched | None],
    ) -> None:
        self.limits, self.journal, self.report = limits, journal, report
        self.refused, self.retry, self.begin = refused, retry, begin
        self.found: dict[Candidate, Fetched] = {}
        self._asking: dict[str, list[tuple[ClassRun, Candidate]]] = {}
        self._decided: dict[str, Fetched] = {}  # in this run

    @property
    def complete(self) -> bool:
        """Nothing is under way."""
        return not self._asking

    def start(self, candidates: Sequence[Candidate]) -> None:
        """Begins with the first candidates of every class."""
        by_class: dict[int, list[Candidate]] = {}
        for candidate in candidates:
            by_class.setdefault(candidate.label, []).append(candidate)
        for label, of_class in by_class.items():
            self._fill(ClassRun(label, iter(of_class)))

    def settle(self, record: Fetched) -> None:
        """A URL that was under way is decided, and its classes go on."""
        self._decided[record.url] = record
        asked_by = self._asking.pop(record.url)
        for run, candidate in asked_by:
            run.under_way -= 1
            self._account(run, candidate, record)
        for run in {id(run): run for run, _ in asked_by}.values():
            self._fill(run)

    def _fill(self, run: ClassRun) -> None:
        # with more under way than are wanted still, a class could end beyond its shortest run
        while run.under_way < self.limits.per_class - len(run.distinct):
            candidate = next(run.waiting, None)
            if candidate is None:
                return
            url = candidate.url
            record = self._decided.get(url)
            if record is None and url not in self._asking:
                record = self._known(url) or self.begin(url)
                if record is not None:
                    self._decided[url] = record
            if record is not None:
                self._account(run, candidate, record)
            else:
                self._asking.setdefault(url, []).append((run, candidate))
                run.under_way += 1

    def _account(self, run: ClassRun, candidate: Candidate, record: Fetched) -> None:
        self.found[candidate] = record
        outcome = record.outcome
        if record.id in self.refused:
            outcome = "placeholder"
        elif record.id in run.distinct:
            outcome = "duplicate"
        elif record.id is not None:
            run.distinct.add(record.id)
        self.report(run.label, outcome)

    def _known(self, url: str) -> Fetched | None:
        """What the journal has, unless it is to be asked for again."""
        record, limits = self.journal.records.get(url), self.limits
        if record is None:
            return None
        if record.id is not None:
            if not self.journal.holds(record):
                return None
            if min(record.width, record.height) < limits.min_side:
                return replace(record, outcome="too_small", id=None)
            if record.size > limits.max_bytes:
                return replace(record, outcome="too_large", id=None)
            return record
        changed = {
            "too_large": 0 < record.size <= limits.max_bytes,
            "too_small": min(record.width, record.height) >= limits.min_side,
            "robots": not limits.robots,
            "robots_unreachable": not limits.robots,
            "opted_out": not limits.opt_outs,
        }
        status = str(record.status)
        named = not self.retry.isdisjoint({record.outcome, status, f"{status[0]}xx"})
        return None if named or changed.get(record.outcome) else record
