"""Step of `pipeline dedup`: hash every image once, compare, judge."""

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from kd3_pipeline.console import Console, printable
from kd3_pipeline.dedup.fingerprints import Fingerprints
from kd3_pipeline.dedup.issues import issues
from kd3_pipeline.dedup.judgement import Rules, judge, summarise
from kd3_pipeline.dedup.leakage import Leaks, leaks
from kd3_pipeline.dedup.near import radius_for
from kd3_pipeline.dedup.originals import CloseUps, Originals
from kd3_pipeline.dedup.provenance import Provenance
from kd3_pipeline.dedup.quality import best_copies
from kd3_pipeline.dedup.shards import fingerprint_shards
from kd3_pipeline.dedup.verifier import Verify, verifier
from kd3_pipeline.engine import Engine
from kd3_pipeline.errors import ExternalError, UserError
from kd3_pipeline.frames import Frame
from kd3_pipeline.labelled import Reading, load_labelled
from kd3_pipeline.manifest import class_names, read_manifest
from kd3_pipeline.params import Params
from kd3_pipeline.pixelstore import Pixels
from kd3_pipeline.store import replacing, row_count, shard_paths, write_json, write_table
from kd3_pipeline.verdicts import issues_of, read_verdicts
from kd3_stages import paths
from kd3_stages.steps.dropped import (
    Judged,
    Sheet,
    as_text,
    emptied_error,
    emptied_text,
    near_duplicate_counts,
    note_capped,
    note_drawn_value,
    note_losses,
)

TEST_SIDE = 64  # pixels at which test images are compared
LEAK_COLUMNS = {
    "id": pa.string(),
    "test_image": pa.int64(),
    "similarity": pa.float32(),
    "distance": pa.float32(),
    "picture": pa.binary(),  # the test image, PNG
}
Result = tuple[str, dict[str, Any]]  # for a person, and as one JSON object


class Deduplication:
    """One run over data/crawl."""

    def __init__(self, params: Params, console: Console, engine: Engine) -> None:
        self.section, self.params, self.console = params.dedup, params, console
        self.engine = engine
        self.provenance = Provenance.read(paths.MANIFEST)
        self.class_names = class_names(paths.MANIFEST)

    def write(self, sheet: Sheet) -> None:
        """Judges every image, writes data/dedup, and shows what goes.

        Raises:
            ExternalError: a class is left without any image; everything is written all the same.
        """
        judged = self.judged()
        with replacing(paths.DEDUP.parent) as folder:
            folder.mkdir()
            write_table(folder / paths.DEDUP.name, judged.table)
            if judged.leaks is not None:
                write_table(folder / paths.LEAKS.name, judged.leaks)
        write_json(paths.summary("dedup"), judged.summary)
        seen = self._look(judged, sheet, dry_run=False)
        self.console.result(f"{judged.text} → {paths.DEDUP}{seen}", judged.values(sheet))
        if judged.emptied:
            raise emptied_error(judged.emptied, sheet.path)

    def try_out(self, sheet: Sheet) -> None:
        """Judges every image, and writes nothing but the contact sheet of what would go."""
        judged = self.judged()
        seen = self._look(judged, sheet, dry_run=True)
        if judged.emptied:
            self.console.note(
                f"WARNING: a run would end with exit code 3: {emptied_text(judged.emptied)}"
            )
        counts = near_duplicate_counts(judged.table, self.section.similarity)
        self.console.result(
            f"{judged.text}\n{as_text(counts)}dry run: nothing was dropped{seen}",
            judged.values(sheet) | counts,
        )

    def _look(self, judged: Judged, sheet: Sheet, dry_run: bool) -> str:
        """Writes a contact sheet, notes what to look at there, and says where it is."""
        sheet.write(judged, dry_run, self.console)
        note_losses(judged.losses, sheet.path, self.console)
        return f"\ncontact sheet of what {'would go' if dry_run else 'goes'}: {sheet.path}"

    def judged(self) -> Judged:
        """The verdicts on all images; nothing is written but the cache of fingerprints."""
        test = self._test_pixels() if self.section.leaks else None
        fingerprints = self._fingerprints()
        radius = self._radius(fingerprints)
        leaked = self._leaks(fingerprints, test) if test is not None else None
        table = self._judged(fingerprints, radius, leaked)
        summary = summarise(table, self.provenance, self.class_names, radius)
        note_drawn_value(self.section, self.console)
        note_capped(summary["capped"], self.section.compared, self.console)
        return Judged(
            table=table,
            summary=summary,
            leaks=None if leaked is None or test is None else _leak_table(table, leaked, test),
            grey=fingerprints.grey,
            class_names=self.class_names,
        )

    def _fingerprints(self) -> Fingerprints:
        shards = shard_paths(paths.CRAWL)
        with self.console.progress("dedup: hashing", sum(map(row_count, shards))) as advance:
            return fingerprint_shards(
                shards,
                self.section.hash,
                self.section.exact_hash,
                paths.CACHE / "dedup",
                self.engine,
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
            self.section.low_information,
            self.section.drop,
            self.section.blank_range,
            self.section.turned,
        )
        images = fingerprints.images
        originals = Originals(shard_paths(paths.CRAWL), fingerprints)
        total = images.num_rows * (2 if "nsfw" in self.section.drop else 1)
        with self.console.progress("dedup: looking for issues", total) as advance:
            found = issues(fingerprints, self.section, originals, advance)
        with self.console.progress("dedup: comparing", images.num_rows) as advance:

            def rank(rows: np.ndarray, groups: np.ndarray) -> np.ndarray:
                named = images["id"].take(pa.array(rows))
                ids, facts = named.to_pylist(), self.provenance.facts_of(named)
                # the bar of what is compared stands still meanwhile: there is one at a time
                told = f"looking for the best of {len(rows):,} copies"
                return best_copies(
                    rows,
                    groups,
                    originals,
                    facts,
                    ids,
                    lambda n=1, note="": advance(0, told),
                )

            return judge(
                fingerprints,
                self._verifier(fingerprints, originals),
                rules,
                self.provenance,
                leaked,
                found,
                rank,
                advance,
            )

    def _verifier(self, fingerprints: Fingerprints, originals: Originals) -> Verify:
        """The judge of pairs: edges, and the second look where there is to be one."""
        if not self.section.second_look or not self.section.similarity:
            return verifier(fingerprints, None, self.engine)
        close_ups = CloseUps(originals, fingerprints.cut, self.engine.threads)
        return verifier(fingerprints, close_ups, self.engine)

    def _test_pixels(self) -> Pixels:
        section = self.params.evaluate
        reading = Reading.of(section.model_copy(update={"class_names": []}))
        try:
            with self.console.progress("dedup: reading test images") as advance:
                # the labels are not looked at
                found = load_labelled(
                    section.test_set, "test", Frame(TEST_SIDE), 0, 0, advance, reading=reading
                )
        except UserError as error:
            raise ExternalError(
                str(error), "mend evaluate.test_set, or set dedup.leaks to false"
            ) from None
        for note in found.notes:
            self.console.note(note)
        return found.pixels

    def _leaks(self, fingerprints: Fingerprints, test: Pixels) -> Leaks:
        with self.console.progress(
            "dedup: looking for test images", len(fingerprints.hashes)
        ) as advance:
            return leaks(
                fingerprints,
                test,
                self.section.leak_similarity,
                self.section.leak_ratio,
                advance,
            )


