"""What now: at most five sentences on what a run says should be done next, computed from it."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from kd3_pipeline.classcheck import coverage_flags
from kd3_pipeline.forecast import Forecast
from kd3_pipeline.metrics import Group, Metrics
from kd3_pipeline.report import costs
from kd3_pipeline.report.inputs import Curves
from kd3_pipeline.report.stored import Images
from kd3_pipeline.templates import percent

MOST = 5
FEW = 0.5  # of the mean number of images a class: a class with fewer may starve
LOST = 5.0  # points of accuracy that a starving class loses at least
DUMPED = 0.3  # share of all mistakes that one class takes in at least
FEWEST_MISTAKES = 10
FEWEST_EPOCHS = 4  # of which anything is said of a longer run
LITTLE = 0.005  # of agreement
COARSE = 0.03  # standard error of an agreement that tells too little
NAMED = 3


@dataclass(frozen=True)
class Run:
    """What the sentences are computed from.

    Attributes:
        seen: images that the teacher sees as each class, int64 [C].
        apart: images that the student sees as another class than they were found for.
        shown: galleries with images in them, by key, with how many there are in all.
    """

    metrics: Metrics
    seen: np.ndarray
    images: Images
    confusions: Counter[tuple[str, str]]
    curves: Curves
    apart: int
    shown: Mapping[str, int]


def what_now(run: Run) -> list[Markup]:
    """The sentences, the most pressing first."""
    return [
        sentence
        for sentence in (
            _cheaper(run.metrics),
            _starving(run.metrics, run.seen),
            _dumping_ground(run.confusions, len(run.metrics.class_names)),
            _longer(run.curves, run.images.held_out),
            _look_at(run),
            _leaks(run.metrics),
        )
        if sentence
    ][:MOST]


def _cheaper(metrics: Metrics) -> Markup:
    told = costs.not_cheap(metrics)
    if not told:
        return Markup("")
    return Markup(
        '{} A narrower <code>distill.student</code> would be; see <a href="#cost">Cost</a>.'
    ).format(told)


def _starving(metrics: Metrics, seen: np.ndarray) -> Markup:
    """On the class of few images on which the student lost most."""
    flags, mean = coverage_flags(seen), seen.mean()
    number = {name: at for at, name in enumerate(metrics.class_names)}
    found: list[tuple[float, int, Group]] = []
    for one in metrics.per_class:
        at, lost = number.get(one.name, -1), one.difference
        few = at >= 0 and (flags[at] == "starved" or seen[at] < FEW * mean)
        if few and lost is not None and lost <= -LOST:
            found.append((lost, at, one))
    if not found:
        return Markup("")
    _, at, one = min(found, key=lambda each: each[:2])
    others = len(found) - 1
    return Markup(
        "<bdi>{}</bdi> starves: the teacher sees it in {:,} of {:,} images, and the student is"
        " right on {} of it, the teacher on {}{}; give it more queries in"
        " <code>crawl.classes</code>, or let <code>crawl.rounds</code> ask for more."
    ).format(
        one.name,
        int(seen[at]),
        int(seen.sum()),
        percent(one.student),
        percent(one.teacher),
        f" ({others:,} more such {'class' if others == 1 else 'classes'})" if others else "",
    )


def _dumping_ground(confusions: Counter[tuple[str, str]], classes: int) -> Markup:
    """On the class that takes in most mistakes."""
    wrong: Counter[str] = Counter()
    for (actual, answered), count in confusions.items():
        if actual != answered:
            wrong[answered] += count
    total = wrong.total()
    if total < FEWEST_MISTAKES or classes < 3:
        return Markup("")
    name, count = wrong.most_common(1)[0]
    if count < max(DUMPED, 2 / (classes - 1)) * total:
        return Markup("")
    sources = Counter(
        {
            actual: many
            for (actual, answered), many in confusions.items()
            if answered == name != actual
        }
    ).most_common(NAMED)
    listed = Markup(", ").join(Markup("<bdi>{}</bdi> {:,}").format(*one) for one in sources)
    return Markup(
        "<bdi>{}</bdi> is a dumping ground: the student says it of {:,} test images that are"
        ' something else ({}), {} of its <a href="#confusion">mistakes</a>; look whether what was'
        " crawled for it, or for them, shows what it should."
    ).format(name, count, listed, percent(count / total, 0))


def _longer(curves: Curves, held_out: int) -> Markup:
    """On what a longer run would bring, by the agreement on images that were held out."""
    values = [one for one in curves.columns.get("agreement", []) if not math.isnan(one)]
    if len(values) < FEWEST_EPOCHS or not held_out:
        return Markup("")
    if ahead := curves.forecast:
        return _ahead(ahead)
    part = max(2, len(values) // 4)
    before, late = (sum(some) / part for some in (values[-2 * part : -part], values[-part:]))
    error = math.sqrt(late * (1 - late) / held_out)
    change = Markup("from {} to {} in the last epochs").format(percent(before), percent(late))
    if late - before > max(error, 0.005):
        return Markup(
            'The <a href="#curves">agreement</a> with the teacher still rose, {}: a longer run'
            " (<code>distill.epochs</code>) would bring more."
        ).format(change)
    if error > COARSE:
        return Markup(
            "Whether a longer run would bring more cannot be told by {:,} held-out images"
            " (agreement {}): a higher <code>distill.held_out</code> shows it."
        ).format(held_out, change)
    return Markup(
        'The <a href="#curves">agreement</a> with the teacher is level, {}: a longer run would'
        " bring little, and more images or a larger student more."
    ).format(change)


def _ahead(ahead: Forecast) -> Markup:
    """On a longer run, by the forecast."""
    told = Markup('By the <a href="#curves">agreement</a> with the teacher, {}').format(
        ahead.told()
    )
    if ahead.high < LITTLE:
        return told + ": more images or a larger student would bring more."
    if ahead.low > LITTLE:
        return told + Markup(": a longer run (<code>distill.epochs</code>) is worth its time.")
    return told + "."


def _look_at(run: Run) -> Markup:
    """On the galleries that are worth a look, those that may show most first."""
    looks = list(_galleries(run))
    if not looks:
        return Markup("")
    return Markup("Look at {}.").format(Markup(", then at ").join(looks[:NAMED]))


def _galleries(run: Run) -> Iterator[Markup]:
    used = int((run.images.predicted >= 0).sum())
    if run.apart and "disagreements" in run.shown:
        yield Markup(
            '<a href="#disagreements">what the student sees as another class</a> than it was found'
            " for ({:,} of {:,} images)"
        ).format(run.apart, used)
    if "off-topic" in run.shown:
        yield Markup('<a href="#off-topic">what is off topic</a>')
    if "mistakes" in run.shown:
        yield Markup('<a href="#mistakes">the surest mistakes</a> ({:,})').format(
            run.shown["mistakes"]
        )


def _leaks(metrics: Metrics) -> Markup:
    if metrics.leaked is not None or metrics.contaminated is not None:
        return Markup("")
    return Markup(
        "Nobody looked for test images among the crawled ones, which would make the accuracy too"
        " high: set <code>dedup.leaks</code>."
    )
