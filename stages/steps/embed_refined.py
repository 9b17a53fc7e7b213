"""Refined images of `pipeline embed`: time and room told, their making, their figures."""

from typing import Any

import numpy as np
import torch

from kd3_pipeline.console import Console
from kd3_pipeline.embed.refine import (
    Refined,
    Remembering,
    measured,
    refine,
    seconds_needed,
    surest,
)
from kd3_pipeline.embeddings import REFINED_FILES, REFINED_LOGITS, SUREST, WAS_REFINED, Embeddings
from kd3_pipeline.models.checkpoint import ModelConfig
from kd3_pipeline.models.network import Network
from kd3_pipeline.models.norms import norms_to_match, refuse_misfed
from kd3_pipeline.params import Embed
from kd3_pipeline.pixelstore import Pixels, Taken
from kd3_pipeline.store import remove
from kd3_pipeline.teacher.normalisation import NormalisationCheck

MEASURED = 2000  # images at most that are refined to measure agreement on: within a point of all


def refine_images(
    section: Embed,
    embeddings: Embeddings,
    network: Network,
    config: ModelConfig,
    device: torch.device,
    precision: torch.dtype,
    check: NormalisationCheck,
    console: Console,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Leaves the refined images beside those of `embeddings`, and returns their figures.

    Returns:
        Also the columns that say which images these are, bool [N]; none where all are.

    Raises:
        UserError: the teacher has no moments to give, or is fed wrongly by what `check` says.
    """
    refuse_misfed(check.verdict, check.text, "embed.refine")
    norms = norms_to_match(network, config.input_size, "embed.refine")
    teacher = Remembering(network, norms, config.input_size, device, precision)
    columns = _chosen(section, embeddings)
    places = _places(embeddings, columns)
    pixels: Pixels = embeddings.place_pixels
    pixels = Taken(pixels, places) if columns else pixels
    crops = " and crops" if embeddings.crops > 1 else ""
    total, size = len(pixels), int(np.prod(pixels.shape))
    seconds = seconds_needed(pixels, teacher, config, section)
    console.say(
        f"embed.refine: {section.refine} steps on {total:,} images{crops} take about"
        f" {_duration(seconds)}, and what they leave {size / 1e6:,.0f} MB"
    )
    # of other settings an interrupted one is not gone on with
    settings = [section.refine, section.refine_rate, section.refine_keep, section.refine_batch]
    settings += [section.refine_images] if columns else []
    folder = embeddings.folder / f"refine-{'-'.join(map(str, settings))}"
    with console.progress("embed: refined images", total) as advance:
        done = refine(pixels, teacher, config, folder, section, advance)
    for name in REFINED_FILES:
        (folder / name).replace(embeddings.folder / name)
    remove(folder)
    after = np.load(embeddings.folder / REFINED_LOGITS, mmap_mode="r")
    answers = embeddings.place_logits[places] if columns else embeddings.place_logits
    figures = _figures(section, answers, after, done)
    if columns:
        figures["images"] = int(columns[SUREST].sum())
        console.note(
            f"refined of {len(embeddings):,} images: {figures['images']:,} to train on, those of"
            f" each class that the teacher is surest of, and {len(places) // embeddings.crops:,}"
            " with those that agreement is measured on"
        )
    console.note(
        f"refined by {section.refine} steps: distance from the teacher's remembered moments"
        f" {figures['before']:.3f} → {figures['after']:.3f}, pixels moved by {figures['moved']:.3f}"
        f" deviations, {figures['same_class']:.1%} of the images with the same answer; distill"
        " trains on them (distill.refined)"
    )
    return figures, columns


def _chosen(section: Embed, embeddings: Embeddings) -> dict[str, np.ndarray]:
    """The columns of `refine_images`; none where all images are refined."""
    total = len(embeddings)
    if not 0 < section.refine_images < total:
        return {}
    columns = {name: np.zeros(total, bool) for name in (WAS_REFINED, SUREST)}
    columns[SUREST][surest(embeddings.logits, section.refine_images)] = True
    columns[WAS_REFINED][:] = columns[SUREST]
    columns[WAS_REFINED][measured(embeddings.ids, MEASURED)] = True
    return columns


def _places(embeddings: Embeddings, columns: dict[str, np.ndarray]) -> np.ndarray:
    """Places of what is refined, int64: whole images first, then crop by crop."""
    total = len(embeddings)
    rows = np.flatnonzero(columns[WAS_REFINED]) if columns else np.arange(total)
    return (np.arange(embeddings.crops)[:, None] * total + rows).reshape(-1)


def _figures(
    section: Embed, answers: np.ndarray, answers_after: np.ndarray, done: Refined
) -> dict[str, Any]:
    before, after = (np.asarray(one.argmax(axis=1)) for one in (answers, answers_after))
    return {
        "steps": section.refine,
        "before": round(float(np.mean(done.before)), 4),
        "after": round(float(np.mean(done.after)), 4),
        "moved": round(done.moved, 4),
        "same_class": round(float((before == after).mean()), 4),
        "layers": [
            {"name": name, "before": round(one, 4), "after": round(other, 4)}
            for name, one, other in zip(done.layers, done.before, done.after, strict=True)
        ],
    }


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} minutes"
