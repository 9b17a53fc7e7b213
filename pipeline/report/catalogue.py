"""Catalogue of the stored images: what the galleries choose from, and tiles of what they chose."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kd3_pipeline.embeddings import Embeddings
from kd3_pipeline.errors import UserError
from kd3_pipeline.manifest import STORED, read_manifest
from kd3_pipeline.report.stored import Images
from kd3_pipeline.report.thumbnails import read_thumbnails
from kd3_pipeline.report.tiles import Tile, web_link

AGREES, DIFFERS, UNUSED = "seen as asked", "seen as another class", "not used"
TileOf = Callable[..., Tile]  # tile_of(position, outcome=None, remark="")


@dataclass(frozen=True)
class Catalogue:
    """The stored images, and where their pictures and addresses are.

    Attributes:
        crawl: folder of the image shards.
        manifest: of the crawl.
        leaks: Parquet file of the test images that were found in the crawl; it may be missing.
        embeddings: of the images that were kept.
        asked: label -> class asked for.
        known: label -> its class among `class_names`, -1 for none.
        class_names: index -> class the networks know.
        most: images (or pairs) in a gallery.
    """

    crawl: Path
    manifest: Path
    leaks: Path
    images: Images
    embeddings: Embeddings
    asked: dict[int, str]
    known: dict[int, int]
    class_names: tuple[str, ...]
    most: int

    def embedded(self, score: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Positions of the embedded images, int64 [N], and a score of `embed` for each.

        None where `embed` was not told to give it.

        Raises:
            UserError: the embeddings have images that dedup does not.
        """
        table = self.embeddings.images
        if score not in table.column_names:
            return None
        at = pc.index_in(table["id"], value_set=self.images.table["id"].combine_chunks())
        if at.null_count:
            raise UserError(
                f"{self.embeddings.folder} has {at.null_count:,} images that dedup does not",
                "they are of different runs: run `dvc repro embed`",
            )
        return at.to_numpy().astype(np.int64), table[score].to_numpy()

    def tiles(self, *chosen: np.ndarray) -> TileOf:
        """Reads the pictures at these positions; gives what makes a tile of one of them.

        Raises:
            UserError: a shard or the manifest is missing, or of another run.
        """
        table = self.images.table
        wanted = np.unique(np.concatenate([np.zeros(0, np.int64), *chosen]))
        rows = table.select(["id", "shard", "row"]).take(wanted).to_pylist()
        pictures = read_thumbnails(
            self.crawl, {row["id"]: (row["shard"], row["row"]) for row in rows}
        )
        origins = self._origins([row["id"] for row in rows])

        def tile_of(position: int, outcome: str | None = None, remark: str = "") -> Tile:
            image_id = table["id"][position].as_py()
            origin = origins.get(image_id, {})
            link, host = web_link(origin.get("page_url"), origin.get("url"))
            asked, seen = self._asked(position), self._seen(position)
            agrees = bool(seen) and int(self.images.predicted[position]) == self.known.get(
                int(self.images.labels[position]), -1
            )
            usual = UNUSED if not seen else AGREES if agrees else DIFFERS
            return Tile(
                thumbnail=pictures[image_id],
                title=origin.get("title") or "",
                link=link,
                host=host,
                asked=asked,
                predicted=seen,
                times=int(self.images.times[position]),
                confidence=float(self.images.confidence[position]) if seen else None,
                outcome=usual if outcome is None else outcome,
                agrees=agrees,
                remark=remark,
            )

        return tile_of

    def _asked(self, position: int) -> str:
        label = int(self.images.labels[position])
        return self.asked.get(label, f"class {label}")

    def _seen(self, position: int) -> str:
        """The class that the student sees; "" where it was not given the image."""
        predicted = int(self.images.predicted[position])
        return self.class_names[predicted] if 0 <= predicted < len(self.class_names) else ""

    def _origins(self, ids: list[str]) -> dict[str, dict[str, Any]]:
        """Rows of the manifest by id."""
        columns = ["id", "title", "page_url", "url", "outcome"]
        these = pc.field("id").isin(pa.array(ids, pa.string()))
        origins: dict[str, dict[str, Any]] = {}
        for row in read_manifest(self.manifest, columns, these).to_pylist():
            # Several addresses may lead to the same bytes; the one that was stored speaks for them.
            if row["id"] not in origins or row["outcome"] == STORED:
                origins[row["id"]] = row
        return origins
