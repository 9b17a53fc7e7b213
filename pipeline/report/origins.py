"""Where the stored images come from: hosts, queries, licences and engines."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow.dataset as ds

from pipeline.report.inputs import read_columns
from pipeline.report.stored import Images

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


def host_of(url: str | None) -> str:
    """The host of an address, '' where it has none."""
    try:
        return urlsplit(url or "").hostname or ""
    except ValueError:
        return ""


def read_origins(manifest: Path, images: Images) -> list[Origins]:
    """Count stored and selected images by the host that served them, query, licence and engine.

    Of images that several addresses brought, the one that was stored speaks.
    """
    columns = ["id", "url", "page_url", "licence", "engine", "query"]
    rows = read_columns(manifest, "crawl", columns, ds.field("outcome") == "stored").to_pylist()
    ids = images.table.column("id").to_pylist()
    selected = {id for id, times in zip(ids, images.times.tolist(), strict=True) if times > 0}
    return [
        _counted("Host", "hosts", rows, selected, "no address", _host),
        _counted("Query", "queries", rows, selected, "none", lambda row: row["query"]),
        _counted("Licence", "licences", rows, selected, "not stated", lambda row: row["licence"]),
        _counted("Engine", "engines", rows, selected, "not stated", lambda row: row["engine"]),
    ]


def _host(row: dict) -> str:
    return host_of(row["url"]) or host_of(row["page_url"])


def _counted(kind: str, kinds: str, rows: list[dict], selected: set, none: str, name) -> Origins:
    stored: Counter[str] = Counter()
    chosen: Counter[str] = Counter()
    for row in rows:
        of = name(row) or none
        stored[of] += 1
        chosen[of] += row["id"] in selected
    ranked = sorted(stored, key=lambda of: (-stored[of], of))
    rest = ranked[MOST_ROWS:]
    return Origins(
        kind,
        kinds,
        tuple(Origin(of, stored[of], chosen[of]) for of in ranked[:MOST_ROWS]),
        len(rest),
        Origin("others", sum(stored[of] for of in rest), sum(chosen[of] for of in rest)),
    )
