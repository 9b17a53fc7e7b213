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
        leaks = [] if self.leaks is None else self.leaks.to_pylist()
        direct = {row["id"]: row for row in leaks}
        pictures = {row["test_image"]: row["picture"] for row in direct.values()}
        ordered = self._ordered(direct)
        usual = [reason for reason in HEADINGS if reason in ordered and reason != ALIKE]
        others = sorted(ordered.keys() - set(HEADINGS))
        last = [ALIKE] if ALIKE in ordered else []  # on the page
        chosen = {reason: ordered[reason] for reason in [*usual, *others, *last]}
        rows = {
            reason: self.table.take(pa.array(every[:most])).to_pylist()
            for reason, every in chosen.items()
        }
        shown_of = self._shown([row for some in rows.values() for row in some])
        advance(1)
        return [
            Section(
                reason,
                HEADINGS.get(reason, f"Issue: {reason.replace('_', ' ')}"),
                NOTES.get(reason, "Named in dedup.drop. In the order of the crawl."),
                len(every),
                tuple(self._entry(row, direct, pictures, shown_of) for row in rows[reason]),
            )
            for reason, every in chosen.items()
        ]

    def _ordered(self, direct: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Rows by reason, int64, the least sure drop first; ties stay in the order of the crawl."""
        table = self.table
        alike = pc.fill_null(table["similarity"].cast(pa.float64()), np.nan).to_numpy().copy()
        at = pc.index_in(
            pa.array(list(direct), pa.string()), value_set=table["id"].combine_chunks()
        )
        values = [row["similarity"] for row in direct.values()]
        for place, value in zip(at.to_pylist(), values, strict=True):
            if place is not None:
                alike[place] = np.nan if value is None else value
        apart = pc.fill_null(table["distance"], 0).to_numpy()
        kept = table["kept"].to_numpy()
        both = np.zeros(len(kept), bool)
        if "looks_like" in table.column_names:
            both = pc.fill_null(pc.not_equal(table["looks_like"], ""), False).to_numpy()
        ordered: dict[str, np.ndarray] = {}
        for reason in [*table["reason"].unique().to_pylist(), ALIKE]:
            of = pc.equal(table["reason"], reason).to_numpy()
            rows = np.flatnonzero(kept & both if reason == ALIKE else of & ~kept)
            known = ~np.isnan(alike[rows])
            shown = -self.detail[rows].astype(np.float64) if reason == LOW_INFORMATION else 0.0
            sure = np.where(known, alike[rows], shown)
            order = np.lexsort((np.where(known, -apart[rows], 0), sure))
            if len(rows):
                ordered[reason] = rows[order[::-1] if reason == ALIKE else order]
        return ordered

    def _shown(self, chosen: Sequence[Mapping[str, Any]]) -> dict[str, Shown]:
        """The images chosen, and those that they repeat, by id."""
        ids = {row["id"] for row in chosen} | {_beside(row) for row in chosen}
        these = pc.is_in(self.table["id"], value_set=pa.array(sorted(ids), pa.string()))
        wanted = {row["id"]: row for row in self.table.filter(these).to_pylist()}
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
