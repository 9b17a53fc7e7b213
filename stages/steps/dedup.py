"""Step of `pipeline dedup`: hash every image once, compare, judge."""

import io
import os
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from pipeline.console import Console, text_table
from pipeline.dedup.fingerprints import Fingerprints
from pipeline.dedup.judgement import Provenance, Rules, judge, summarise
from pipeline.dedup.leakage import Leaks, leaks
from pipeline.dedup.near import radius_for
from pipeline.dedup.shards import fingerprint_shards
from pipeline.dedup.verifier import verifier
from pipeline.errors import ExternalError, UserError
from pipeline.labelled import load_labelled
from pipeline.manifest import class_names, read_manifest
from pipeline.params import Params
from pipeline.store import replacing, row_count, shard_paths, write_json, write_table
from pipeline.verdicts import read_verdicts
from stages import paths

TEST_SIDE = 64  # pixels at which test images are compared
MOST_RADIUS = 16
LEAK_COLUMNS = {
    "id": pa.string(),
    "test_image": pa.int64(),
    "similarity": pa.float32(),
    "picture": pa.binary(),  # the test image, PNG
}
Result = tuple[str, dict[str, Any]]  # for a person, and as one JSON object


class Deduplication:
    """One run over data/crawl."""

    def __init__(self, params: Params, console: Console) -> None:
        self.section, self.params, self.console = params.dedup, params, console
        self.provenance = Provenance.read(paths.MANIFEST)
        self.class_names = class_names(paths.MANIFEST)

    def verdicts(self) -> Result:
        """Judges every image, and writes data/dedup."""
        test = self._test_pixels() if self.section.leaks else None
        fingerprints = self._fingerprints()
        radius = self._radius(fingerprints)
        leaked = self._leaks(fingerprints, test) if test is not None else None
        table = self._judged(fingerprints, radius, leaked)
        summary = summarise(table, self.provenance, self.class_names, radius)
        with replacing(paths.DEDUP.parent) as folder:
            folder.mkdir()
            write_table(folder / paths.DEDUP.name, table)
            if leaked is not None and test is not None:
                write_table(folder / paths.LEAKS.name, _leak_table(table, leaked, test))
        write_json(paths.summary("dedup"), summary)
        if summary["capped"]:
            self.console.note(
                f"{summary['capped']:,} images have more than {self.section.compared} others near"
                " them, and were compared with the nearest of these: a larger dedup.compared"
                " compares more"
            )
        if summary["across_classes"]:
            self.console.note(
                f"{summary['across_classes']:,} images look like one of another class, and are"
                f" kept: see looks_like in {paths.DEDUP}"
            )
        dropped = ", ".join(
            f"{summary[name]:,} {name.replace('_', ' ')}"
            for name in ("near_duplicates", "leaked", "low_information", "unreadable")
            if summary[name]
        )
        return (
            f"{_by_class(summary)}\n"
            f"dedup: {summary['kept']:,} of {summary['images']:,} images kept"
            f"{dropped and f' ({dropped})'}, radius {radius} → {paths.DEDUP}",
            summary,
        )

    def by_radius(self) -> Result:
        """Images that each radius would drop; writes nothing."""
        fingerprints = self._fingerprints()
        rows = []
        for radius in range(MOST_RADIUS + 1):
            table = self._judged(fingerprints, radius, None)
            summary = summarise(table, self.provenance, self.class_names, radius)
            rows.append(
                {
                    "radius": radius,
                    "near_duplicates": summary["near_duplicates"],
                    "kept": summary["kept"],
                }
            )
        used = self._radius(fingerprints)
        lines = [
            f"{'*' if row['radius'] == used else ' '} {row['radius']:>6}"
            f"  {row['near_duplicates']:>15,}  {row['kept']:>10,}"
            for row in rows
        ]
        head = f"  {'radius':>6}  {'near-duplicates':>15}  {'kept':>10}"
        return "\n".join([head, *lines]), {"radii": rows}

    def _fingerprints(self) -> Fingerprints:
        shards = shard_paths(paths.CRAWL)
        workers = self.section.workers or os.cpu_count() or 1
        with self.console.progress("dedup: hashing", sum(map(row_count, shards))) as advance:
            return fingerprint_shards(
                shards,
                self.section.hash,
                self.section.exact_hash,
                paths.CACHE / "dedup",
                workers,
                advance,
            )

    def _radius(self, fingerprints: Fingerprints) -> int:
        given = self.section.radius
        return radius_for(len(fingerprints.hashes)) if given == "auto" else given

    def _judged(self, fingerprints: Fingerprints, radius: int, leaked: Leaks | None) -> pa.Table:
        rules = Rules(
            radius,
            self.section.similarity,
            self.section.similarity_across,
            self.section.compared,
            low_information="drop",
        )
        from pipeline.dedup.originals import CloseUps, Originals  # imports torch

        originals = Originals(shard_paths(paths.CRAWL), fingerprints)
        close_ups = CloseUps(
            originals, fingerprints.cut, self.section.workers or os.cpu_count() or 1
        )
        with self.console.progress("dedup: comparing", len(fingerprints.hashes)) as advance:
            return judge(
                fingerprints,
                verifier(fingerprints, close_ups),
                rules,
                self.provenance,
                leaked,
                advance=advance,
            )

    def _test_pixels(self) -> np.ndarray:
        source = self.params.evaluate.test_set
        try:
            with self.console.progress("dedup: reading test images") as advance:
                # the labels are not looked at
                return load_labelled(source, "test", TEST_SIDE, 0, 0, advance).pixels
        except UserError as error:
            raise ExternalError(
                str(error), "mend evaluate.test_set, or set dedup.leaks to false"
            ) from None

    def _leaks(self, fingerprints: Fingerprints, test: np.ndarray) -> Leaks:
        with self.console.progress(
            "dedup: looking for test images", len(fingerprints.hashes)
        ) as advance:
            return leaks(fingerprints, test, self.section.leak_similarity, advance)


