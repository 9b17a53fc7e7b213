"""Step of `pipeline duplicates`: new images against the fingerprints of data/crawl."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kd3_pipeline.console import printable
from kd3_pipeline.dedup.fingerprints import Fingerprints
from kd3_pipeline.dedup.lookup import NEW, Matches, NewImage, comparable, fingerprints_of, matches
from kd3_pipeline.dedup.near import QUARTER
from kd3_pipeline.dedup.originals import Originals
from kd3_pipeline.dedup.verifier import Verify
from kd3_pipeline.errors import UserError
from kd3_pipeline.images import inspect
from kd3_pipeline.manifest import STORED, read_manifest
from kd3_pipeline.picturefile import ImageError
from kd3_pipeline.store import shard_paths
from kd3_pipeline.verdicts import read_verdicts
from kd3_stages import paths
from kd3_stages.steps.dedup import Deduplication

Row = dict[str, Any]


@dataclass(frozen=True)
class Given:
    """A file that was named, or that lies in a folder that was."""

    path: Path
    named: bool


class Lookup(Deduplication):
    """One look for new images, by the parameters of `dedup`; nothing but its cache is written."""

    def run(self, images: Sequence[str], most: int) -> None:
        """Prints the stored images that each new one repeats, at most `most` of each.

        Raises:
            UserError: there is no crawl, nothing was given, or a file that was named is no image.
        """
        given, hidden = _files(images)
        test = self._test_pixels() if self.section.leaks else None
        stored = self._fingerprints()
        rows, read = self._read(given)
        with self.console.progress("duplicates: reading pictures", len(read)) as advance:
            kind, exact = self.section.hash, self.section.exact_hash
            new = fingerprints_of(read, kind, exact, advance)
        if not self.section.turned:
            new, stored = (replace(one, hashes=one.hashes[:, :QUARTER]) for one in (new, stored))
        radius, least = self._radius(stored), self.section.similarity
        with self.console.progress("duplicates: comparing", len(read)) as advance:
            found = matches(
                new, stored, radius, least, lambda both: self._joint_verifier(both, read), advance
            )
        good = [row for row in rows if "error" not in row]
        self._tell(good, found, stored, most)
        for row, able, error in zip(
            good, comparable(new).tolist(), new.images["error"].to_pylist(), strict=True
        ):
            row["comparable"] = able
            if error:  # whole at a small size, but not in full
                row["error"] = f"not a whole image: {error}"
        if test is not None:
            leaked = self._leaks(new, test)
            for at, of, alike in zip(leaked.image, leaked.test, leaked.similarity, strict=True):
                good[at] |= {"test_image": int(of), "test_similarity": round(float(alike), 4)}
        values = {
            "images": rows,
            "stored": len(stored.hashes),
            "hidden": hidden,
            "radius": radius,
            "similarity": least,
            "leaks": self.section.leaks,
        }
        if hidden:
            self.console.note(f"hidden files and folders left out: {hidden:,}")
        self.console.result("\n".join(map(printable, _lines(rows, len(stored.hashes)))), values)
        failed = [row for row, one in zip(rows, given, strict=True) if one.named and "error" in row]
        if failed:
            raise UserError(
                "\n".join(printable(f"{row['file']}: {row['error']}") for row in failed)
            )

    def _joint_verifier(self, both: Fingerprints, new: Sequence[NewImage]) -> Verify:
        """The judge of pairs of new and stored images."""
        return self._verifier(both, _Originals(shard_paths(paths.CRAWL), both, new))

    def _read(self, given: Sequence[Given]) -> tuple[list[Row], list[NewImage]]:
        """A row for each file, with what is wrong with it, and the images of the others."""
        rows: list[Row] = []
        images = []
        with self.console.progress("duplicates: reading files", len(given)) as advance:
            for one in given:
                # a name need not be UTF-8, and what is printed has to be
                row: Row = {"file": os.fsencode(one.path).decode("utf-8", "replace")}
                try:
                    image = _image(one.path, self.params.crawl.max_bytes)
                except ImageError as error:
                    row["error"] = f"not a whole image: {error}"
                except OSError as error:
                    row["error"] = error.strerror or str(error)
                else:
                    row |= {"id": image.id, "width": image.width, "height": image.height}
                    images.append(image)
                rows.append(row)
                advance(1)
        return rows, images

    def _tell(self, rows: list[Row], found: Matches, stored: Fingerprints, most: int) -> None:
        """Adds to each row the stored images that it repeats, and how many they are."""
        by_row: dict[int, list[int]] = {}
        for at, row in enumerate(found.new.tolist()):
            by_row.setdefault(row, []).append(at)
        shown = [at for places in by_row.values() for at in places[:most]]
        known = stored.images.take(found.stored[shown]).select(["id", "label", "width", "height"])
        columns = {row["id"]: row for row in known.to_pylist()}
        verdicts = _verdicts(list(columns))
        urls = _urls(list(columns))
        ids = dict(zip(shown, known["id"].to_pylist(), strict=True))
        for number, row in enumerate(rows):
            places = by_row.get(number, [])
            row["found"] = len(places)
            row["duplicates"] = []
            for at in places[:most]:
                id = ids[at]
                verdict = verdicts.get(id, {"kept": None, "reason": None, "duplicate_of": None})
                label = verdict.pop("label", columns[id]["label"])
                row["duplicates"].append(
                    {
                        **{name: columns[id][name] for name in ("id", "width", "height")},
                        "class": self.class_names.get(label, ""),
                        **verdict,
                        "distance": int(found.distance[at]),
                        "similarity": round(float(found.similarity[at]), 4),
                        "url": urls.get(id, ""),
                    }
                )


class _Originals(Originals):
    """The encoded images of rows of fingerprints of which some are new."""

    def __init__(
        self, shards: Sequence[Path], fingerprints: Fingerprints, new: Sequence[NewImage]
    ) -> None:
        super().__init__(shards, fingerprints)
        self.new = new

    def __call__(self, rows: np.ndarray) -> Iterator[bytes]:
        known = self.shard[rows] != NEW
        stored = super().__call__(rows[known])
        for row, in_shard in zip(rows.tolist(), known.tolist(), strict=True):
            yield next(stored) if in_shard else self.new[int(self.row[row])].data


def _files(images: Sequence[str]) -> tuple[list[Given], int]:
    """The files given, those of folders in the order of their names; how many are left out.

    Raises:
        UserError: a folder has no file in it.
    """
    found, hidden = [], 0
    for name in images:
        path = Path(name)
        if not path.is_dir():
            found.append(Given(path, named=True))
            continue
        before = len(found)
        for folder, folders, files in os.walk(path):
            hidden += sum(one.startswith(".") for one in [*folders, *files])
            folders[:] = sorted(one for one in folders if not one.startswith("."))
            seen = sorted(one for one in files if not one.startswith("."))
            found += [Given(Path(folder, one), named=False) for one in seen]
        if len(found) == before:
            raise UserError(f"{name} has no file in it")
    return found, hidden


def _image(path: Path, most: int) -> NewImage:
    """One image from a file, which may be anything.

    Raises:
        ImageError: it is none, or larger than `most` bytes.
        OSError: it cannot be read.
    """
    if path.exists() and not path.is_file():
        raise OSError("not a file")  # reading a pipe would never end
    if path.stat().st_size > most:
        size = path.stat().st_size
        raise ImageError("too_large", f"{size:,} bytes, more than crawl.max_bytes ({most:,})")
    data = path.read_bytes()
    info = inspect(data, 1)
    return NewImage(hashlib.sha256(data).hexdigest(), data, info.width, info.height)


def _verdicts(ids: list[str]) -> dict[str, Row]:
    """Dedup's verdicts on some images, by id; none where dedup has not run."""
    if not paths.DEDUP.is_file():
        return {}
    table = read_verdicts(paths.DEDUP, ["id", "label", "kept", "reason", "duplicate_of"])
    rows = table.filter(pc.is_in(table["id"], pa.array(ids, pa.string()))).to_pylist()
    return {row.pop("id"): row for row in rows}


