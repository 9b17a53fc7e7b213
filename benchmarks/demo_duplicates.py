"""Near-duplicates by hash alone, at several radii, against the copies that the demo planted.

dvc repro dedup && python -m benchmarks.demo_duplicates
"""

from collections import Counter
from pathlib import Path

import numpy as np

from pipeline.dedup.near import group_near
from pipeline.demo.world import WebImage, plan
from pipeline.paramfile import read_params
from pipeline.store import read_table
from stages.engines import DEMO_SURPLUS

RADII = (0, 2, 4, 6, 8, 10)


def main() -> None:
    crawl = read_params(Path("params.yaml")).crawl
    results = round(DEMO_SURPLUS * crawl.per_class)
    manifest = read_table(Path("data/crawl/manifest.parquet"), ["label", "rank", "id"]).to_pylist()
    plans: dict[int, tuple[WebImage, ...]] = {}
    source: dict[str, tuple[int, int]] = {}  # id -> class and rank of the first of its copies
    for row in manifest:
        if row["id"] is not None:
            label = row["label"]
            images = plans.setdefault(label, plan(label, results, crawl.seed))
            source.setdefault(row["id"], (label, original(images, row["rank"])))
    table = read_table(Path("data/dedup/images.parquet"), ["id", "hash", "width", "height"])
    ids = table["id"].to_pylist()
    areas = (table["width"].to_numpy() * table["height"].to_numpy()).tolist()
    planted = sum(count - 1 for count in Counter(source[name] for name in ids).values())
    print(f"{len(ids):,} stored images, {planted} of them copies that were planted")
    print("| radius | dropped | of them planted | precision | recall |")
    print("|---|---|---|---|---|")
    for radius in RADII:
        grouping = group_near(table["hash"].to_numpy(), radius, areas, [0] * len(ids), ids)
        dropped = np.flatnonzero(grouping.representative != np.arange(len(ids)))
        right = sum(source[ids[i]] == source[ids[grouping.representative[i]]] for i in dropped)
        precision = right / max(len(dropped), 1)
        print(f"| {radius} | {len(dropped)} | {right} | {precision:.3f} | {right / planted:.3f} |")


def original(images: tuple[WebImage, ...], rank: int) -> int:
    """The rank of the image that the one at `rank` is a copy of, perhaps through others."""
    while (copied := images[rank].copy_of) is not None:
        rank = copied
    return rank


if __name__ == "__main__":
    main()
