"""A collection of images that is already here, in place of a search engine."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from kd3_pipeline.console import Advance, no_progress
from kd3_pipeline.crawl.blocklist import NOTHING_BLOCKED, Blocklist
from kd3_pipeline.crawl.journal import Journal
from kd3_pipeline.errors import ExternalError
from kd3_pipeline.formats import HEAD, picture_kind, readable
from kd3_pipeline.images import inspect
from kd3_pipeline.imagesource.entries import UNSUPPORTED, Entry
from kd3_pipeline.imagesource.matching import Matcher
from kd3_pipeline.imagesource.source import open_source
from kd3_pipeline.imagesource.table import NO_COLUMNS
from kd3_pipeline.manifest import BLOCKED, OPTED_OUT, Candidate, Fetched
from kd3_pipeline.picturefile import ImageError


def read_collection(
    path: Path,
    sample: int,
    seed: int,
    max_bytes: int,
    matcher: Matcher,
    lines: list[str],
    advance: Advance = no_progress,
    columns: Mapping[str, str] = NO_COLUMNS,
) -> Iterator[tuple[Candidate, Entry]]:
    """Candidates of `path` in order, or a `sample` of them drawn by `seed` (0 takes all).

    Args:
        path: a folder, an archive or a Parquet file; see docs/files.md for what may be in it.
        max_bytes: larger images are not read, and have their entry still.
        columns: of Parquet files by their role, as `open_source` takes them.
        lines: gets what a person should know, by the time the last candidate is given.

    Raises:
        UserError: no such source, of another kind, or it cannot be read.
        ExternalError: it holds no images.
    """
    source = open_source(path, max_bytes, "crawl.source", advance, columns)
    rows = source.drawn(sample, seed)
    if not rows:
        held = "; ".join(source.left.lines())
        raise ExternalError(f"crawl.source: no images in {path}" + (f" ({held})" if held else ""))
    for rank, entry in enumerate(source.read(rows)):
        label, name = matcher.label(entry)
        facts = entry.facts
        texts = {"title": facts.title, "licence": facts.licence, "creator": facts.creator}
        texts["licence_url"] = facts.licence_url
        yield Candidate(label, name, "files", "", rank, entry.name, **texts), entry
    lines += source.lines("crawl.columns")
    if len(rows) < len(source):
        lines.append(f"{path}: {len(rows):,} of {len(source):,} drawn (crawl.sample)")
    lines += [f"{path}: {line}" for line in matcher.lines()]


def collect(
    entries: Iterator[tuple[Candidate, Entry]],
    min_side: int,
    journal: Journal,
    advance: Advance,
    *,
    keep_damaged: bool = False,
    blocklist: Blocklist = NOTHING_BLOCKED,
) -> dict[Candidate, Fetched]:
    """Checks every image of a collection as if it came from the web, and keeps the good ones.

    What `blocklist` refuses, or was dropped before, is not kept.
    """
    found = {}
    for candidate, entry in entries:
        rule = blocklist.host(entry.facts.url)
        if rule:
            found[candidate] = Fetched(entry.name, BLOCKED, rule, final_url=entry.facts.url)
        else:
            found[candidate] = _checked(entry, min_side, journal, keep_damaged, blocklist)
        advance(1)
    return found


def _checked(
    entry: Entry, min_side: int, journal: Journal, keep_damaged: bool, blocklist: Blocklist
) -> Fetched:
    url, data = entry.facts.url, entry.data
    if entry.outcome:
        return Fetched(entry.name, entry.outcome, entry.detail, size=entry.size, final_url=url)
    kind = picture_kind(data[:HEAD])
    if kind and kind not in readable():
        detail = f"{kind} is not read here: convert it, to PNG or JPEG"
        return Fetched(entry.name, UNSUPPORTED, detail, size=len(data), final_url=url)
    try:
        info = inspect(data, min_side, readable(), keep_damaged=keep_damaged)
    except ImageError as error:
        return Fetched(
            entry.name,
            error.outcome,
            str(error),
            final_url=url,
            size=len(data),
            width=error.width,
            height=error.height,
        )
    refused = blocklist.image(data) or _dropped(entry.name, data, journal)
    if refused:
        return Fetched(entry.name, *refused, final_url=url)
    return Fetched(
        entry.name,
        "ok",
        id=journal.keep(data),
        width=info.width,
        height=info.height,
        format=info.format,
        size=len(data),
        has_gps=info.has_gps,
        detail=info.detail,
        final_url=url,
    )


def _dropped(name: str, data: bytes, journal: Journal) -> tuple[str, str] | None:
    """Outcome and detail of a file that has been dropped since; another one may have its name."""
    record = journal.records.get(name)
    if record is None or record.outcome != OPTED_OUT:
        return None
    id = hashlib.sha256(data).hexdigest()
    return (record.outcome, record.detail) if id in record.detail else None
