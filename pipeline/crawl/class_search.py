"""Search of one class: its own queries first, and variations of them once they are exhausted.

A filter of the engine cuts another part out of the same ranking, so that its first pages may hold
only what is known: it is followed for as many pages as the query itself had. An expansion is
another query: its first page tells whether it brings anything, and all of them take turns.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from kd3_pipeline.classes import ImageClass
from kd3_pipeline.classes.expansion import Expand
from kd3_pipeline.crawl.engines.engine import Engine, Query, Result
from kd3_pipeline.crawl.queries import QueryRun, Source, picture
from kd3_pipeline.manifest import Candidate

FRUITLESS = 3  # variations of a kind in a row that brought nothing new: the kind is given up
NO_FILTER = "its first page is that of the query itself"
# new results from which on a later page is compared with those of other classes: an engine may come
# to fill up with one list for all, and what is left of a page of few is the same by chance
JUDGED_FROM = 10
VARIED = 0.6  # share of the results wanted that variations are to make up; the rest is surplus


@dataclass(frozen=True)
class Manner:
    """How a search is done: as the parameters of the same names say.

    Attributes:
        side: pixels of the shorter side that pictures need at least; 0 asks for originals.
    """

    licence: str = "any"
    side: int = 0
    filters: bool = True
    expand: Expand = "all"
    patience: float = 600.0
    canary: bool = True


class ClassSearch:
    """What was asked and found for one class.

    Attributes:
        own: runs of the class's queries.
        varied: runs of variations, in the order in which they began.
        chosen: candidates by address, in order; it only grows at its end.
        given_up: kinds of variation that brought nothing new.
    """

    def __init__(
        self,
        label: int,
        one: ImageClass,
        engine: Engine,
        manner: Manner,
        judge: Callable[["ClassSearch", QueryRun, Sequence[Result]], Awaitable[None]],
    ) -> None:
        self.label, self.one, self.engine, self.manner = label, one, engine, manner
        self.own = [QueryRun(Query(text, manner.licence, side=manner.side)) for text in one.queries]
        self.varied: list[QueryRun] = []
        self.chosen: dict[str, Candidate] = {}
        self.given_up: list[str] = []
        self._judge_page = judge
        self._share = 0  # ranks of own queries that were chosen from
        self._variations = self._in_turn()

    @property
    def runs(self) -> list[QueryRun]:
        """All runs."""
        return [*self.own, *self.varied]

    async def fill(self, wanted: int, source: Source) -> None:
        """Reads pages until there are so many candidates, or no more."""
        await self._read_own(wanted, source)
        while len(self.chosen) < VARIED * wanted:
            run = next(self._variations, None)
            if run is None:
                return
            await self._read_varied(run, source)

    async def _read_own(self, wanted: int, source: Source) -> None:
        """The class's queries share what is wanted, and make up for one that has fewer."""
        while len(self.chosen) < wanted:
            longer = [run for run in self.own if not run.ended or len(run.found) > self._share]
            if not longer:
                return
            before = self._share
            self._share += -(-(wanted - len(self.chosen)) // len(longer))
            for run in longer:
                while len(run.found) < self._share and not run.ended:
                    await self._read(run, source)
            ranked = [
                (rank, index, run, result)
                for index, run in enumerate(self.own)
                for rank, result in list(enumerate(run.found.values()))[before : self._share]
            ]
            for rank, _, run, result in sorted(ranked, key=lambda entry: entry[:2]):
                self._choose(run, rank, result)

    async def _read_varied(self, run: QueryRun, source: Source) -> None:
        before = run.brought
        for rank, result in await self._read(run, source):
            self._choose(run, rank, result)
        run.barren = 0 if run.brought > before else run.barren + 1
        if run.waits and not run.pages and source.pages.stopped is not None:
            self.varied.remove(run)  # never asked for, and nobody knows whether it is needed

    async def _read(self, run: QueryRun, source: Source) -> list[tuple[int, Result]]:
        first = not run.found
        found = await run.read_page(source)
        said = f" {run.variant}" if run.variant == run.query.variant and run.variant else ""
        source.pages.tell(
            f"{self.one.name}: '{run.query.text}'{said}: {len(run.found):,} results so far"
        )
        if found and (first or len(found) >= JUDGED_FROM):
            await self._judge_page(self, run, [result for _, result in found])
        return found

    def _choose(self, run: QueryRun, rank: int, result: Result) -> None:
        address = picture(result)
        if address in self.chosen:
            return
        run.brought += 1
        texts = asdict(result) | {
            "licence_filter": "" if run.query.licence == "any" else run.query.licence,
            "variant": run.variant,
        }
        self.chosen[address] = Candidate(
            self.label, self.one.name, self.engine.name, run.query.text, rank, **texts
        )

    # variations: each run that is given is to be read by one page before the next one

    def _in_turn(self) -> Iterator[QueryRun]:
        if all(run.waits for run in self.own):
            return
        if self.manner.filters:
            yield from self._filtered()
        yield from self._expanded()

    def _filtered(self) -> Iterator[QueryRun]:
        fruitless = 0
        for variant in self.engine.variants:
            runs = []
            for own in self.own:
                if own.waits or not own.found:
                    continue
                run = self._begun(replace(own.query, variant=variant), variant)
                runs.append(run)
                while not run.ended:
                    yield run
                    self._judge(run, own.pages)
                if run.ended == NO_FILTER:
                    break  # nor will it be one for the other queries
            fruitless = 0 if any(run.brought or run.waits for run in runs) else fruitless + 1
            if fruitless == FRUITLESS:
                self.given_up.append("filters")
                return

    def _expanded(self) -> Iterator[QueryRun]:
        asked = {run.query.text.casefold() for run in self.own}
        waiting = []
        for name, text in self.one.expansions(self.manner.expand):
            if text.casefold() not in asked:
                asked.add(text.casefold())
                waiting.append((name, Query(text, self.manner.licence, side=self.manner.side)))
        fruitless: Counter[str] = Counter()
        opened = []
        for name, query in waiting:
            kind = name.partition("-")[0]
            if fruitless[kind] == FRUITLESS:
                continue
            run = self._begun(query, name)
            yield run
            self._judge(run, 0)
            fruitless[kind] = 0 if run.brought or run.waits else fruitless[kind] + 1
            if fruitless[kind] == FRUITLESS:
                self.given_up.append(f"{kind}s")
            opened.append(run)
        while opened := [run for run in opened if not run.ended]:
            for run in opened:
                yield run
                self._judge(run, 0)

    def _begun(self, query: Query, variant: str) -> QueryRun:
        run = QueryRun(query, variant)
        self.varied.append(run)
        return run

    def _judge(self, run: QueryRun, patience: int) -> None:
        """Ends a variation that brings what is known, for more pages in a row than `patience`."""
        if run.ended:
            return
        if run.pages == 1 and any(run.first_page == own.first_page for own in self.own):
            run.ended = NO_FILTER
        elif run.barren > patience:
            run.ended = f"nothing new on {run.barren} pages"
