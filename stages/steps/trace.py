"""Step of `pipeline trace`: one image's way through the files of every stage."""

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import UserError
from pipeline.store import open_parquet, read_table
from stages import paths

ID = re.compile(r"[0-9a-fA-F]{6,64}")
CANDIDATE = ("class", "engine", "query", "rank", "url", "page_url", "title", "outcome", "detail")
VERDICT = ("kept", "reason", "duplicate_of", "distance")
Found = dict[str, Any]


def find(image: str) -> Found:
    """All that the stages know of an image.

    Args:
        image: its id, the first 6 digits of it or more, or an address that the crawl tried.

    Returns:
        `id` (None if the address gave no image), `candidates` (rows of the manifest), `stored`,
        and `dedup` and `distill`, which are None where that stage has not seen the image.

    Raises:
        UserError: nothing is known of it, or it could be several.
    """
    if ID.fullmatch(image):
        rows = _manifest(lambda table: pc.starts_with(pc.fill_null(table["id"], ""), image.lower()))
        what = "no id in the crawl begins with"
    else:
        rows = _manifest(
            lambda table: pc.or_(pc.equal(table["url"], image), pc.equal(table["final_url"], image))
        )
        what = "no candidate of the crawl has the address"
    if not rows:
        raise UserError(
            f"{what} {image}", f"ids (6 digits or more) and addresses are in {paths.MANIFEST}"
        )
    ids = {row["id"] for row in rows} - {None}
    if len(ids) > 1:
        raise UserError(f"{image} may be {len(ids):,} images: {', '.join(sorted(ids)[:8])}")
    if not ids:
        return {"id": None, "candidates": rows, "stored": False, "dedup": None, "distill": None}
    (id,) = ids
    if not ID.fullmatch(image):
        rows = _manifest(lambda table: pc.equal(table["id"], id))
    stored = any(row["outcome"] == "stored" for row in rows)
    verdict, chosen = (
        _row(paths.DEDUP, id, VERDICT),
        _row(paths.SELECTION, id, ("held_out", "times_kept", "kept")),
    )
    if chosen:
        chosen = {
            "epochs": len(chosen["kept"]),
            "selected": chosen["times_kept"],
            "held_out": chosen["held_out"],
        }
    return {"id": id, "candidates": rows, "stored": stored, "dedup": verdict, "distill": chosen}


def as_text(found: Found) -> list[str]:
    """The same as lines for a person; the text in them is from the web."""
    lines = [found["id"] or "no image"]
    for row in found["candidates"]:
        asked = f"“{row['query']}” at {row['engine']}, result {row['rank'] + 1:,}"
        outcome = row["outcome"] + (f" ({row['detail']})" if row["detail"] else "")
        lines.append(f"  {row['class'] or 'no class'}: {asked}: {outcome}")
        lines += [f"    {row[name]}" for name in ("url", "page_url", "title") if row[name]]
    if not found["stored"]:
        return [*lines, "  not stored"]
    return [*lines, f"  dedup: {_verdict(found['dedup'])}", f"  distill: {_use(found)}"]


def _verdict(row: Found | None) -> str:
    if row is None:
        return "has not seen it"
    if row["kept"]:
        return "kept"
    said = f"dropped, {row['reason']}"
    if row["duplicate_of"]:
        said += f" of {row['duplicate_of']}, {row['distance']} bits apart"
    return said


def _use(found: Found) -> str:
    row = found["distill"]
    if row is None:
        dropped = found["dedup"] is not None and not found["dedup"]["kept"]
        return "never given it" if dropped else "has not seen it"
    if row["held_out"]:
        return "held out: never trained on"
    return f"selected in {row['selected']:,} of {row['epochs']:,} epochs"


def _manifest(wanted: Any) -> list[Found]:
    """The rows of the manifest that `wanted` (batch → mask) picks, a batch in memory at a time."""
    rows: list[Found] = []
    with open_parquet(paths.MANIFEST) as file:
        for batch in file.iter_batches(columns=[*CANDIDATE, "final_url", "id"]):
            rows += batch.filter(wanted(batch)).to_pylist()
    return rows


def _row(path: Path, id: str, columns: tuple[str, ...]) -> Found | None:
    """The row of an image in a table, None if the table is not there or knows it not."""
    if not path.is_file():
        return None
    table = read_table(path, ["id", *columns])
    found = table.filter(pc.equal(table["id"], pa.scalar(id))).to_pylist()
    return {name: found[0][name] for name in columns} if found else None
