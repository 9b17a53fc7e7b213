"""Rounds of search and fetch, until every class has its images or the web has no more."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kd3_pipeline.crawl.coverage import Coverage
from kd3_pipeline.crawl.placeholders import placeholders
from kd3_pipeline.crawl.search_account import SearchAccount
from kd3_pipeline.manifest import NOT_NOW, Candidate, Fetched

SURPLUS = 2  # results to ask for first, for each image wanted

Search = Callable[[Sequence[int]], list[Candidate]]  # results wanted of each class -> all so far
Fetch = Callable[[Sequence[Candidate], frozenset[str]], dict[Candidate, Fetched]]


@dataclass(frozen=True)
class Gathered:
    """All candidates in order, and what those that were needed gave.

    Attributes:
        refused: ids of placeholder images, and why each is taken for one.
        wanted: images of each class; empty where no number was wanted.
        account: of the search, if there was one.
        coverage: what the teacher sees, if it was asked.
        later: images that are left to the next run, as `Backlog.summary` has them.
    """

    candidates: Sequence[Candidate]
    found: Mapping[Candidate, Fetched]
    refused: Mapping[str, str]
    wanted: Sequence[int] = ()
    account: SearchAccount | None = None
    coverage: Coverage | None = None
    later: Mapping[str, Any] = field(default_factory=lambda: {"images": 0, "hosts": {}})


def gather(
    search: Search,
    fetch: Fetch,
    classes: int,
    per_class: int | Sequence[int],
    placeholder_urls: int,
    few_colours: Callable[[str], bool],
) -> Gathered:
    """Asks for twice as many results as wanted, and for more where too few were good.

    A round asks only for what is new, since `search` and `fetch` keep what they have learnt. An
    image that is put off counts as one that will come: the next run sees whether it does. One that
    an earlier class has, too, is that class's, and is made up for. What comes out depends on the
    web's answers alone and not on their timing. `placeholder_urls` and `few_colours` are as in
    `placeholders`.
    """
    targets = [per_class] * classes if isinstance(per_class, int) else list(per_class)
    wanted = [SURPLUS * count for count in targets]
    refused: dict[str, str] = {}
    taken: dict[Candidate, Fetched] = {}  # images of earlier classes
    before: Counter[int] = Counter()
    while True:
        candidates = search(wanted)
        asked = [one for one in candidates if one not in taken] if taken else candidates
        found = {**fetch(asked, frozenset(refused)), **taken}
        more = placeholders(found, placeholder_urls, few_colours)
        if more.keys() - refused.keys():
            refused = more | refused
            continue
        owners = _owners(candidates, found, refused)
        good = Counter(owners.values())
        good += Counter(one.label for one, image in found.items() if image.outcome == NOT_NOW)
        short = {label for label in range(classes) if good[label] < targets[label]}
        copies = {
            one: image
            for one, image in found.items()
            if one.label in short and one not in taken
            # of the same class it is no copy of another's, and without an image it is none at all
            if owners.get(image.id, one.label) != one.label
        }
        if copies:
            taken |= copies
            continue
        results = Counter(candidate.label for candidate in candidates)
        short = {label for label in short if results[label] > before[label]}
        if not short:
            return Gathered(candidates, found, refused)
        before = results
        for label in short:
            wanted[label] *= 2


def _owners(
    candidates: Sequence[Candidate], found: Mapping[Candidate, Fetched], refused: Mapping[str, str]
) -> dict[str | None, int]:
    """The class of each image that counts: that of its first candidate."""
    owners: dict[str | None, int] = {}
    for one in candidates:
        image = found.get(one)
        if image is not None and image.id is not None and image.id not in refused:
            owners.setdefault(image.id, one.label)
    return owners
