"""What dedup tells of what it drops: notes, a contact sheet, the error of an emptied class.

All of it is made of the verdicts and decides none of them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kd3_pipeline.console import Console, text_table
from kd3_pipeline.dedup.losses import LOUD, Loss, emptied, unfit_losses
from kd3_pipeline.errors import ExternalError, UserError
from kd3_pipeline.manifest import read_manifest
from kd3_pipeline.paramfile import read_params
from kd3_pipeline.params import Dedup
from kd3_pipeline.presets import FOLDER
from kd3_pipeline.remedies import counted, remedy
from kd3_pipeline.report.dropped.choice import Dropped
from kd3_pipeline.report.dropped.page import build_dropped_page
from kd3_pipeline.store import write_text
from kd3_pipeline.verdicts import LOW_INFORMATION, NEAR_DUPLICATE, unfit
from kd3_stages import paths

ALWAYS = (  # counts that are shown though they may be zero
    *("images", "exact_duplicates", "near_duplicates", "leaked", "low_information"),
    *("unreadable", "kept"),
)
MOST_TOLD = 8  # classes that notes and errors name one by one
STEPS = (0.85, 0.9, 0.95, 0.98)  # similarities at which near-duplicates are counted


@dataclass(frozen=True)
class Judged:
    """Verdicts of one run, and what they were made of."""

    table: pa.Table  # as kd3_pipeline.verdicts.SCHEMA
    summary: dict[str, Any]
    leaks: pa.Table | None  # LEAK_COLUMNS; None where nobody looked
    grey: np.ndarray  # uint8 [N, 64, 64], the images in small
    class_names: Mapping[int, str]

    @cached_property
    def losses(self) -> list[Loss]:
        """Classes of which much goes for what the images show."""
        return unfit_losses(self.table, self.class_names)

    @cached_property
    def emptied(self) -> list[Loss]:
        """Classes that keep no image."""
        return emptied(self.table, self.class_names)

    @property
    def text(self) -> str:
        """Counts by class, and a line of what is kept and what goes."""
        return f"{text_table(_by_class(self.summary))}\ndedup: {self.headline}"

    @property
    def headline(self) -> str:
        """What becomes of the images, in one line."""
        names = ("near_duplicates", "leaked", "low_information", "unreadable")
        dropped = [(name.replace("_", " "), self.summary[name]) for name in names]
        reasons = self.table["reason"].value_counts().to_pylist()
        others = {row["values"]: row["counts"] for row in reasons if unfit(row["values"])}
        dropped += [(one, others[one]) for one in sorted(others) if one != LOW_INFORMATION]
        told = ", ".join(f"{count:,} {name}" for name, count in dropped if count)
        return (
            f"{self.summary['kept']:,} of {self.summary['images']:,} images kept"
            f"{told and f' ({told})'}, radius {self.summary['radius']}"
        )

    def values(self, sheet: "Sheet") -> dict[str, Any]:
        """The same for a program: the summary, the losses, and where the contact sheet is."""
        told = {"losses": self.losses, "emptied": self.emptied}
        return (
            self.summary
            | {name: [loss.values() for loss in losses] for name, losses in told.items()}
            | {"sheet": str(sheet.path)}
        )


@dataclass(frozen=True)
class Sheet:
    """A contact sheet of what goes: its path, and at most how many images a reason it shows."""

    path: Path
    most: int

    def write(self, judged: Judged, dry_run: bool, console: Console) -> None:
        """Writes the page.

        Raises:
            UserError: the page cannot be written, or the crawl is not that of the verdicts.
        """
        dropped = Dropped(
            table=judged.table,
            leaks=judged.leaks,
            # the more an image shows, the less sure it is that it shows nothing
            detail=np.fromiter(
                (picture.std() for picture in judged.grey), np.float32, len(judged.grey)
            ),
            class_names=judged.class_names,
            crawl=paths.CRAWL,
            manifest=paths.MANIFEST,
        )
        loud = {loss.name for loss in [*judged.losses, *judged.emptied]}
        with console.progress("dedup: contact sheet", 1) as advance:
            sections = dropped.sections(self.most, advance)
        rows = _by_class(judged.summary)
        page = build_dropped_page(judged.headline, dry_run, rows, loud, sections)
        try:
            write_text(self.path, page)
        except OSError as error:
            what = f"{self.path} cannot be written: {error.strerror or error}"
            raise UserError(what) from None


def note_losses(losses: Sequence[Loss], sheet: Path, console: Console) -> None:
    """Says of which classes more goes than is usual, where to look, and what to change."""
    if not losses:
        return
    reasons = sorted({reason for loss in losses for reason, _ in loss.reasons})
    lines = [
        f"WARNING: more than {LOUD:.0%} of {_number(losses)} dropped for what the images show;"
        f" look at them in {sheet}; {remedy(reasons)}:"
    ]
    lines += [
        f"  {loss.name}: {loss.dropped:,} of {loss.images:,}"
        f" ({loss.dropped / loss.images:.1%}): {counted(loss.reasons)}"
        for loss in losses[:MOST_TOLD]
    ]
    if len(losses) > MOST_TOLD:
        lines.append(f"  and {len(losses) - MOST_TOLD:,} more classes: all are in {sheet}")
    console.note("\n".join(lines))


def _number(losses: Sequence[Loss]) -> str:
    return "a class is" if len(losses) == 1 else f"each of {len(losses):,} classes is"


def emptied_error(losses: Sequence[Loss], sheet: Path) -> ExternalError:
    """The error of classes that keep no image."""
    reasons = sorted({reason for loss in losses for reason, _ in loss.reasons})
    return ExternalError(
        emptied_text(losses),
        f"{paths.DEDUP} is written, and what goes is to be seen in {sheet}; {remedy(reasons)}",
    )


def emptied_text(losses: Sequence[Loss]) -> str:
    """Which classes keep no image, with counts by reason."""
    told = "; ".join(
        f"{loss.name} (all {loss.images:,} images: {counted(loss.reasons)})"
        for loss in losses[:MOST_TOLD]
    )
    if len(losses) > MOST_TOLD:
        told += f"; and {len(losses) - MOST_TOLD:,} more classes"
    return f"no image is kept of {told}"


def note_drawn_value(section: Dedup, console: Console) -> None:
    """Says that the similarity is the demo's where what was crawled are no drawings of it."""
    drawn = read_params(FOLDER / "demo.yaml").dedup
    if section.similarity != drawn.similarity:
        return
    engines = set(read_manifest(paths.MANIFEST, ["engine"])["engine"].unique().to_pylist())
    if engines - {"demo"}:
        usual = Dedup()
        console.note(
            f"dedup.similarity is {drawn.similarity}, made for the demo's drawings: more copies of"
            f" photographs are found at {usual.similarity}, and fewer others, with"
            f" dedup.second_look: true, the defaults; change them in {paths.PARAMS}"
        )


