"""Rounds by coverage: more is asked for where a teacher sees too little of a class."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from kd3_pipeline.crawl.coverage import Coverage
from kd3_pipeline.crawl.gather import Gathered
from kd3_pipeline.manifest import Candidate

# images wanted of each class → all that is gathered then; asks only for what is new
Gather = Callable[[Sequence[int]], Gathered]
# ids of images → the class that the teacher sees in each, None where it is none of the crawl's
See = Callable[[Sequence[str]], Sequence[int | None]]


def cover(
    gather: Gather,
    see: See,
    names: Sequence[str],
    known: Sequence[bool],
    per_class: int,
    rounds: int,
) -> tuple[Gathered, Coverage]:
    """Gathers, and asks for more of the classes of which the teacher sees too little.

    What a class lacks is asked for, at most `rounds` times, as long as that brings new images. An
    image is shown to the teacher once.
    """
    coverage = Coverage(names, known, per_class, more=[0] * len(names))
    gathered = gather([per_class] * len(names))
    said: dict[str, int | None] = {}
    _look(coverage, gathered, see, said)
    for _ in range(rounds):
        lacking = coverage.deficits()
        if not lacking:
            break
        for label, count in lacking.items():
            coverage.more[label] += count
        before = len(said)
        gathered = gather([per_class + more for more in coverage.more])
        _look(coverage, gathered, see, said)
        coverage.rounds.append((sum(lacking.values()), len(said) - before))
        if len(said) == before:
            break
    coverage.ended = _why(coverage)
    return gathered, coverage


def _why(coverage: Coverage) -> str:
    if not coverage.starved:
        return "no class is starved"
    if coverage.rounds and not coverage.rounds[-1][1]:
        return "the last one brought nothing new"
    return "crawl.rounds allows no more"


def _look(coverage: Coverage, gathered: Gathered, see: See, said: dict[str, int | None]) -> None:
    """Shows new images to the teacher, and counts all anew."""
    first: dict[str, int] = {}  # the class that brought an image
    for candidate in gathered.candidates:
        image = gathered.found.get(candidate)
        if image is not None and image.id is not None and image.id not in gathered.refused:
            first.setdefault(image.id, candidate.label)
    fresh = [name for name in first if name not in said]
    said |= zip(fresh, see(fresh), strict=True)
    stored, seen = Counter(first.values()), Counter(said[name] for name in first)
    coverage.stored = [stored[label] for label in range(len(coverage.names))]
    coverage.seen = [seen[label] for label in range(len(coverage.names))]


def by_wanted(
    candidates: Sequence[Candidate], wanted: int | Sequence[int]
) -> Iterator[tuple[int, list[Candidate]]]:
    """The candidates in parts: (images wanted, candidates of the classes of which they are)."""
    if isinstance(wanted, int):
        yield wanted, list(candidates)
        return
    for count in sorted(set(wanted)):
        yield count, [one for one in candidates if wanted[one.label] == count]
