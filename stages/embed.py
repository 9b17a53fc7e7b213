"""`pipeline embed`: kept images to pixels, features, logits and an index."""

from stages import paths
from stages.command import Json, Quiet, Set, start

INDEX = "index.faiss"


def embed(overrides: Set = None, quiet: Quiet = False, as_json: Json = False) -> None:
    """Run the teacher over the kept images and index them, into data/embed."""
    params, console = start("embed", overrides, quiet, as_json)
    import os
    import shutil

    import numpy as np
    import PIL
    import torch

    from pipeline.device import resolve_device, resolve_precision
    from pipeline.embed.features import ARRAYS, kept_images
    from pipeline.embed.features import embed as embed_images
    from pipeline.embed.index import build_index
    from pipeline.embed.summary import summarise
    from pipeline.models.checkpoint import load_model
    from pipeline.runkey import run_key, sources_of
    from pipeline.store import read_table, remove, replacing, shard_paths, write_json

    section = params.embed
    device = resolve_device(section.device)
    precision = resolve_precision(section.precision, device)
    kept = kept_images(read_table(paths.DEDUP))
    network, config = load_model(paths.TEACHER, device)
    versions = {"torch": torch.__version__, "pillow": PIL.__version__}
    key = run_key(
        section.model_dump(exclude={"workers", "index"})
        | {"device": device.type, "precision": str(precision)}
        | versions,
        inputs=[*shard_paths(paths.CRAWL), paths.DEDUP, paths.TEACHER],
        sources=sources_of(__file__),
    )
    folder = paths.CACHE / "embed" / key
    with console.progress("embed", len(kept)) as advance:
        embed_images(
            kept,
            paths.CRAWL,
            network,
            config,
            folder,
            batch_size=section.batch_size,
            fit=section.fit,
            device=device,
            precision=precision,
            workers=section.workers or os.cpu_count() or 1,
            advance=advance,
        )
    features = np.load(folder / "features.npy", mmap_mode="r")
    index = build_index(features, folder / INDEX, section.index)
    summary = summarise(np.load(folder / "logits.npy", mmap_mode="r"), config.class_names)
    # no times: what is unchanged has to look so in `dvc metrics diff`
    summary["index"] = {"kind": index.kind, "recall_at_10": round(index.recall_at_10, 4)}
    write_json(paths.summary("embed"), summary)
    with replacing(paths.EMBED) as moved:
        moved.mkdir(parents=True)
        for name in (*ARRAYS, "images.parquet", INDEX):
            shutil.move(folder / name, moved / name)
    remove(folder)
    console.note(
        f"passed on {device.type}, {precision}; index {index.kind}: recall@10"
        f" {index.recall_at_10:.3f}, {index.query_ms:.2f} ms a query, built in"
        f" {index.build_seconds:.1f} s"
    )
    console.result(
        f"embed: {summary['images']:,} images, teacher's mean confidence"
        f" {summary['mean_confidence']:.2f} → {paths.EMBED}",
        summary,
    )
