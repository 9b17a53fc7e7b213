"""Check of classes that images have against those that a network answers: order, chance, collapse.

What the images have is a label, or the class that they were found for. Each check gives a line for
the user, or nothing.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from kd3_pipeline.imagesource.matching import composed, folded

STARVED, FLOODED = 1 / 4, 4  # times what would be even
FEWEST = 5  # images of which anything is said
ENOUGH = 50  # images of which an agreement is judged
SURE = 4.0  # standard errors above chance
RARE = 1e-3  # probability of one such pair of classes or more among answers by lot
SHOWN = 3  # classes named in a line
LISTED = 20  # class names written out


@dataclass(frozen=True)
class Crossed:
    """Images by class given and class answered, where there are any: three arrays of one length.

    Classes are numbers of `names`.
    """

    names: Sequence[str]
    given: np.ndarray
    answered: np.ndarray
    images: np.ndarray

    @classmethod
    def of(cls, names: Sequence[str], given: np.ndarray, answered: np.ndarray) -> "Crossed":
        """Counts N images: `given` int64 [N], below 0 where no class of `names` is; `answered`."""
        known = given >= 0
        pairs = np.stack([given[known], answered[known]], 1).reshape(-1, 2)
        cells, images = np.unique(pairs, axis=0, return_counts=True)
        return cls(names, cells[:, 0], cells[:, 1], images)

    @property
    def total(self) -> int:
        """Images in all."""
        return int(self.images.sum())

    @property
    def by_given(self) -> np.ndarray:
        """Images that have each class, float64 [C]."""
        return np.bincount(self.given, self.images, len(self.names))

    @property
    def by_answer(self) -> np.ndarray:
        """Images that are answered as each class, float64 [C]."""
        return np.bincount(self.answered, self.images, len(self.names))

    @property
    def agreement(self) -> float:
        """Share of the images that are answered as the class that they have; 0 of none."""
        return float(self.images[self.given == self.answered].sum() / max(1, self.total))

    @property
    def chance(self) -> float:
        """Agreement of the same answers if they were dealt out to the images by lot."""
        return float(self.by_given @ self.by_answer / max(1, self.total) ** 2)


def labels_among(asked: Mapping[int, str], names: Sequence[str]) -> dict[int, int]:
    """For classes asked for, by label, their number among `names`; -1 where none is such a one.

    Names are the same however their accents are encoded; and but for case, spaces, underscores and
    hyphens where that leaves no choice.
    """
    found = dict.fromkeys(asked, -1)
    for form in (folded, composed):
        forms = Counter(map(form, names))
        known = {form(one): at for at, one in enumerate(names) if forms[form(one)] == 1}
        found |= {label: known[form(one)] for label, one in asked.items() if form(one) in known}
    return found


def commonest(answered: np.ndarray, classes: int) -> tuple[int, float]:
    """The class that most images are answered as, and their share; `answered` int64 [N ≥ 1]."""
    counts = np.bincount(answered, minlength=classes)
    return int(counts.argmax()), float(counts.max() / len(answered))


def reordered(found: Crossed) -> dict[int, int]:
    """Classes whose images are answered as another one, whose own are not: class -> answer.

    Two classes belong together where each is the other's best, by how often images of the class get
    the answer beside how often all images do: so a class that takes in images of all others hides
    nothing. They have to meet more often than by chance, and twice as often as the right answer
    does. What is left is a change of names where such classes close a ring (a swap is one of two),
    or where they are three or more and outnumber those that are answered right. Classes that are
    taken for one another alone make no ring, because one of the two keeps its own images.
    """
    given, answered, images = found.given, found.answered, found.images.astype(np.float64)
    rows, columns = found.by_given, found.by_answer
    lift = images * found.total / (rows[given] * columns[answered])
    same = given == answered
    right = np.zeros(len(found.names))
    right[given[same]] = lift[same]
    others = found.total - rows[given]
    elsewhere = (columns[answered] - images) / np.maximum(1, others)
    by_chance = binom.sf(images - 1, rows[given], elsewhere) * len(found.names) ** 2
    sure = (images >= FEWEST) & (by_chance < RARE)
    lift = np.where(sure, lift, 0.0)  # of a rare answer any image is a high one
    mutual = _largest(given, lift) & _largest(answered, lift) & sure
    moved = mutual & ~same & (lift > 2 * right[given])
    to = dict(zip(given[moved].tolist(), answered[moved].tolist(), strict=True))
    if len(to) >= 3 and len(to) > int((mutual & same).sum()):
        return to
    return {label: to[label] for label in to if _in_ring(label, to)}


def _largest(group: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Whether each value is the largest of its group, the last one of equals: bool."""
    order = np.lexsort((value, group))
    ends = np.append(np.diff(group[order]) != 0, True)
    found = np.zeros(len(group), bool)
    found[order[ends[: len(group)]]] = True
    return found


