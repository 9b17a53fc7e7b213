"""Step of `pipeline embed`: the teacher over the kept images, scores, index."""

import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch

from kd3_pipeline import manifest
from kd3_pipeline.console import Console
from kd3_pipeline.device import resolve_device, resolve_precision
from kd3_pipeline.embed.batches import Reading
from kd3_pipeline.embed.coverage import asked_rows, cells, class_rows, warnings
from kd3_pipeline.embed.cropfigures import CropFigures, crop_figures, cropped, least_side
from kd3_pipeline.embed.features import embed, kept_images, reading
from kd3_pipeline.embed.index import IndexReport, build_index
from kd3_pipeline.embed.passing import TeacherPass
from kd3_pipeline.embed.predictions import Predictions, read_logits, summarise
from kd3_pipeline.embed.scores import Scores, score
from kd3_pipeline.embed.storeloss import looked_at, store_bytes, store_loss
from kd3_pipeline.embeddings import CROP_FILES, CROP_STORES, FILES, STORES, Embeddings
from kd3_pipeline.memory import allowed
from kd3_pipeline.models.checkpoint import load_model
from kd3_pipeline.models.network import Network
from kd3_pipeline.params import Embed
from kd3_pipeline.runkey import begins_anew, run_key, sources_of
from kd3_pipeline.store import remove, replacing, shard_paths, write_csv, write_json
from kd3_pipeline.teacher.normalisation import (
    NormalisationCheck,
    check_normalisation,
    sample,
    spread,
)
from kd3_pipeline.verdicts import read_verdicts
from kd3_stages import paths

SCORES = ("off_topic", "redundant", "coverage", "shift")
BY_CLASS = (
    *("class", "asked", "predicted", "coverage"),
    *("off_topic", "redundant_cosine", "weight_cosine"),
)
Seen = tuple[Predictions, np.ndarray, dict[int, str], list[str]]  # with labels and names
BY_CELL = ("asked", "predicted", "images", "share")


def run(section: Embed, console: Console) -> None:
    """Writes data/embed."""
    device = resolve_device(section.device)
    precision = resolve_precision(section.precision, device)
    kept = kept_images(read_verdicts(paths.DEDUP))
    network, config = load_model(paths.TEACHER, device)
    load = reading(section, config)
    if section.crops > 1:
        console.note(_planned(section, cropped(kept, paths.CRAWL, load.stored), len(kept), load))
    folder = _unfinished(section, device, precision)
    if anew := begins_anew(folder):
        console.note(anew)
    with console.progress("embed", len(kept)) as advance:
        about = (kept, paths.CRAWL, network, config, folder, section, device, precision)
        if told := embed(*about, advance):
            console.note(told)
    embeddings = Embeddings.open(folder)
    predictions = read_logits(embeddings.logits)
    passes = section.off_topic + bool(section.redundant) + section.shift
    with console.progress("embed: scores", passes * len(kept)) as advance:
        scores = score(embeddings.features, predictions, network, section, advance)
    with console.progress("embed: normalisation and index", 2) as advance:
        shown = embeddings.centre(config.input_size)[spread(len(kept))]
        whole = len(sample(len(kept)))
        check = check_normalisation(network, config, np.array(shown), whole)
        advance()
        index = build_index(embeddings.features, embeddings.index, section.index)
        advance()
    lost = None
    if section.store == "jpeg":
        teacher = TeacherPass(network, config, device, precision)
        with console.progress("embed: loss of the store", len(looked_at(len(kept)))) as advance:
            size = store_bytes(folder)
            lost = store_loss(kept, paths.CRAWL, load, teacher, embeddings.logits, size, advance)
    embeddings.add_scores(scores.images)
    asked = manifest.class_names(paths.MANIFEST)
    seen = (predictions, embeddings.labels, asked, config.class_names)
    _write_tables(section, seen, scores)
    summary = _summary(section, predictions, scores, check, index)
    doubts = warnings(*seen) if section.coverage else None
    summary["cut"] = network.cut
    summary["features"] = str(embeddings.features.dtype)
    if doubts is not None:
        summary["warnings"] = doubts
    if lost:
        summary["store"] = asdict(lost)
        console.note(
            f"stored as JPEG of quality {section.jpeg_quality}, {lost.bytes_an_image:,} bytes an"
            f" image: in {lost.same_class:.1%} of {lost.images} images the teacher sees the same"
            " class as before"
        )
    crops = (*CROP_STORES[section.store], *CROP_FILES) if section.crops > 1 else ()
    if crops:
        figures = crop_figures(embeddings, crops)
        summary["crops"] = asdict(figures)
        console.note(_crops(figures))
    write_json(paths.summary("embed"), summary)
    with replacing(paths.EMBED) as moved:
        moved.mkdir(parents=True)
        for name in (*STORES[section.store], *FILES, *crops):
            shutil.move(folder / name, moved / name)
    remove(folder)
    _tell(network, summary, doubts or (), check, console)
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


