"""Cache of what a search of caption tables found, because reading them takes long."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kd3_pipeline.classes import ImageClass
from kd3_pipeline.console import Advance
from kd3_pipeline.crawl.captions.found import Found
from kd3_pipeline.crawl.captions.matching import CaptionMatcher
from kd3_pipeline.crawl.captions.ranking import SCHEMA
from kd3_pipeline.crawl.captions.search import SURPLUS, search_captions
from kd3_pipeline.crawl.captions.tables import Remarks, table_paths
from kd3_pipeline.params import Crawl
from kd3_pipeline.store import remove, write_table

RULES = 1  # goes up when the same tables and parameters give other rows
ABOUT = b"search"  # key of the schema's metadata
READ_BY_SEARCH = ("per_class", "min_side", "unsafe", "licence", "expand")


def search_once(
    section: Crawl, classes: Sequence[ImageClass], folder: Path, again: bool, advance: Advance
) -> Found:
    """As `search_captions`; while tables and parameters stay, they are read the first time only.

    Args:
        folder: where the last search is kept.
        again: read the tables whatever is kept.
    """
    path = folder / f"{_key(section, classes)}.parquet"
    if not again and (found := _read(path, section, classes)):
        return found
    found = search_captions(section, classes, advance)
    for earlier in folder.glob("*.parquet"):
        remove(earlier)
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "by_query": found.by_query,
        "left_out": found.left_out,
        "several": found.several,
        "remarks": vars(found.remarks),
    }
    write_table(path, found.best.replace_schema_metadata({ABOUT: json.dumps(about)}))
    return found


def _key(section: Crawl, classes: Sequence[ImageClass]) -> str:
    """Names what a search depends on; a table is the same while its size and time are."""
    files = [
        (str(path.absolute()), path.stat().st_size, path.stat().st_mtime_ns)
        for path in table_paths(section.source)
    ]
    params = section.model_dump(include=set(READ_BY_SEARCH))
    asked = [(one.name, one.queries, one.synonyms) for one in classes]
    text = json.dumps([RULES, SURPLUS, files, params, asked], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _read(path: Path, section: Crawl, classes: Sequence[ImageClass]) -> Found | None:
    """The search that is kept here; None if there is none, or none that can be read."""
    try:
        best = pq.read_table(path)
        about = json.loads(best.schema.metadata[ABOUT])
        best = best.replace_schema_metadata().cast(SCHEMA)
    except (OSError, pa.ArrowException, TypeError, KeyError, ValueError):
        return None
    matcher, by_query = CaptionMatcher(classes, section.expand != "none"), about["by_query"]
    matched = np.bincount(matcher.labels, by_query, len(classes)).astype(int).tolist()
    remarks = Remarks(**about["remarks"])
    remarks.malformed = Counter(remarks.malformed)
    return Found(
        *(section, SURPLUS * section.per_class, classes, matcher, matched, by_query),
        *(Counter(about["left_out"]), about["several"], best, remarks),
    )