def _in_ring(label: int, to: dict[int, int]) -> bool:
    at = to[label]
    for _ in to:
        if at == label:
            return True
        at = to.get(at, -1)
    return False


def order_told(found: Crossed, whose: str, advice: str) -> str:
    """A line on classes whose names seem to be those of others; empty where none do.

    Args:
        whose: of what the images have their classes: "images found for".
        advice: what to look at.
    """
    to = reordered(found)
    if not to:
        return ""
    rows = found.by_given
    cells = zip(found.given.tolist(), found.answered.tolist(), found.images.tolist(), strict=True)
    share = {(given, answer): n / rows[given] for given, answer, n in cells}
    shown = sorted(to, key=lambda label: -share[label, to[label]])[:SHOWN]
    told = ", ".join(
        f"of the {whose} {found.names[label]} {share[label, to[label]]:.0%} as"
        f" {found.names[to[label]]}"
        for label in shown
    )
    known = int((rows > 0).sum())
    text = (
        f"class names seem to be in another order, {len(to):,} of {known:,}: the teacher sees"
        f" {told}{', …' * (len(to) > SHOWN)}; {advice}"
    )
    if set(to) != set(to.values()) or len(found.names) > LISTED:
        return text
    names = list(found.names)
    for label, output in to.items():
        names[output] = found.names[label]
    return f"{text}; by these images they would be [{', '.join(names)}]"


def chance_told(found: Crossed) -> str:
    """A line on a teacher that sees no more of what images were found for than chance would.

    Empty where it does, where the images are of one class, or where they are fewer than 50.
    """
    images, chance = found.total, found.chance
    if images < ENOUGH or int((found.by_given > 0).sum()) < 2:
        return ""
    error = np.sqrt(chance * (1 - chance) / images)
    if found.agreement > chance + SURE * error:
        return ""
    return (
        f"the teacher sees {found.agreement:.1%} of the images as the class that they were found"
        f" for, and chance would give {chance:.1%}: either the images show something else, or it is"
        " not fed as it was trained; look at reports/coverage.csv and"
        " `pipeline teacher --check`"
    )


def accuracy_told(
    accuracy: float, low: float, labels: np.ndarray, names: Sequence[str], who: str = "teacher"
) -> str:
    """A line on a network that is right no more often than one that sees nothing.

    That one always says the commonest class of the test set; where the test set does not have all
    classes, it says any of `names`.

    Args:
        accuracy: of the network, with `low`, the lower end of its 95% interval.
        labels: int64 [N] of the test set.
    """
    label, share = commonest(labels, len(names))
    whole = len(np.unique(labels)) == len(names)
    blind = share if whole else 1 / len(names)
    if low > blind or len(names) < 2:
        return ""
    how = f"always saying {names[label]}" if whole else f"guessing among {len(names):,} classes"
    return (
        f"the {who} is right on {accuracy:.1%} of {len(labels):,} test images (95% interval from"
        f" {low:.1%}), and {how} would be on {blind:.1%}: it is at chance as far as they tell, and"
        " what is measured against it means nothing; `pipeline teacher --check` looks at how it is"
        " fed"
    )


