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
from kd3_pipeline.embed.batches import KeptImage, Reading
from kd3_pipeline.embed.coverage import asked_rows, cells, class_rows, warnings
from kd3_pipeline.embed.features import embed, kept_images, reading
from kd3_pipeline.embed.index import IndexReport, build_index
from kd3_pipeline.embed.moments import MomentPass, MomentWeights, moment_weights, passes
from kd3_pipeline.embed.passing import TeacherPass
from kd3_pipeline.embed.predictions import Predictions, read_logits, summarise
from kd3_pipeline.embed.scores import Scores, score
from kd3_pipeline.embed.storeloss import looked_at, store_bytes, store_loss
from kd3_pipeline.embeddings import FILES, MOMENT_WEIGHT, REFINED_FILES, STORES, Embeddings
from kd3_pipeline.engine import Engine
from kd3_pipeline.memory import allowed
from kd3_pipeline.models.checkpoint import ModelConfig, load_model
from kd3_pipeline.models.network import Network
from kd3_pipeline.models.norms import norms_to_match, refuse_misfed
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
from kd3_stages.steps.embed_crops import crop_files, plan_crops, tell_crops
from kd3_stages.steps.embed_refined import refine_images

REFINING = ("refine", "refine_images", "refine_rate", "refine_keep", "refine_batch")
SCORES = ("off_topic", "redundant", "coverage", "shift", "moments")
BY_CLASS = (
    *("class", "asked", "predicted", "coverage"),
    *("off_topic", "redundant_cosine", "weight_cosine"),
)
Seen = tuple[Predictions, np.ndarray, dict[int, str], list[str]]  # with labels and names
BY_CELL = ("asked", "predicted", "images", "share")


def run(section: Embed, console: Console, engine: Engine) -> None:
    """Writes data/embed."""
    device = resolve_device(section.device)
    precision = resolve_precision(section.precision, device)
    kept = kept_images(read_verdicts(paths.DEDUP))
    network, config = load_model(paths.TEACHER, device)
    for given in ("moments", "refine"):  # refused before hours of work
        if getattr(section, given):
            norms_to_match(network, config.input_size, f"embed.{given}")
    load = reading(section, config)
    if section.crops > 1:
        plan_crops(section, kept, load, console)
    folder = _unfinished(section, device, precision)
    if anew := begins_anew(folder):
        console.note(anew)
    with console.progress("embed", len(kept)) as advance:
        about = (kept, paths.CRAWL, network, config, folder, section, device, precision)
        if told := embed(*about, engine, advance):
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
    more: dict[str, Any] = {}  # figures of what is off by default
    if section.store == "jpeg":
        teacher = TeacherPass(network, config, device, precision)
        more["store"] = _store_loss(section, kept, teacher, embeddings, load, console)
    if section.crops > 1:
        more["crops"] = tell_crops(section, embeddings, console)
    if section.moments:
        weighed = _weigh(section, network, config, precision, embeddings, check, folder, console)
        scores.images[MOMENT_WEIGHT] = weighed.weights
        scores.figures["moments"] = weighed.figures
    if section.refine:
        of = (network, config, device, precision, check)
        more["refine"], columns = refine_images(section, embeddings, *of, console)
        scores.images.update(columns)
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
    summary |= more
    _leave(section, folder, summary)
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


def _store_loss(
    section: Embed,
    kept: Sequence[KeptImage],
    teacher: TeacherPass,
    embeddings: Embeddings,
    load: Reading,
    console: Console,
) -> dict[str, Any]:
    """What the store of JPEGs changes for the teacher, told and returned."""
    with console.progress("embed: loss of the store", len(looked_at(len(kept)))) as advance:
        size = store_bytes(embeddings.folder)
        about = (kept, paths.CRAWL, load, teacher, embeddings.logits, size)
        lost = store_loss(*about, advance)
    console.note(
        f"stored as JPEG of quality {section.jpeg_quality}, {lost.bytes_an_image:,} bytes an"
        f" image: in {lost.same_class:.1%} of {lost.images} images the teacher sees the same"
        " class as before"
    )
    return asdict(lost)


def _weigh(
    section: Embed,
    network: Network,
    config: ModelConfig,
    precision: torch.dtype,
    embeddings: Embeddings,
    check: NormalisationCheck,
    folder: Path,
    console: Console,
) -> MomentWeights:
    """Weighs the images by the teacher's remembered moments, and says what that does."""
    refuse_misfed(check.verdict, check.text, "embed.moments")
    norms = norms_to_match(network, config.input_size, "embed.moments")
    pixels = embeddings.centre(config.input_size)
    passed = MomentPass(network, config, precision, norms)
    with console.progress("embed: moments", passes(len(pixels))) as advance:
        found = moment_weights(passed, pixels, folder / "moments", section.batch_size, advance)
    figures = found.figures
    console.note(
        f"moments at {len(norms)} batch norms, in deviations of an image: off by"
        f" {figures['error_before']:.3f}, weighed by {figures['error_after']:.3f}; the weights are"
        f" worth {figures['effective']:,} of {len(pixels):,} images"
    )
    if found.held:
        console.note(
            f"the moment weights would rest on fewer than {figures['effective']:,} images, which"
            " costs a student more than nearer moments bring: they are held there"
            " (embed.refine brings the images themselves nearer)"
        )
    return found


def _leave(section: Embed, folder: Path, summary: dict[str, Any]) -> None:
    """Writes the summary, and puts what a finished pass left in `folder` in its place."""
    refined = REFINED_FILES if section.refine else ()
    write_json(paths.summary("embed"), summary)
    with replacing(paths.EMBED) as moved:
        moved.mkdir(parents=True)
        for name in (*STORES[section.store], *FILES, *crop_files(section), *refined):
            shutil.move(folder / name, moved / name)
    remove(folder)


def _unfinished(section: Embed, device: torch.device, precision: torch.dtype) -> Path:
    """The folder in which an interrupted pass goes on."""
    key = run_key(
        section.model_dump(exclude={"index", *SCORES, *REFINING})
        | {"device": device.type, "precision": str(precision)}
        | {"torch": torch.__version__, "pillow": PIL.__version__, "memory": allowed()},
        inputs=[*shard_paths(paths.CRAWL), paths.DEDUP, paths.TEACHER],
        sources=sources_of(__file__),
    )
    return paths.CACHE / "embed" / key


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
