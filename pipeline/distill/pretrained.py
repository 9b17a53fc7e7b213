"""Pretrained weights that a student starts from: a library's or a file's, but for the head."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kd3_pipeline.console import listed
from kd3_pipeline.errors import ExternalError, UserError
from kd3_pipeline.models import TIMM, TORCHVISION
from kd3_pipeline.models.checkpoint import ModelConfig
from kd3_pipeline.models.network import Network
from kd3_pipeline.params import Distill
from kd3_pipeline.weights.files import Weights, read_weights
from kd3_pipeline.weights.network import backbone_state

KEY = "distill.student_weights"
SHOWN = 6  # keys that start at random


@dataclass(frozen=True)
class Pretrained:
    """Weights to start from, and how they were trained.

    Attributes:
        origin: of the weights, for people: no path, which says nothing to others.
        mean, std: of the input then, for pixels from 0 to 1; None: not known.
        side: of the images in pixels then; 0: not known.
    """

    weights: Weights
    origin: str
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    side: int = 0


def pretrained(section: Distill) -> Pretrained | None:
    """The weights that `student_weights` names; None for a random start.

    Raises:
        UserError: there are no such weights, or no such file.
        ExternalError: no network, and they are not in the library's cache.
    """
    named, student = section.student_weights, section.student
    if not named:
        return None
    if section.starts_from_file:
        return Pretrained(read_weights(Path(named), key=KEY), Path(named).name)
    try:
        if student.startswith(TORCHVISION):
            return _of_torchvision(student.removeprefix(TORCHVISION), named)
        if student.startswith(TIMM):
            return _of_timm(student.removeprefix(TIMM), named, section.student_options)
    except ExternalError as error:
        raise ExternalError(
            str(error).splitlines()[0],
            f"check the network, or get the file elsewhere and set {KEY} to its path",
        ) from None
    raise UserError(
        f"{KEY}: no library has weights '{named}' of '{student}'",
        f"give a file, as ./{named}.safetensors, or a student like {TORCHVISION}NAME or {TIMM}NAME",
    )


def load_pretrained(network: Network, start: Pretrained) -> tuple[list[str], list[str]]:
    """Loads all weights but those of the last layers, which have the teacher's classes.

    Returns:
        What was left as it was: keys of the network, all of them in its tail; and what is to be
        told of the file: what was read in an unusual way, or left out.

    Raises:
        UserError: lists what does not fit before the tail; or weights are not finite.
    """
    state, notes = backbone_state(network, start.weights, KEY)
    network.load_state_dict(state, strict=False)
    own = [name for name in network.state_dict() if not name.endswith("num_batches_tracked")]
    return [name for name in own if name not in state], notes


def start_notes(start: Pretrained, left: Sequence[str], config: ModelConfig) -> list[str]:
    """What is to be told of a start: what it lacks, and what is another than it was trained with.

    Args:
        left: as `load_pretrained` gives it.
        config: of the teacher, whose normalisation and size the student has.
    """
    weights = start.weights
    notes = [
        f"the student starts from {start.origin} (SHA-256 {weights.sha256});"
        f" random as before: {listed(list(left), SHOWN) or 'nothing'}"
    ]
    if start.mean is not None and start.std is not None:
        then, now = (start.mean, start.std), (config.mean, config.std)
        apart = torch.tensor([list(one) for one in then]) - torch.tensor([list(one) for one in now])
        if apart.abs().max() > 0.01:
            notes.append(
                f"the student's weights were trained with mean {_numbers(then[0])} and std"
                f" {_numbers(then[1])}, and it is shown the teacher's, {_numbers(now[0])} and"
                f" {_numbers(now[1])}: its first layers have to adapt"
            )
    if start.side and start.side != config.input_size:
        notes.append(
            f"the student's weights were trained on images of {start.side} pixels, and the"
            f" teacher's have {config.input_size}"
        )
    return notes


def _of_torchvision(name: str, named: str) -> Pretrained:
    from torchvision import models

    from kd3_pipeline.weights.sources import from_torchvision

    try:
        known = models.get_model_weights(name)
    except ValueError:
        raise UserError(f"distill.student: torchvision has no model '{name}'") from None
    if named == "default":
        named = known["DEFAULT"].name
    weights = from_torchvision(name, named, key=KEY)
    seen: Any = known[named].transforms()
    return Pretrained(weights, weights.origin, seen.mean, seen.std, seen.crop_size[0])


def _of_timm(name: str, named: str, options: dict[str, Any]) -> Pretrained:
    from kd3_pipeline.models.timm_network import import_timm
    from kd3_pipeline.weights.sources import from_timm

    timm = import_timm()
    if named == "default":
        settings = timm.get_pretrained_cfg(name)
        if settings is None or not settings.tag:
            raise UserError(f"{KEY}: timm has no weights of '{name}'", "give a file, or leave it")
        named = settings.tag
    weights = from_timm(name, named, key=KEY, **options)
    seen = timm.get_pretrained_cfg(f"{name}.{named}")
    return Pretrained(weights, weights.origin, seen.mean, seen.std, seen.input_size[-1])


def _numbers(values: Sequence[float]) -> str:
    return "[" + ", ".join(f"{value:.3g}" for value in values) + "]"
