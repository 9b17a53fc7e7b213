"""What a search was asked and gave, for every class and query, and why it ended: in plain words."""

from dataclasses import dataclass

from kd3_pipeline.crawl.wording import clock, counted


@dataclass(frozen=True)
class QueryAccount:
    """One query: results it gave, how many of them the class did not have, and why it ended.

    `waits` is true where there was no answer in this run.
    """

    query: str
    variant: str
    results: int
    brought: int
    ended: str
    waits: bool


@dataclass(frozen=True)
class ClassAccount:
    """One class: its results, its queries in the order asked, and variations that were given up."""

    name: str
    results: int
    queries: tuple[QueryAccount, ...]
    given_up: tuple[str, ...] = ()

    @property
    def waiting(self) -> list[QueryAccount]:
        """Queries without an answer in this run."""
        return [one for one in self.queries if one.waits]


@dataclass(frozen=True)
class SearchAccount:
    """All classes of one search.

    Attributes:
        host: of the engine.
        waiting: pages that are put off to another run, one for each query that ended so.
        again_at: when the engine may be asked again (seconds since 1970), None if it did not say.
        refused: why it refuses for good, "" if it does not.
        stopped: why it was left alone before all was asked, "" if it was not.
    """

    engine: str
    host: str
    classes: tuple[ClassAccount, ...]
    waiting: int = 0
    again_at: float | None = None
    refused: str = ""
    stopped: str = ""

    @property
    def reason(self) -> str:
        """Why pages were put off; "" if none was."""
        waiting = [query for one in self.classes for query in one.waiting]
        first = waiting[0].ended.removeprefix("put off: ") if waiting else ""
        return self.refused or self.stopped or first

    def why(self, one: ClassAccount) -> str:
        """Why a class has no more results than it has; "" if it could have more."""
        own = [query for query in one.queries if not query.variant]
        varied = [query for query in one.queries if query.variant]
        said = []
        if one.results or not one.waiting:
            gave = counted(one.results, "result") if one.results else "no results"
            asked = counted(len(own), "query", "queries")
            asked += f" and {counted(len(varied), 'variation')}" if varied else ""
            done = all(query.ended and not query.waits for query in one.queries)
            since = ", and none that are new any more" if done and one.results else ""
            said.append(f"{self.engine} gave {gave} for {asked}{since}")
            limits = {query.ended for query in own if query.ended.startswith("its limit")}
            said += [f"{limit.removeprefix('its limit of ')} is its limit" for limit in limits]
        if one.waiting:
            count = counted(len(one.waiting), "query", "queries")
            if self.refused:
                said.append(f"{self.engine} refused {count}: {self.refused}")
            else:
                until = f" until {clock(self.again_at)}" if self.again_at else ""
                reason = self.stopped or one.waiting[0].ended.removeprefix("put off: ")
                said.append(f"{count} of {self.engine} put off{until}: {reason}")
        return "; ".join(said)