def _urls(ids: list[str]) -> dict[str, str]:
    """Where some stored images are from, by id."""
    these = pc.field("id").isin(pa.array(ids, pa.string())) & (pc.field("outcome") == STORED)
    rows = read_manifest(paths.MANIFEST, ["id", "url", "outcome"], these).to_pylist()
    return {row["id"]: row["url"] or "" for row in rows}


def _lines(rows: Sequence[Row], stored: int) -> Iterator[str]:
    """The rows for a person; text in them is from the web."""
    for row in rows:
        if "error" in row:
            yield f"{row['file']}: {row['error']}"
            continue
        several = "image shows" if row["found"] == 1 else "images show"
        found = f"{row['found']:,} stored {several} it" if row["found"] else "not found"
        bytes_alone = "" if row["comparable"] else " (nothing to compare in it but its bytes)"
        yield f"{row['file']}: {found}, of {stored:,}{bytes_alone}"
        for one in row["duplicates"]:
            yield "  ".join(
                [
                    f"  {one['similarity']:.3f}",
                    f"{one['distance']:>2} bits",
                    one["id"][:16],
                    one["class"] or "no class",
                    _status(one),
                    one["url"],
                ]
            )
        if (left := row["found"] - len(row["duplicates"])) > 0:
            yield f"  and {left:,} more: --k {row['found']} shows all"
        if "test_image" in row:
            yield f"  shows test image {row['test_image']} ({row['test_similarity']:.3f})"


def _status(one: Row) -> str:
    """Whether dedup kept a stored image."""
    if one["kept"] is None:
        return "not judged yet"
    if one["kept"]:
        return "kept"
    of = f" of {one['duplicate_of'][:16]}" if one["duplicate_of"] else ""
    return f"dropped, {one['reason']}{of}"