def _tell(
    network: Network,
    summary: dict[str, Any],
    doubts: Sequence[str],
    check: NormalisationCheck,
    console: Console,
) -> None:
    """Says what is unusual about the teacher or the images."""
    if summary["features"] != "float16":
        console.note(
            "float16 (0.00006 to 65,504) does not hold the teacher's features: they are stored as"
            " float32, in twice the space"
        )
    if network.cut == "logits":
        console.note(
            "of the teacher only logits are seen: they are the features of the index, the scores"
            " and the neighbours"
        )
    for line in doubts:
        console.warn(line)
    if check.verdict != "fits":
        hint = "" if check.better else "; `pipeline teacher --check` looks closer"
        console.note(f"{check.text}{hint}")


def _unfinished(section: Embed, device: torch.device, precision: torch.dtype) -> Path:
    """The folder in which an interrupted pass goes on."""
    key = run_key(
        section.model_dump(exclude={"workers", "index", *SCORES})
        | {"device": device.type, "precision": str(precision)}
        | {"torch": torch.__version__, "pillow": PIL.__version__, "memory": allowed()},
        inputs=[*shard_paths(paths.CRAWL), paths.DEDUP, paths.TEACHER],
        sources=sources_of(__file__),
    )
    return paths.CACHE / "embed" / key


def _planned(section: Embed, images: int, total: int, load: Reading) -> str:
    """What crops will cost, before the pass."""
    each, which = 3 * load.stored**2, "as pixels" if section.store == "raw" else "before JPEG"
    return (
        f"crops: {images:,} of {total:,} images have a shorter side of {least_side(load.stored)}"
        f" pixels or more; the teacher sees up to {load.views} views of each, and {section.crops}"
        f" of every image are kept: {total * each * section.crops / 1e9:.2g} GB {which} in place"
        f" of {total * each / 1e9:.2g}"
    )


def _crops(found: CropFigures) -> str:
    """What crops have brought."""
    return (
        f"crops: in {found.crops:,} of {found.images:,} images the teacher sees what it sees in the"
        f" whole; its mean confidence in them is {found.crop_confidence:.2f}, in the whole images"
        f" {found.whole_confidence:.2f}; {found.bytes / 1e9:.2g} GB"
    )


def _write_tables(section: Embed, seen: Seen, scores: Scores) -> None:
    """Writes the matrix of classes asked for and predicted, and the scores by class."""
    by_cell = asked_rows(*seen) if section.coverage else []
    by_class = class_rows(*seen, scores.classes)
    write_csv(paths.COVERAGE, BY_CELL, cells(by_cell, BY_CELL))
    write_csv(paths.CLASSES, BY_CLASS, cells(by_class, BY_CLASS))


def _summary(
    section: Embed,
    predictions: Predictions,
    scores: Scores,
    check: NormalisationCheck,
    index: IndexReport,
) -> dict[str, Any]:
    summary = summarise(predictions) | scores.figures
    if section.shift:
        divergence = check.divergence
        summary["shift"]["batch_norms"] = (
            round(divergence, 4) if math.isfinite(divergence) else None
        )
    summary["normalisation"] = check.verdict
    # no times: what is unchanged has to look so in `dvc metrics diff`
    summary["index"] = {"kind": index.kind, "recall_at_10": round(index.recall_at_10, 4)}
    return summary
