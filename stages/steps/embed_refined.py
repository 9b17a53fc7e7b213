"""Refined images of `pipeline embed`: time and room told, their making, their figures."""

from typing import Any

import numpy as np
import torch

from kd3_pipeline.console import Console
from kd3_pipeline.embed.refine import Refined, Remembering, refine, seconds_needed
from kd3_pipeline.embeddings import REFINED_FILES, Embeddings
from kd3_pipeline.models.checkpoint import ModelConfig
from kd3_pipeline.models.network import Network
from kd3_pipeline.models.norms import norms_to_match, refuse_misfed
from kd3_pipeline.params import Embed
from kd3_pipeline.store import remove
from kd3_pipeline.teacher.normalisation import NormalisationCheck


def refine_images(
    section: Embed,
    embeddings: Embeddings,
    network: Network,
    config: ModelConfig,
    device: torch.device,
    precision: torch.dtype,
    check: NormalisationCheck,
    console: Console,
) -> dict[str, Any]:
    """Leaves the refined images beside those of `embeddings`, and returns their figures.

    Raises:
        UserError: the teacher has no moments to give, or is fed wrongly by what `check` says.
    """
    refuse_misfed(check.verdict, check.text, "embed.refine")
    norms = norms_to_match(network, config.input_size, "embed.refine")
    teacher = Remembering(network, norms, config.input_size, device, precision)
    pixels, crops = embeddings.place_pixels, " and crops" if embeddings.crops > 1 else ""
    total, size = len(pixels), int(np.prod(pixels.shape))
    seconds = seconds_needed(pixels, teacher, config, section)
    console.say(
        f"embed.refine: {section.refine} steps on {total:,} images{crops} take about"
        f" {_duration(seconds)}, and what they leave {size / 1e6:,.0f} MB"
    )
    # of other settings an interrupted one is not gone on with
    settings = (section.refine, section.refine_rate, section.refine_keep, section.refine_batch)
    folder = embeddings.folder / f"refine-{'-'.join(map(str, settings))}"
    with console.progress("embed: refined images", total) as advance:
        done = refine(pixels, teacher, config, folder, section, advance)
    for name in REFINED_FILES:
        (folder / name).replace(embeddings.folder / name)
    remove(folder)
    figures = _figures(section, embeddings, done)
    console.note(
        f"refined by {section.refine} steps: distance from the teacher's remembered moments"
        f" {figures['before']:.3f} → {figures['after']:.3f}, pixels moved by {figures['moved']:.3f}"
        f" deviations, {figures['same_class']:.1%} of the images with the same answer; distill"
        " trains on them (distill.refined)"
    )
    return figures


def _figures(section: Embed, embeddings: Embeddings, done: Refined) -> dict[str, Any]:
    answers = (embeddings.place_logits, embeddings.refined_logits)
    before, after = (np.asarray(one.argmax(axis=1)) for one in answers)
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
