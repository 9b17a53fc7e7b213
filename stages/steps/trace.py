"""Step of `pipeline trace`: one image's way through the files of every stage."""

import re
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kd3_pipeline.console import Console, printable
from kd3_pipeline.errors import UserError
from kd3_pipeline.manifest import STORED, read_manifest
from kd3_pipeline.selections import read_selection
from kd3_pipeline.verdicts import issues_of, read_verdicts
from kd3_stages import paths

ID = re.compile(r"[0-9a-fA-F]{6,64}")
CANDIDATE = (
    *("class", "engine", "query", "rank", "url", "page_url", "title", "outcome", "detail"),
    *("final_url", "id"),
)
Trace = dict[str, Any]


def run(image: str, as_json: bool) -> None:
    """Prints what the stages know of an image.

    Raises:
        UserError: nothing, or it could be several.
    """
    trace = find(image)
    Console(as_json=as_json).result("\n".join(map(printable, as_text(trace))), trace)


def find(image: str) -> Trace:
    """All that the stages know of an image.

    Args:
        image: its id, the first 6 digits of it or more, or an address that the crawl tried.

    Returns:
        `id` (None if the address gave no image), `candidates` (rows of the manifest), `stored`,
        and `dedup` and `distill`, which are None where that stage has not seen the image.

    Raises:
        UserError: nothing is known of it, or it could be several.
    """
    if not image.strip():
        raise UserError("no image is named", "give an id, 6 digits of it or more, or an address")
    if ID.fullmatch(image):
        # of one that was dropped, the detail has the id
        dropped = pc.match_substring(pc.field("detail"), f"SHA-256 {image.lower()}")
        rows = _candidates(pc.starts_with(pc.field("id"), image.lower()) | dropped)
        what = "no id in the crawl begins with"
    else:
        rows = _candidates((pc.field("url") == image) | (pc.field("final_url") == image))
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
    if not ID.fullmatch(image):  # other addresses may have given the same image
        rows = _candidates(pc.field("id") == id)
    return {
        "id": id,
        "candidates": rows,
        "stored": any(row["outcome"] == STORED for row in rows),
        "dedup": _verdict(id),
        "distill": _use(id),
    }


def _candidates(where: pc.Expression) -> list[dict[str, Any]]:
    return read_manifest(paths.MANIFEST, CANDIDATE, where).to_pylist()


def _verdict(id: str) -> dict[str, Any] | None:
    """Dedup's verdict on an image; None if there is no dedup, or it knows it not."""
    if not paths.DEDUP.is_file():
        return None
    columns = ["kept", "reason", "duplicate_of", "distance"]
    return _row(read_verdicts(paths.DEDUP, ["id", *columns], ["looks_like", "issues"]), id)


def _use(id: str) -> dict[str, Any] | None:
    """Use of an image by distillation; None if there was none, or it was not given it."""
    if not paths.SELECTION.is_file():
        return None
    columns = ["held_out", "times_kept", "kept"]
    row = _row(read_selection(paths.SELECTION, ["id", *columns]), id)
    return row and {
        "epochs": len(row["kept"]),
        "selected": row["times_kept"],
        "held_out": row["held_out"],
    }


def _row(table: pa.Table, id: str) -> dict[str, Any] | None:
    rows = table.filter(pc.equal(table["id"], pa.scalar(id))).drop_columns(["id"]).to_pylist()
    return rows[0] if rows else None


def as_text(trace: Trace) -> list[str]:
    """The same as lines for a person; the text in them is from the web."""
    lines = [trace["id"] or "no image"]
    for row in trace["candidates"]:
        asked = f"{_sought(row)}, result {row['rank'] + 1:,}"
        outcome = row["outcome"] + (f" ({row['detail']})" if row["detail"] else "")
        lines.append(f"  {row['class'] or 'no class'}: {asked}: {outcome}")
        lines += [f"    {row[name]}" for name in ("url", "page_url", "title") if row[name]]
    if not trace["stored"]:
        return [*lines, "  not stored"]
    dedup, distill = _dedup_text(trace["dedup"]), _distill_text(trace)
    return [*lines, f"  dedup: {dedup}", f"  distill: {distill}"]


def _sought(row: dict[str, Any]) -> str:
    """Where a candidate is from; files, lists and sites are asked nothing."""
    return f"“{row['query']}” at {row['engine']}" if row["query"] else str(row["engine"])


def _dedup_text(verdict: dict[str, Any] | None) -> str:
    if verdict is None:
        return "has not seen it"
    said = "kept" if verdict["kept"] else f"dropped, {verdict['reason']}"
    if verdict["duplicate_of"]:
        said += f" of {verdict['duplicate_of']}, {verdict['distance']} bits apart"
    if verdict.get("looks_like"):
        said += f", like {verdict['looks_like']} of another class, {verdict['distance']} bits apart"
    if issues := issues_of(verdict):
        said += f"; issues: {', '.join(issues).replace('_', ' ')}"
    return said


def _distill_text(trace: Trace) -> str:
    use = trace["distill"]
    if use is None:
        dropped = trace["dedup"] is not None and not trace["dedup"]["kept"]
        return "never given it" if dropped else "has not seen it"
    if use["held_out"]:
        return "held out: never trained on"
    return f"selected in {use['selected']:,} of {use['epochs']:,} epochs"
