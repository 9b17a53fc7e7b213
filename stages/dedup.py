"""`pipeline dedup`: which stored images to keep."""

from typing import Annotated

import typer

from stages import paths
from stages.command import Json, Quiet, Set, start


def dedup(
    radius: Annotated[int | None, typer.Option(help="Hamming distance, 0 to 16.")] = None,
    overrides: Set = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Find near-duplicates in data/crawl and keep the best of each group."""
    params, console = start("dedup", overrides, quiet, as_json, radius=radius)
    from pipeline.dedup.hashing import hash_shard
    from pipeline.dedup.verdicts import judge, summarise
    from pipeline.store import row_count, shard_paths, write_json, write_table

    shards = shard_paths(paths.CRAWL)
    hashed = []
    with console.progress("dedup: hashing", sum(map(row_count, shards))) as advance:
        for shard, path in enumerate(shards):
            hashed += hash_shard(path, shard, params.dedup.hash, advance)
    table = judge(hashed, params.dedup.radius)
    write_table(paths.DEDUP, table)
    summary = summarise(table)
    write_json(paths.summary("dedup"), summary)
    console.result(
        f"dedup: {summary['kept']:,} of {summary['images']:,} images kept,"
        f" {summary['near_duplicates']:,} near-duplicates dropped → {paths.DEDUP}",
        summary,
    )
