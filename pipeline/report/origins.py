"""Origins of the stored images: hosts, queries, licences and engines."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kd3_pipeline.manifest import STORED, host_of, scan_manifest
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


Name = Callable[[dict[str, Any]], str]  # of a row of the manifest


def read_origins(manifest: Path, images: Images) -> list[Origins]:
    """Count stored and selected images by the host that served them, query, licence and engine.

    Of images that several addresses brought, the one that was stored speaks.
    """
    kinds: list[tuple[str, str, str, Name]] = [
        ("Host", "hosts", "no address", _host),
        ("Query", "queries", "none", lambda row: row["query"]),
        ("Licence", "licences", "not stated", lambda row: row["licence"]),
        ("Engine", "engines", "not stated", lambda row: row["engine"]),
    ]
    stored: list[Counter[str]] = [Counter() for _ in kinds]
    selected: list[Counter[str]] = [Counter() for _ in kinds]
    chosen = set(images.table.filter(pa.array(images.times > 0))["id"].to_pylist())
    columns = ["id", "url", "page_url", "licence", "engine", "query"]
    for batch in scan_manifest(manifest, columns, pc.field("outcome") == STORED):
        for row in batch.to_pylist():
            for number, (_, _, none, name) in enumerate(kinds):
                stored[number][name(row) or none] += 1
                selected[number][name(row) or none] += row["id"] in chosen
    return [
        _ranked(kind, several, *counts)
        for (kind, several, _, _), *counts in zip(kinds, stored, selected, strict=True)
    ]


def _host(row: dict[str, Any]) -> str:
    return host_of(row["url"]) or host_of(row["page_url"])


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
