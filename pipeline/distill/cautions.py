"""What is to be told before a training: a student that costs too much, or too little memory."""

import math

import torch
from torch import Tensor, nn

from kd3_pipeline.device import autocast
from kd3_pipeline.distill.cost import copied
from kd3_pipeline.distill.loader import free_memory
from kd3_pipeline.distill.objectives.objective import Objective
from kd3_pipeline.kd3 import disagreement
from kd3_pipeline.models.macs import macs_of
from kd3_pipeline.models.network import Network, parameter_count
from kd3_pipeline.params import Distill

MARGIN = 1.1  # for what neither autograd keeps nor the networks give: gradients, work spaces


def cost_notes(objective: Objective, images: Tensor) -> list[str]:
    """Where the student costs more than the teacher, which is what one distils to avoid.

    Args:
        images: one or more of them, as both are shown them.
    """
    section, teacher = objective.section, objective.teacher
    training = objective.training
    objective.eval()
    known = not teacher.runs_elsewhere
    products = macs_of(objective.predict, images[:1]), known * macs_of(teacher, images[:1])
    objective.train(training)
    weights = _deployed_parameters(objective), parameter_count(teacher)
    more = [
        f"{ours:,} {what} against {theirs:,}"
        for what, (ours, theirs) in (
            ("multiplications an image", products),
            ("parameters", weights),
        )
        if ours > theirs > 0  # a program of others has neither that could be counted
    ]
    if not more:
        return []
    bridge = ""
    transfer = getattr(objective, "transfer", None)
    if transfer is not None and weights[0] > weights[1] > 0:
        bridge = f" ({parameter_count(transfer):,} of its parameters carry its features to the"
        bridge += f" teacher's {teacher.feature_channels:,} channels)"
    return [
        f"the student '{section.student}' costs more than the teacher: {', '.join(more)}{bridge};"
        " a smaller one is what distillation is for"
    ]


def memory_notes(
    objective: Objective, images: Tensor, section: Distill, precision: torch.dtype
) -> list[str]:
    """Where a step needs more memory than is free, and the parameter that helps.

    Args:
        images: two of them, normalised; nothing is changed by them.
        precision: of products.
    """
    device = images.device
    free = free_memory(device)
    fixed = _fixed_bytes(objective, section)
    batch = _batch_bytes(objective, images, section)
    each = _bytes_per_image(objective, images, precision)
    processes = objective.world.size if device.type != "cuda" else 1  # that share this memory
    here = math.ceil(section.batch_size / objective.world.size)
    part = math.ceil(here / section.accumulate)
    needed = processes * (fixed + batch + part * each)
    if needed <= free:
        return []
    left = free / processes - fixed - batch
    parts = math.ceil(here * each / left) if left > 0 else 0
    advice = "choose a smaller distill.student, or lower distill.batch_size"
    if parts and here >= 2 * parts:
        advice = f"set distill.accumulate to {parts}, or lower distill.batch_size"
    return [
        f"a step of distill takes about {_size(needed)} of memory and {_size(free)} are free:"
        f" {_size(processes * part * each)} for {processes * part} images at a time, the rest for"
        f" weights, their gradients and the optimizer's: {advice}"
    ]


def _deployed_parameters(objective: Objective) -> int:
    """Of the student with its transfer module and the teacher's tail, where it has them."""
    parts: list[nn.Module] = [objective.student]
    transfer = getattr(objective, "transfer", None)
    if transfer is not None:
        parts += [transfer, objective.teacher.classifier]
    return sum(parameter_count(part) for part in parts)


def _fixed_bytes(objective: Objective, section: Distill) -> int:
    """Of gradients, optimizer and average: the weights themselves are there already."""
    weights = sum(weight.nbytes for weight in objective.parameters())
    moments = 2 if section.optimizer == "adamw" else int(section.momentum > 0)
    return weights * (1 + moments + bool(section.ema))


def _batch_bytes(objective: Objective, images: Tensor, section: Distill) -> int:
    """Of the views of a whole batch, which are made before it is split, and of their making."""
    shown = len(objective.views(images, torch.Generator().manual_seed(0)))
    return (shown + 1) * section.batch_size * images[0].nbytes


def _bytes_per_image(objective: Objective, images: Tensor, precision: torch.dtype) -> float:
    """What autograd keeps of an image for the way back, or what the teacher holds of it.

    The teacher's own tensors are gone before the student's are made.
    """
    probe = copied(objective).train()
    weights = [*probe.parameters(), *probe.teacher.parameters()]
    own = {tensor.untyped_storage().data_ptr() for tensor in weights}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    views = probe.views(images, torch.Generator().manual_seed(0))
    with (
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        autocast(images.device, precision),
    ):
        probe(*views)
        trained = sum(kept.values())
        kept.clear()
        if objective.section.disagreement:  # of pixels, for which the teacher is gone back through
            moved = images.clone().requires_grad_()
            disagreement(probe.eval().predict(moved), probe.teacher(moved))
    teacher = _largest_layer(objective.teacher, images)
    return MARGIN * max(trained, sum(kept.values()), teacher) / len(images)


@torch.inference_mode()
def _largest_layer(network: Network, images: Tensor) -> int:
    """Bytes of the largest input and output that a layer has at a time."""
    found = [0]

    def note(layer: nn.Module, given: tuple[object, ...], output: object) -> None:
        tensors = [one for one in (*given, output) if isinstance(one, Tensor)]
        found.append(sum(tensor.nbytes for tensor in tensors))

    layers = [layer for layer in network.modules() if not list(layer.children())]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        network(images)
    finally:
        for hook in hooks:
            hook.remove()
    return max(found)


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
