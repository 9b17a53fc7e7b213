"""Step of `pipeline embed`: the teacher over the kept images, scores, index."""

import math
import os
import shutil

import numpy as np
import PIL
import torch

from pipeline.console import Console
from pipeline.device import resolve_device, resolve_precision
from pipeline.embed.coverage import as_csv, asked_rows, class_rows
from pipeline.embed.features import ARRAYS, kept_images
from pipeline.embed.features import embed as embed_images
from pipeline.embed.index import build_index
from pipeline.embed.scores import add_columns, score
from pipeline.embed.summary import read_logits, summarise
from pipeline.models.checkpoint import load_model
from pipeline.params import Embed
from pipeline.runkey import run_key, sources_of
from pipeline.store import read_table, remove, replacing, shard_paths, write_json, write_text
from pipeline.teacher.normalisation import check_normalisation, sample
from stages import paths

INDEX = "index.faiss"
SCORES = ("off_topic", "redundant", "coverage", "shift")
BY_CLASS = (
    *("class", "asked", "predicted", "coverage"),
    *("off_topic", "redundant_cosine", "weight_cosine"),
)
CELLS = ("asked", "predicted", "images", "share")


def run(section: Embed, console: Console) -> None:
    """Writes data/embed."""
    device = resolve_device(section.device)
    precision = resolve_precision(section.precision, device)
    kept = kept_images(read_table(paths.DEDUP))
    network, config = load_model(paths.TEACHER, device)
    key = run_key(
        section.model_dump(exclude={"workers", "index", *SCORES})
        | {"device": device.type, "precision": str(precision)}
        | {"torch": torch.__version__, "pillow": PIL.__version__},
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
    seen = read_logits(np.load(folder / "logits.npy", mmap_mode="r"))
    chosen = {name: getattr(section, name) for name in SCORES}
    passes = section.off_topic + bool(section.redundant) + section.shift
    with console.progress("embed: scores", passes * len(kept)) as advance:
        scores = score(features, seen, network, **chosen, advance=advance)
    with console.progress("embed: normalisation and index", 2) as advance:
        some = np.load(folder / "pixels.npy", mmap_mode="r")[sample(len(kept))]
        sanity = check_normalisation(network, config, some)
        advance()
        index = build_index(features, folder / INDEX, section.index)
        advance()
    summary = summarise(seen) | scores.figures
    if section.shift:
        off = sanity.rows[0].divergence
        summary["shift"]["batch_norms"] = round(off, 4) if math.isfinite(off) else None
    # no times: what is unchanged has to look so in `dvc metrics diff`
    summary["index"] = {"kind": index.kind, "recall_at_10": round(index.recall_at_10, 4)}
    labels = add_columns(folder / "images.parquet", scores.images)["label"].to_numpy()
    manifest = read_table(paths.MANIFEST, ["label", "class"])
    asked = dict(zip(*(manifest[name].to_pylist() for name in ("label", "class")), strict=True))
    about = (seen, labels, asked, config.class_names)
    cells = asked_rows(*about) if section.coverage else []
    write_text(paths.COVERAGE, as_csv(cells, CELLS))
    write_text(paths.CLASSES, as_csv(class_rows(*about, scores.classes), BY_CLASS))
    write_json(paths.summary("embed"), summary)
    with replacing(paths.EMBED) as moved:
        moved.mkdir(parents=True)
        for name in (*ARRAYS, "images.parquet", INDEX):
            shutil.move(folder / name, moved / name)
    remove(folder)
    if sanity.warning:
        console.note(sanity.warning)
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