def explanation(image: str) -> Result:
    """Why an image of data/crawl was kept or dropped; `image` is its id or the beginning of it.

    Raises:
        UserError: no image has such an id, or several have.
    """
    rows = read_verdicts(paths.DEDUP).to_pylist()
    found = [row for row in rows if row["id"].startswith(image)]
    if len(found) != 1:
        known = f"{len(found)} images have ids that begin so" if found else "no such image"
        raise UserError(f"{image}: {known}", f"ids are in {paths.DEDUP}")
    (row,) = found
    origins = read_manifest(paths.MANIFEST, ["url"], pc.field("id") == row["id"])
    urls = origins["url"].to_pylist()
    group = [one for one in rows if row["group"] >= 0 and one["group"] == row["group"]]
    lines = [
        f"{row['id']}: {'kept' if row['kept'] else 'dropped as ' + row['reason']}"
        f" ({row['width']} × {row['height']})"
    ]
    lines += [f"  from {url}" for url in urls]
    if row["duplicate_of"]:
        lines.append(
            f"  looks like {row['duplicate_of']}: {row['distance']} of 64 bits apart,"
            f" similarity {row['similarity']:.3f}"
        )
    if row["looks_like"]:
        lines.append(
            f"  looks like {row['looks_like']} of another class: {row['distance']} of 64 bits"
            f" apart, similarity {row['similarity']:.3f}"
        )
    if row["test_image"] is not None:
        lines.append(f"  shows test image {row['test_image']}")
    for one in group:
        if one["id"] != row["id"] and len(group) > 1:
            what = "kept" if one["kept"] else f"{one['distance']} bits, {one['similarity']:.3f}"
            lines.append(f"  in its group: {one['id']} ({one['width']} × {one['height']}): {what}")
    return "\n".join(lines), row | {"urls": urls, "members": len(group)}


def _leak_table(table: pa.Table, leaked: Leaks, test: np.ndarray) -> pa.Table:
    ids = table["id"].to_pylist()
    rows = [
        {
            "id": ids[image],
            "test_image": int(of),
            "similarity": float(alike),
            "picture": _png(test[of]),
        }
        for image, of, alike in zip(
            leaked.image.tolist(), leaked.test.tolist(), leaked.similarity.tolist(), strict=True
        )
    ]
    return pa.Table.from_pylist(rows, schema=pa.schema(LEAK_COLUMNS.items()))


def _png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def _by_class(summary: dict[str, Any]) -> str:
    some = summary["classes"][:1]
    kinds = [kind for one in some for kind, count in one.items() if isinstance(count, int)]
    lines = [["class", *(kind.replace("_", " ") for kind in kinds)]]
    for one in [*summary["classes"], summary | {"name": "all"}]:
        lines.append([one["name"] or "none", *(f"{one[kind]:,}" for kind in kinds)])
    return text_table(lines)
