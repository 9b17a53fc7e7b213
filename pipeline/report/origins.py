"""Origins of the stored images: hosts, queries, licences and engines."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from kd3_pipeline.manifest import STORED, host_of, read_manifest, scan_manifest
from kd3_pipeline.report.stored import Images

MOST_ROWS = 20


@dataclass(frozen=True)
class Origin:
    """Images of one origin: stored, and selected at least once."""

    name: str
    stored: int
    selected: int


@dataclass(frozen=True)
class Origins:
    """The most frequent origins of one kind, and what the rest adds up to."""

    kind: str
    kinds: str
    rows: tuple[Origin, ...]
    others: int
    rest: Origin

    @property
    def most(self) -> int:
        """Images of the most frequent origin."""
        return max((row.stored for row in self.rows), default=1)


Names = Callable[[pa.RecordBatch], list[str]]  # of the rows of a manifest, "" for none


def read_origins(manifest: Path, images: Images) -> list[Origins]:
    """Count stored and selected images by the host that served them, query, licence and engine.

    Of images that several addresses brought, the one that was stored speaks.
    """
    kinds: list[tuple[str, str, str, Names]] = [
        ("Host", "hosts", "no address", _hosts),
        ("Query", "queries", "none", lambda rows: rows["query"].to_pylist()),
        ("Licence", "licences", "not stated", lambda rows: rows["licence"].to_pylist()),
        ("Engine", "engines", "not stated", lambda rows: rows["engine"].to_pylist()),
    ]
    stored: list[Counter[str]] = [Counter() for _ in kinds]
    selected: list[Counter[str]] = [Counter() for _ in kinds]
    of_stored = pc.field("outcome") == STORED
    ids = read_manifest(manifest, ["id"], of_stored)["id"]
    chosen = images.table["id"].filter(pa.array(images.times > 0)).combine_chunks()
    among = pc.is_in(ids, value_set=chosen).to_numpy()
    columns, at = ["url", "page_url", "licence", "engine", "query"], 0
    for batch in scan_manifest(manifest, columns, of_stored):
        taken = among[at : at + batch.num_rows]
        at += batch.num_rows
        for number, (_, _, none, names) in enumerate(kinds):
            found = [name or none for name in names(batch)]
            stored[number].update(found)
            selected[number].update(compress(found, taken))
    return [
        _ranked(kind, several, *counts)
        for (kind, several, _, _), *counts in zip(kinds, stored, selected, strict=True)
    ]


def _hosts(rows: pa.RecordBatch) -> list[str]:
    urls, pages = rows["url"].to_pylist(), rows["page_url"].to_pylist()
    return [host_of(url) or host_of(page) for url, page in zip(urls, pages, strict=True)]


def _ranked(kind: str, kinds: str, stored: Counter[str], selected: Counter[str]) -> Origins:
    """The most frequent by name, the rest together."""
    names = sorted(stored, key=lambda name: (-stored[name], name))
    rest = names[MOST_ROWS:]
    return Origins(
        kind,
        kinds,
        tuple(Origin(name, stored[name], selected[name]) for name in names[:MOST_ROWS]),
        len(rest),
        Origin("others", sum(stored[name] for name in rest), sum(selected[name] for name in rest)),
    )