def explanation(image: str) -> Result:
    """Why an image of data/crawl was kept or dropped; `image` is its id or the beginning of it.

    Raises:
        UserError: no image has such an id, or several have.
    """
    verdicts = read_verdicts(paths.DEDUP)
    found = verdicts.filter(pc.starts_with(verdicts["id"], image)).to_pylist()
    if len(found) != 1:
        known = f"{len(found)} images have ids that begin so" if found else "no such image"
        raise UserError(f"{image}: {known}", f"ids are in {paths.DEDUP}")
    (row,) = found
    origins = read_manifest(paths.MANIFEST, ["url"], pc.field("id") == row["id"])
    urls = origins["url"].to_pylist()
    group = []
    if row["group"] >= 0:
        group = verdicts.filter(pc.equal(verdicts["group"], row["group"])).to_pylist()
    lines = [
        f"{row['id']}: {'kept' if row['kept'] else 'dropped as ' + row['reason']}"
        f" ({row['width']} × {row['height']})"
    ]
    lines += [f"  from {url}" for url in urls]
    if issues := issues_of(row):
        lines.append(f"  issues: {', '.join(issues).replace('_', ' ')}")
    if like := row["duplicate_of"] or row.get("looks_like"):
        stays = "" if row["duplicate_of"] else ", found for another class: both stay"
        lines.append(
            f"  looks like {like}: {row['distance']} of 64 bits apart,"
            f" similarity {row['similarity']:.3f}{stays}"
        )
    if row["test_image"] is not None:
        lines.append(f"  shows test image {row['test_image']}")
    for one in group:
        if one["id"] != row["id"] and len(group) > 1:
            what = "kept" if one["kept"] else f"{one['distance']} bits, {one['similarity']:.3f}"
            lines.append(f"  in its group: {one['id']} ({one['width']} × {one['height']}): {what}")
    return "\n".join(map(printable, lines)), row | {"urls": urls, "members": len(group)}


def _leak_table(table: pa.Table, leaked: Leaks, test: Pixels) -> pa.Table:
    ids = table["id"].take(pa.array(leaked.image)).to_pylist()
    rows = [
        {
            "id": id,
            "test_image": int(of),
            "similarity": float(leaked.similarity[at]),
            "distance": float(leaked.distance[at]),
            "picture": _png(test[of]),
        }
        for at, (id, of) in enumerate(zip(ids, leaked.test.tolist(), strict=True))
    ]
    return pa.Table.from_pylist(rows, schema=pa.schema(LEAK_COLUMNS.items()))


def _png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()
