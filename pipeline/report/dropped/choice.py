"""Choice of dropped images for a contact sheet: by reason, the least sure first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kd3_pipeline.console import Advance, no_progress
from kd3_pipeline.manifest import STORED, read_manifest
from kd3_pipeline.report.thumbnails import Thumbnail, encode_thumbnail, read_thumbnails
from kd3_pipeline.verdicts import LEAKED, LOW_INFORMATION, NEAR_DUPLICATE, UNREADABLE, issues_of

SIDE = 160  # pixels of a picture: enough to see what two of them differ in
Row = Sequence[str]
ALIKE = "alike"  # in place of a reason: nothing is dropped
HEADINGS = {
    NEAR_DUPLICATE: "Near-duplicates",
    LEAKED: "Test images",
    LOW_INFORMATION: "Show next to nothing",
    UNREADABLE: "Cannot be read",
    ALIKE: "Alike, of two classes: both stay",
}
NOTES = {
    NEAR_DUPLICATE: "Left the image that goes, right the one that it repeats and that stays. Pairs "
    "that are only just alike come first.",
    LEAKED: "Left the web image, which goes, right the test image. Those that are only just alike "
    "come first.",
    LOW_INFORMATION: "Those that show most come first.",
    UNREADABLE: "Their bytes were stored, and give no whole picture.",
    ALIKE: "They were found for different classes, and are not alike enough to be one picture. "
    "Those that are most alike come first.",
}


@dataclass(frozen=True)
class Shown:
    """One picture with what is known of it; its text is from the web."""

    thumbnail: Thumbnail | None
    id: str = ""
    asked: str = ""
    size: str = ""
    title: str = ""
    url: str = ""
    page_url: str = ""


@dataclass(frozen=True)
class Entry:
    """An image that goes, and beside it the stored one or the test image for which it does."""

    image: Shown
    other: Shown | None = None
    test_image: int | None = None
    similarity: float | None = None
    distance: int | None = None
    issues: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """What goes for one reason: `total` images, of which `entries` are on the page."""

    reason: str
    heading: str
    note: str
    total: int
    entries: tuple[Entry, ...] = field(default=())

    @property
    def pairs(self) -> bool:
        """Two pictures are shown of each."""
        return self.reason in (NEAR_DUPLICATE, LEAKED, ALIKE)

    @property
    def stays(self) -> bool:
        """The first picture is not dropped."""
        return self.reason == ALIKE


@dataclass(frozen=True)
class Dropped:
    """Verdicts, and where the pictures and addresses of their images are.

    Attributes:
        table: as `kd3_pipeline.verdicts.SCHEMA`.
        leaks: `id`, `test_image`, `similarity` and `picture` of what shows a test image; or None.
        detail: float [N], how much each image shows: the more, the less sure is a drop for
            showing nothing.
    """

    table: pa.Table
    leaks: pa.Table | None
    detail: np.ndarray
    class_names: Mapping[int, str]
    crawl: Path
    manifest: Path

    def sections(self, most: int, advance: Advance = no_progress) -> list[Section]:
        """A section a reason, with at most `most` entries each.

        Raises:
            UserError: a shard or the manifest is missing, or of another run.
        """
        rows = self.table.to_pylist()
        leaks = [] if self.leaks is None else self.leaks.to_pylist()
        direct = {row["id"]: row for row in leaks}
        pictures = {row["test_image"]: row["picture"] for row in direct.values()}
        by_reason: dict[str, list[int]] = {}
        for at, row in enumerate(rows):
            if not row["kept"]:
                by_reason.setdefault(row["reason"], []).append(at)
            elif row.get("looks_like"):
                by_reason.setdefault(ALIKE, []).append(at)
        usual = [reason for reason in HEADINGS if reason in by_reason]
        chosen = {
            reason: sorted(by_reason[reason], key=lambda at: self._sureness(rows[at], direct, at))
            for reason in [*usual, *sorted(by_reason.keys() - set(HEADINGS))]
        }
        if ALIKE in chosen:
            chosen[ALIKE] = chosen.pop(ALIKE)[::-1]  # last on the page
        shown_of = self._shown(rows, [at for every in chosen.values() for at in every[:most]])
        advance(1)
        return [
            Section(
                reason,
                HEADINGS.get(reason, f"Issue: {reason.replace('_', ' ')}"),
                NOTES.get(reason, "Named in dedup.drop. In the order of the crawl."),
                len(every),
                tuple(self._entry(rows[at], direct, pictures, shown_of) for at in every[:most]),
            )
            for reason, every in chosen.items()
        ]

    def _sureness(
        self, row: Mapping[str, Any], direct: Mapping[str, Any], at: int
    ) -> tuple[float, int, int]:
        """What drops are sorted by, the least sure first; ties stay in the order of the crawl."""
        alike = _similarity(row, direct)
        if alike is not None:
            return alike, -(row["distance"] or 0), at
        return (-float(self.detail[at]) if row["reason"] == LOW_INFORMATION else 0.0), 0, at

    def _shown(self, rows: Sequence[Mapping[str, Any]], chosen: Sequence[int]) -> dict[str, Shown]:
        """The images chosen, and those that they repeat, by id."""
        ids = {rows[at]["id"] for at in chosen} | {_beside(rows[at]) for at in chosen}
        wanted = {row["id"]: row for row in rows if row["id"] in ids}
        places = {id: (row["shard"], row["row"]) for id, row in wanted.items()}
        thumbnails = read_thumbnails(self.crawl, places, SIDE)
        columns = ["id", "title", "page_url", "url", "outcome"]
        these = pc.field("id").isin(pa.array(sorted(wanted), pa.string()))
        origins: dict[str, dict[str, Any]] = {}
        for row in read_manifest(self.manifest, columns, these).to_pylist():
            # several addresses may have given the same bytes: the one that was stored speaks
            if row["id"] not in origins or row["outcome"] == STORED:
                origins[row["id"]] = row
        return {
            id: Shown(
                thumbnail=thumbnails[id],
                id=id,
                asked=self.class_names.get(row["label"], "") or "no class",
                size=f"{row['width']} × {row['height']}",
                **{
                    name: origins.get(id, {}).get(name) or ""
                    for name in ("title", "url", "page_url")
                },
            )
            for id, row in wanted.items()
        }

    def _entry(
        self,
        row: Mapping[str, Any],
        direct: Mapping[str, Any],
        pictures: Mapping[int, bytes],
        shown_of: Mapping[str, Shown],
    ) -> Entry:
        test = row["test_image"]
        other = shown_of.get(_beside(row)) if test is None else None
        if test is not None and test in pictures:
            other = Shown(encode_thumbnail(pictures[test], SIDE))
        return Entry(
            image=shown_of[row["id"]],
            other=other,
            test_image=test,
            similarity=_similarity(row, direct),
            distance=row["distance"] if test is None else None,
            issues=tuple(issues_of(row)),
        )


def _beside(row: Mapping[str, Any]) -> str:
    """Id of the image that one repeats, or is like though both stay; "" for none."""
    return str(row["duplicate_of"] or row.get("looks_like") or "")


def _similarity(row: Mapping[str, Any], direct: Mapping[str, Any]) -> float | None:
    """To the test image where the image shows one itself, else to the image that it repeats."""
    found = direct.get(row["id"])
    value = found["similarity"] if found else row["similarity"]
    return None if value is None else float(value)
