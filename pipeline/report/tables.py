"""Tables of the page: confusion matrix, accuracies, selection by class, latencies."""

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from kd3_pipeline.metrics import Group
from kd3_pipeline.report.figures import dumbbell, heat_map, sparkline
from kd3_pipeline.report.stored import Images

MOST_CELLS = 20
LARGEST = 20


@dataclass(frozen=True)
class Cell:
    """Test images of one actual class seen as one class; `shade` is 0 to 1."""

    count: int
    share: float
    shade: float
    right: bool


@dataclass(frozen=True)
class Confusion:
    """Images of `actual` that were seen as `seen`, and their share of the images of `actual`."""

    actual: str
    seen: str
    count: int
    share: float


@dataclass(frozen=True)
class Matrix:
    """Rows of cells for few classes; a heat map and the largest confusions for many."""

    names: tuple[str, ...]
    images: int
    wrong: int
    rows: tuple[tuple[str, tuple[Cell, ...]], ...] = ()
    heat: str = ""
    side: int = 0
    largest: tuple[Confusion, ...] = ()


def confusion_matrix(pairs: Counter[tuple[str, str]], class_names: tuple[str, ...]) -> Matrix:
    """Arrange counts of (actual, seen) by class; names that are not known come last."""
    unknown = {name for pair in pairs for name in pair} - set(class_names)
    names = (*class_names, *sorted(unknown))
    at = {name: index for index, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)), np.int64)
    for (actual, seen), count in pairs.items():
        counts[at[actual], at[seen]] += count
    images = int(counts.sum())
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    off = counts * ~np.eye(len(names), dtype=bool)
    wrong = int(off.sum())
    if len(names) > MOST_CELLS:
        heat, side = heat_map(shares, scale=max(1, min(8, 600 // len(names))))
        order = np.argsort(-off, axis=None, kind="stable")[:LARGEST]
        cells = [divmod(int(index), len(names)) for index in order]
        largest = tuple(
            Confusion(names[i], names[j], int(off[i, j]), float(shares[i, j]))
            for i, j in cells
            if off[i, j]
        )
        return Matrix(names, images, wrong, heat=heat, side=side, largest=largest)
    # Few errors among many images would leave one scale for all cells white off the diagonal.
    worst = max(1, int(off.max(initial=0)))

    def cell(i: int, j: int) -> Cell:
        shade = shares[i, j] if i == j else math.sqrt(off[i, j] / worst)
        return Cell(int(counts[i, j]), float(shares[i, j]), round(float(shade), 3), i == j)

    size = range(len(names))
    rows = tuple((names[i], tuple(cell(i, j) for j in size)) for i in size)
    return Matrix(names, images, wrong, rows=rows)


@dataclass(frozen=True)
class GroupRow:
    """Some test images with their drawing; `figure` is None where there are none."""

    score: Group
    figure: Markup | None


def group_rows(scores: tuple[Group, ...]) -> tuple[list[GroupRow], float]:
    """Groups by what the student lost, largest first, and the left end of their axis."""
    known = [v for s in scores for v in (s.teacher, s.student) if v is not None]
    floor = min(0.9, math.floor(10 * min(known, default=0.0)) / 10)
    rows = [
        GroupRow(
            score,
            None
            if score.teacher is None or score.student is None
            else dumbbell(
                score.teacher,
                score.student,
                floor,
                f"teacher {score.teacher:.1%}, student {score.student:.1%}",
            ),
        )
        for score in scores
    ]
    rows.sort(key=lambda row: math.inf if row.score.difference is None else row.score.difference)
    return rows, floor


@dataclass(frozen=True)
class KeptRow:
    """Images that the student sees as one class: shares selected in the first and last epoch.

    `threshold` is the confidence that an image of the class had to exceed in the last epoch; None
    where nothing was compared with one.
    """

    name: str
    images: int
    first: float
    last: float
    threshold: float | None
    figure: Markup


def kept_rows(
    images: Images, class_names: tuple[str, ...], thresholds: dict[int, list[float]]
) -> list[KeptRow]:
    """Shares of each class that the selection took, by epoch, in the order of the classes.

    Args:
        thresholds: label -> one value an epoch, as `read_thresholds` gives them.
    """
    seen = np.where(images.times >= 0, images.predicted, -1)[images.used]  # -1: not trained on
    rows = []
    for index, name in enumerate(class_names):
        of_class = images.history[seen == index]
        if not len(of_class) or not images.epochs:
            continue
        shares = of_class.mean(axis=0).tolist()
        label = f"selected share from {shares[0]:.1%} to {shares[-1]:.1%}"
        lines, last = [shares], None
        if limits := thresholds.get(index):
            lines.append(limits)
            last = limits[-1]
            label += f", threshold from {limits[0]:.2f} to {last:.2f}"
        figure = sparkline(label, *lines)
        rows.append(KeptRow(name, len(of_class), shares[0], shares[-1], last, figure))
    return rows
