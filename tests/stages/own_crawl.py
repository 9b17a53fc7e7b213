"""A crawl made of pictures that a test has, without a crawler."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from kd3_pipeline.images import inspect
from kd3_pipeline.manifest import Candidate, Fetched, manifest
from kd3_pipeline.store import StoredImage, write_shards, write_table


def write_crawl(
    folder: Path, pictures: Mapping[str, Sequence[bytes]], engine: str = "bing", title: str = ""
) -> dict[str, list[str]]:
    """Writes data/crawl below `folder`, with encoded pictures by class; their ids by class."""
    stored, found, ids = [], {}, {}
    for label, (name, every) in enumerate(pictures.items()):
        for rank, data in enumerate(every):
            id, info = hashlib.sha256(data).hexdigest(), inspect(data, 1)
            url = f"https://{name}.example/{rank}.jpg"
            candidate = Candidate(label, name, engine, name, rank, url, title=title)
            found[candidate] = Fetched(url, outcome="ok", id=id, format=info.format)
            stored.append(StoredImage(id, data, label, info.width, info.height, info.format))
            ids.setdefault(name, []).append(id)
    write_shards(folder / "data/crawl", stored, list(pictures))
    write_table(folder / "data/crawl/manifest.parquet", manifest(list(found), found))
    return ids
