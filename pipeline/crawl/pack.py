"""The end of a crawl: downloads become shards and a manifest."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.crawl.candidates import Candidate, Fetched, manifest
from pipeline.crawl.journal import Journal
from pipeline.errors import WorldError
from pipeline.store import StoredImage, write_shards, write_table


def pack(
    folder: Path,
    candidates: Sequence[Candidate],
    found: Mapping[Candidate, Fetched],
    journal: Journal,
    class_names: Sequence[str],
) -> dict[str, Any]:
    """Writes `images-*.parquet` and `manifest.parquet`, and returns the counts.

    An image that several candidates brought is stored once, with the label of the first.

    Raises:
        WorldError: no candidate gave an image.
    """
    table = manifest(candidates, found)
    outcomes = Counter(table["outcome"].to_pylist())
    if not outcomes["stored"]:
        reasons = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common(4))
        raise WorldError(f"none of {len(candidates):,} candidates gave an image ({reasons})")
    write_shards(folder, _stored(candidates, found, journal), class_names)
    write_table(folder / "manifest.parquet", table)
    by_class = Counter(
        name
        for name, outcome in zip(
            table["class"].to_pylist(), table["outcome"].to_pylist(), strict=True
        )
        if outcome == "stored" and name
    )
    return {
        "candidates": len(candidates),
        "stored": outcomes["stored"],
        "outcomes": dict(sorted(outcomes.items())),
        "classes": [{"name": name, "stored": by_class[name]} for name in class_names],
    }


def _stored(
    candidates: Sequence[Candidate], found: Mapping[Candidate, Fetched], journal: Journal
) -> Iterator[StoredImage]:
    seen: set[str] = set()
    for candidate in candidates:
        image = found.get(candidate)
        if image is None or image.id is None or image.id in seen:
            continue
        seen.add(image.id)
        data = journal.path(image.id).read_bytes()
        yield StoredImage(image.id, data, candidate.label, image.width, image.height, image.format)
