"""Finite checks of a network: its weights, and what it answers to plain pictures."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from kd3_pipeline.errors import UserError
from kd3_pipeline.models.network import Network, device_of, pool
from kd3_pipeline.pixels import normalise

SHOWN = 6  # tensors that an error names
HINT = "they are damaged, or of a training that failed: take other weights"


def check_weights(state: Mapping[str, Tensor], origin: str, hint: str = HINT) -> None:
    """Refuses weights with a NaN or an infinity among them.

    Args:
        origin: where they are from, for the error.

    Raises:
        UserError: names the tensors, with how many of their values are not finite.
    """
    problems = []
    for name, tensor in state.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            bad, kinds = int((~tensor.isfinite()).sum()), []
            kinds += ["NaN"] if tensor.isnan().any() else []
            kinds += ["infinite"] if tensor.isinf().any() else []
            problems.append(f"{name} ({bad:,} of {tensor.numel():,} {' or '.join(kinds)})")
    if problems:
        more = f" and {len(problems) - SHOWN} more tensors" if len(problems) > SHOWN else ""
        listed = ", ".join(problems[:SHOWN]) + more
        raise UserError(f"{origin} has weights that are not finite: {listed}", hint)


def check_answers(
    network: Network, mean: Sequence[float], std: Sequence[float], input_size: int, origin: str
) -> None:
    """Refuses a network that answers a plain picture with what is no number.

    Finite weights may do that: a variance below zero, or values that grow from layer to layer.

    Args:
        network: stays as it is, in its mode and on its device.
        mean, std: of the input, for pixels from 0 to 1.

    Raises:
        UserError: names the first layer whose output is not finite.
    """
    training, device = network.training, device_of(network)
    images = normalise(pictures(input_size).to(device), mean, std)
    try:
        with torch.inference_mode():
            network.eval()
            pooled = pool(network.features(images))
            if pooled.isfinite().all() and network.classify(pooled).isfinite().all():
                return
            with _first_wrong(network) as wrong:
                network(images)
    finally:
        network.train(training)
    layer = f", first behind its layer '{wrong[0]}'" if wrong else ""
    raise UserError(
        f"{origin} answers plain pictures (black, white, noise) with values that are not"
        f" finite{layer}",
        "its weights are damaged or of another network, or teacher.mean and teacher.std are far"
        " off: take other weights, or correct these",
    )


def pictures(side: int) -> Tensor:
    """Black, white, a slope and noise: uint8 [4, side, side, 3]."""
    images = torch.zeros(4, side, side, 3, dtype=torch.uint8)
    images[1] = 255
    images[2] = torch.linspace(0, 255, side).to(torch.uint8)[None, :, None]
    draw = torch.Generator().manual_seed(0)
    images[3] = torch.randint(0, 256, (side, side, 3), generator=draw, dtype=torch.uint8)
    return images


@contextmanager
def _first_wrong(network: nn.Module) -> Iterator[list[str]]:
    """Collects the names of layers whose output is not finite, in the order of the pass."""
    wrong: list[str] = []

    def watch(name: str) -> None:
        def look(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and not output.isfinite().all():
                wrong.append(name)

        hooks.append(modules[name].register_forward_hook(look))

    hooks: list = []
    modules = {name: one for name, one in network.named_modules() if not any(one.children())}
    for name in modules:
        watch(name)
    try:
        yield wrong
    finally:
        for hook in hooks:
            hook.remove()
