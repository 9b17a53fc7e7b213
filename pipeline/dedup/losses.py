"""Losses: classes of which much or all goes, that a person should look at."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kd3_pipeline.verdicts import unfit

LOUD = 0.03  # of a class; more than that going for what it shows is worth a look


@dataclass(frozen=True)
class Loss:
    """Images of one class that go, by reason, the most frequent first."""

    name: str
    images: int  # stored
    reasons: tuple[tuple[str, int], ...]

    @property
    def dropped(self) -> int:
        """All of them."""
        return sum(count for _, count in self.reasons)

    def values(self) -> dict[str, Any]:
        """The same for a program."""
        return {"name": self.name, "images": self.images, "dropped": dict(self.reasons)}


def unfit_losses(table: pa.Table, class_names: Mapping[int, str]) -> list[Loss]:
    """The classes of which more than `LOUD` goes for what its images show, the worst first.

    An image counts for the class that it was given (`label`).
    """
    by_label: dict[int, Counter[str]] = {}
    groups = table.select(["label", "reason"]).group_by(["label", "reason"], use_threads=False)
    for row in groups.aggregate([([], "count_all")]).to_pylist():
        by_label.setdefault(row["label"], Counter())[row["reason"]] += row["count_all"]
    losses = [
        _loss(label, reasons, class_names, [one for one in reasons if unfit(one)])
        for label, reasons in sorted(by_label.items())
    ]
    loud = [loss for loss in losses if loss.dropped > LOUD * loss.images]
    return sorted(loud, key=lambda loss: -loss.dropped / loss.images)


def emptied(table: pa.Table, class_names: Mapping[int, str]) -> list[Loss]:
    """The classes that have stored images and keep none, in the order of the labels.

    An image counts for every class that it was found for (`labels`): one that repeats another
    class's image is still there, under the other name. Images without a class are told of only
    where nothing at all is kept.
    """
    by_label: dict[int, Counter[str]] = {}
    for label, reason, images in _found_for(table):
        by_label.setdefault(label, Counter())[reason] += images
    nothing = not pc.any(table["kept"]).as_py()
    return [
        _loss(label, reasons, class_names, list(reasons))
        for label, reasons in sorted(by_label.items())
        if not reasons[""] and (label >= 0 or nothing)
    ]


def _found_for(table: pa.Table) -> Iterator[tuple[int, str, int]]:
    """(label, reason, images) of each class that images were found for, in their order."""
    for batch in table.select(["labels", "reason"]).to_batches():
        reasons = batch["reason"].take(pc.list_parent_indices(batch["labels"]))
        found = pa.table({"label": pc.list_flatten(batch["labels"]), "reason": reasons})
        groups = found.group_by(["label", "reason"], use_threads=False)
        for row in groups.aggregate([([], "count_all")]).to_pylist():
            yield row["label"], row["reason"], row["count_all"]


def _loss(
    label: int, reasons: Counter[str], class_names: Mapping[int, str], chosen: list[str]
) -> Loss:
    name = class_names.get(label) or ("images without a class" if label < 0 else f"class {label}")
    counts = [(reason, count) for reason, count in reasons.most_common() if reason in chosen]
    return Loss(name, reasons.total(), tuple(counts))
