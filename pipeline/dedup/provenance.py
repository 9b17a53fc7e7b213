"""Provenance of the stored images: for which classes addresses brought each, and what is known."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kd3_pipeline.manifest import ARRIVED, DUPLICATE, scan_manifest

UNLABELLED = -1
FACTS = ("page_url", "title", "licence", "licence_url", "creator")  # of where an image is from
SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "label": pa.int64(),
        "addresses": pa.int64(),  # that brought the image for this class
        "facts": pa.int64(),  # columns of FACTS that are filled, of the best of these
    }
)


@dataclass(frozen=True)
class Provenance:
    """Origins of the stored images, as the crawl's manifest tells them."""

    found: pa.Table = field(default_factory=SCHEMA.empty_table)  # one row an image and class
    # label -> addresses that gave bytes which the crawl had already
    repeated: Counter[int] = field(default_factory=Counter)

    @classmethod
    def read(cls, manifest: Path) -> "Provenance":
        """From `manifest.parquet`.

        Raises:
            UserError: as `kd3_pipeline.manifest.read_manifest`.
        """
        rows = pa.Table.from_batches(_arrived(manifest))
        groups = rows.group_by(["id", "label"], use_threads=False)
        found = groups.aggregate([([], "count_all"), ("known", "max"), ("repeats", "sum")])
        repeated: Counter[int] = Counter()
        by_label = found.group_by("label", use_threads=False).aggregate([("repeats_sum", "sum")])
        for row in by_label.to_pylist():
            repeated[row["label"]] = row["repeats_sum_sum"]
        columns = [found[name] for name in ("id", "label", "count_all", "known_max")]
        return cls(pa.table(columns, SCHEMA.names).cast(SCHEMA), repeated)

    def facts_of(self, ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Facts that are known of images, by their ids: int64 [M]."""
        image, rows = self._rows_of(ids)
        facts = np.zeros(len(ids), np.int64)
        np.maximum.at(facts, image, self.found["facts"].to_numpy()[rows])
        return facts

    def votes(self, images: pa.Table) -> "Votes":
        """The classes that images were found for; of one that nothing tells of, its own label.

        Args:
            images: with columns id and label.
        """
        image, rows = self._rows_of(images["id"])
        own = np.ones(images.num_rows, bool)
        own[image] = False
        alone = np.flatnonzero(own)
        labels, addresses = (self.found[name].to_numpy()[rows] for name in ("label", "addresses"))
        return Votes(
            np.concatenate([image, alone]),
            np.concatenate([labels, images["label"].to_numpy()[alone]]),
            np.concatenate([addresses, np.ones(len(alone), np.int64)]),
        )

    def _rows_of(self, ids: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
        """Places in `ids`, and the rows of `found` that are of them: int64 both."""
        known = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
        at = pc.index_in(self.found["id"], value_set=known)
        rows = np.flatnonzero(pc.is_valid(at).to_numpy())
        return pc.drop_null(at).to_numpy().astype(np.int64), rows


def _arrived(manifest: Path) -> Iterator[pa.RecordBatch]:
    """The candidates whose image the crawl has: id, label, facts known, and whether it repeats."""
    columns = ["id", "label", "outcome", *FACTS]
    kinds = {"id": pa.string(), "label": pa.int64(), "known": pa.int8(), "repeats": pa.int8()}
    yield pa.RecordBatch.from_pylist([], pa.schema(kinds))
    for batch in scan_manifest(manifest, columns, pc.field("outcome").isin(ARRIVED)):
        known = np.zeros(batch.num_rows, np.int8)
        for name in FACTS:
            filled = pc.greater(pc.binary_length(batch[name]), 0)
            known += pc.fill_null(filled, False).to_numpy(zero_copy_only=False)
        repeats = pc.equal(batch["outcome"], DUPLICATE).cast(pa.int8())
        yield pa.RecordBatch.from_arrays(
            [batch["id"], batch["label"], pa.array(known), repeats], schema=pa.schema(kinds)
        )


@dataclass(frozen=True)
class Votes:
    """Classes that images, or groups of them, were found for: one entry a vote."""

    of: np.ndarray  # int64 [V], the image or group
    label: np.ndarray  # int64 [V]
    addresses: np.ndarray  # int64 [V]

    def summed(self, owner: np.ndarray) -> "Votes":
        """By owners and classes, rising, with the addresses of all that each owns.

        Args:
            owner: int64 [N], of each image or group.
        """
        of = owner[self.of]
        order = np.lexsort((self.label, of))
        of, label, addresses = of[order], self.label[order], self.addresses[order]
        if not len(of):
            return self
        new = np.diff(of, prepend=of[0] - 1) != 0
        new |= np.diff(label, prepend=label[0] - 1) != 0
        starts = np.flatnonzero(new)
        return Votes(of[starts], label[starts], np.add.reduceat(addresses, starts))

    def lists(self, owner: np.ndarray) -> pa.ListArray:
        """The classes of each one's owner: a list of int64 for each, of `summed` votes."""
        first, last = (np.searchsorted(self.of, owner, side) for side in ("left", "right"))
        ends = np.concatenate([[0], np.cumsum(last - first)])
        places = np.repeat(first - ends[:-1], last - first) + np.arange(ends[-1])
        return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(self.label[places]))

    def most(self, owner: np.ndarray, own: np.ndarray) -> np.ndarray:
        """The class of most addresses of each one's owner: int64 [N], of `summed` votes.

        Of several it is the image's own if that is among them, else the least.

        Args:
            own: int64 [N], label of each image.
        """
        if not len(owner):
            return own
        starts = np.flatnonzero(np.diff(self.of, prepend=self.of[0] - 1))
        highest = np.maximum.reduceat(self.addresses, starts)
        sizes = np.diff(np.append(starts, len(self.of)))
        best = np.flatnonzero(self.addresses == np.repeat(highest, sizes))
        of, label = self.of[best], self.label[best]
        least = label[np.searchsorted(of, owner)]  # they rise within each owner

        kinds = np.unique(label)
        code = np.minimum(np.searchsorted(kinds, own), len(kinds) - 1)
        keys = of * len(kinds) + np.searchsorted(kinds, label)
        mine = owner * len(kinds) + code
        at = np.minimum(np.searchsorted(keys, mine), len(keys) - 1)
        return np.where((keys[at] == mine) & (kinds[code] == own), own, least)