def note_capped(images: int, compared: int, console: Console) -> None:
    """Says how many images were compared with some of those near them only."""
    if images:
        console.note(
            f"{images:,} images have more than {compared} others near them, and were compared with"
            " the nearest of these: a larger dedup.compared compares more"
        )


def near_duplicate_counts(table: pa.Table, least: float) -> dict[str, dict[str, int]]:
    """How many near-duplicates are within each distance, and at each similarity or above it.

    Counts of what was found: at a smaller radius some of them would be found as copies of another
    image.
    """
    found = table.filter(pc.equal(table["reason"], NEAR_DUPLICATE))
    distances = Counter(found["distance"].to_pylist())
    similarities = found["similarity"].to_numpy()
    levels = [least, *(level for level in STEPS if level > least)]
    return {
        "within_bits": {
            str(bits): sum(count for other, count in distances.items() if other <= bits)
            for bits in sorted(distances)
        },
        "from_similarity": {
            f"{level:g}": int((similarities >= np.float32(level)).sum()) for level in levels
        },
    }


def as_text(counts: Mapping[str, Mapping[str, Any]]) -> str:
    """The same in two lines; none where there are no near-duplicates."""
    within = [f"{bits}: {count:,}" for bits, count in counts["within_bits"].items()]
    alike = [f"{level}: {count:,}" for level, count in counts["from_similarity"].items()]
    if not within:
        return ""
    return (
        f"near-duplicates within so many bits: {', '.join(within)}\n"
        f"near-duplicates of so much similarity or more: {', '.join(alike)}\n"
    )


def _by_class(summary: dict[str, Any]) -> list[list[str]]:
    """Counts by class as rows of words, the head first and all classes together last."""
    everything = [*summary["classes"], summary | {"name": "all"}]
    kinds = [
        kind
        for kind, value in (summary["classes"] or [{}])[0].items()
        if isinstance(value, int) and (kind in ALWAYS or any(one[kind] for one in everything))
    ]
    rows = [["class", *(kind.replace("_", " ") for kind in kinds)]]
    return rows + [
        [one["name"] or "none", *(f"{one[kind]:,}" for kind in kinds)] for one in everything
    ]