def one_class(labels: np.ndarray, answered: np.ndarray, classes: int) -> int | None:
    """The class that a network answers for nearly everything; None where there is no such class.

    Its share of the answers is more than half-way from its share of the labels to all.
    """
    label, share = commonest(answered, classes)
    due = float((labels == label).mean())
    return label if classes > 1 and due < 1 and share > (1 + due) / 2 else None


def one_class_told(labels: np.ndarray, answered: np.ndarray, names: Sequence[str], who: str) -> str:
    """A line on a network that answers one class for nearly everything; empty where it does not."""
    label = one_class(labels, answered, len(names))
    if label is None:
        return ""
    return (
        f"the {who} answers {names[label]} for {(answered == label).mean():.1%} of the test images,"
        f" of which {(labels == label).mean():.1%} are: it has collapsed to that class"
    )


def answers_told(
    labels: np.ndarray, answered: np.ndarray, names: Sequence[str], who: str
) -> list[str]:
    """Lines on classes that a network answers far less, or far more often than there are images.

    Args:
        labels, answered: int64 [N] of the same images.
    """
    due = np.bincount(labels, minlength=len(names))
    said = np.bincount(answered, minlength=len(names))
    few = np.flatnonzero((due >= 2 * FEWEST) & (said < STARVED * due))
    many = (due > 0) & (said > FLOODED * due) & (said >= 2 * FEWEST)
    single = one_class(labels, answered, len(names))
    if single is not None:
        many[single] = False  # told already
    lines = []
    for rows, what, order in (
        (few, "hardly ever", said - due),
        (np.flatnonzero(many), "far too often", due - said),
    ):
        if len(rows):
            rows = rows[np.argsort(order[rows], kind="stable")]
            told = [
                f"{names[at]} {said[at]:,} times for {due[at]:,} images" for at in rows.tolist()
            ]
            lines.append(f"the {who} answers {_counted(len(rows))} {what}: {_some(told)}")
    return lines


def coverage_flags(answered: np.ndarray) -> list[str]:
    """For each class, by how many images a teacher sees as it: `starved`, `flooded`, or empty.

    Starved is less than a quarter of the mean over the classes. Flooded is more than four times
    the mean; of few classes, of which none could be that, more than half-way from the mean to all.

    Args:
        answered: images that are seen as each class, int64 [C].
    """
    total, classes = answered.sum(), len(answered)
    mean = total / classes
    flooded = min(FLOODED * mean, (mean + total) / 2)
    return ["starved" if n < STARVED * mean else "flooded" if n > flooded else "" for n in answered]


def coverage_told(answered: np.ndarray, asked: np.ndarray, names: Sequence[str]) -> list[str]:
    """A line on starved classes and one on flooded ones, where there are any.

    Args:
        answered: images that are seen as each class, int64 [C].
        asked: images that were found for each, int64 [C].
    """
    flags = np.array(coverage_flags(answered))
    lines = []
    for flag, told in (
        ("starved", "the teacher sees less than a quarter of a class's mean number of images as"),
        ("flooded", "the teacher sees far more than a class's mean number of images as"),
    ):
        rows = np.flatnonzero(flags == flag)
        if len(rows):
            sign = 1 if flag == "starved" else -1
            rows = rows[np.argsort(sign * answered[rows], kind="stable")]
            each = [
                f"{names[at]} {answered[at]:,} (found for it: {asked[at]:,})"
                for at in rows.tolist()
            ]
            lines.append(
                f"{flag}: {told} {len(rows):,} of {len(names):,} classes, a mean of"
                f" {answered.mean():,.0f}: {_some(each)}"
            )
    return lines


def _some(told: list[str]) -> str:
    more = len(told) - SHOWN
    return "; ".join(told[:SHOWN]) + (f"; and {more:,} more" if more > 0 else "")


def _counted(classes: int) -> str:
    return f"{classes:,} class{'es' * (classes != 1)}"
