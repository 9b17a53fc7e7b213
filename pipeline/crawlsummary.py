"""Summary of a crawl as reports/crawl.json holds it: what was wanted, what came of it, and why.

Keys that an earlier crawl did not write have their defaults; keys for others than report and model
card are not read. All text in it may be from the web.
"""

from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from kd3_pipeline.jsonfile import read_json

HINT = "run `dvc repro crawl`"
Count = Annotated[int, Field(ge=0)]
Counts = dict[str, Count]


class Summary(BaseModel):
    """Figures that are what they say; what else stands beside them is for others."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False, extra="ignore")


class Query(Summary):
    """A query of a class: the variant that it is, what it brought, and why it brought no more."""

    query: str = ""
    variant: str = ""
    results: Count = 0
    ended: str = ""


class Class(Summary):
    """A class: `wanted` and `results` are None where an earlier crawl did not say.

    `why` says why it has fewer images than were wanted; empty where it has them all.
    """

    name: str
    stored: Count
    wanted: Count | None = None
    results: Count | None = None
    why: str = ""
    queries: list[Query] = []

    @property
    def missing(self) -> int:
        """Images that are wanted still."""
        return max(0, (self.wanted or 0) - self.stored)

    @property
    def share(self) -> float | None:
        """Images got, by those wanted; None where that is not known."""
        return min(1.0, self.stored / self.wanted) if self.wanted else None


class HostLater(Summary):
    """A host or an engine whose turn comes again: why, and when at the earliest, if it said so."""

    images: Count = 0
    why: str = ""
    again_at: str | None = None


class Later(Summary):
    """What was put off until the next run; `again_at` is when the engine may be asked again."""

    images: Count = 0
    pages: Count = 0
    hosts: dict[str, HostLater] = {}
    again_at: str | None = None

    @property
    def when(self) -> str | None:
        """When all of it may be asked for, as far as hosts and the engine said so."""
        times = [self.again_at, *(one.again_at for one in self.hosts.values())]
        return max(filter(None, times), key=_moment, default=None)


def _moment(text: str) -> float:
    """A time as a number, so that those of different zones compare; 0 for what is none."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


class Round(Summary):
    """A round by coverage: images that it asked for, and new ones that it brought."""

    asked_more: Count = 0
    new_images: Count = 0


class Covered(Summary):
    """A class as the teacher sees it; `teacher_says` is None where it does not know the class."""

    name: str
    stored: Count = 0
    teacher_says: Count | None = None
    asked_more: Count = 0
    starved: bool = False


class Coverage(Summary):
    """Rounds by coverage, why there was no further one, and the classes."""

    rounds: list[Round] = []
    ended: str = ""
    classes: list[Covered] = []

    @property
    def asked_more(self) -> int:
        """Images that the rounds asked for."""
        return sum(one.asked_more for one in self.rounds)

    @property
    def new_images(self) -> int:
        """Images that the rounds brought."""
        return sum(one.new_images for one in self.rounds)

    @property
    def shown(self) -> list[Covered]:
        """Classes that starve, or that were asked for again; those that starve first."""
        touched = [one for one in self.classes if one.starved or one.asked_more]
        return sorted(touched, key=lambda one: (not one.starved, -one.asked_more, one.name))


class Signals(Summary):
    """What owners say of such use: images by kind, of those seen and of those refused for it."""

    seen: Counts = {}
    refused: Counts = {}

    @property
    def rows(self) -> list[tuple[str, int, int]]:
        """Kind, seen, refused; the most frequent first."""
        kinds = sorted(
            {*self.seen, *self.refused}, key=lambda kind: (-self.seen.get(kind, 0), kind)
        )
        return [(kind, self.seen.get(kind, 0), self.refused.get(kind, 0)) for kind in kinds]


class CrawlSummary(Summary):
    """All of it. `blocked` and `forgotten` count candidates that the user has ruled out."""

    candidates: Count = 0
    stored: Count = 0
    outcomes: Counts = {}
    classes: list[Class] = []
    later: Later = Later()
    signals: Signals = Signals()
    empty: list[str] = []
    short: list[str] = []
    refused: str = ""  # why the engine gives nothing more, whenever it is asked
    coverage: Coverage | None = None

    @property
    def blocked(self) -> int:
        """Candidates that the blocklist refuses."""
        return self.outcomes.get("blocked", 0)

    @property
    def forgotten(self) -> int:
        """Candidates whose images were dropped on request."""
        return self.outcomes.get("forgotten", 0)

    @property
    def full(self) -> int:
        """Classes that have all images that were wanted."""
        return sum(one.wanted is not None and not one.missing for one in self.classes)

    @property
    def wanting(self) -> list[Class]:
        """Classes with fewer images than wanted, the emptiest first."""
        lacking = [one for one in self.classes if one.missing]
        return sorted(lacking, key=lambda one: (one.share or 0.0, one.name))

    @property
    def stated(self) -> bool:
        """Whether the crawl said how many it wanted."""
        return any(one.wanted is not None for one in self.classes)


def read_crawl_summary(path: Path) -> CrawlSummary | None:
    """The summary; None where there is none, as of a crawl that was brought from elsewhere.

    Raises:
        UserError: it is no JSON, or a key of it has a value that cannot be.
    """
    return read_json(CrawlSummary, path, HINT) if path.is_file() else None
