"""Multiplications of a network for one image."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode


@torch.inference_mode()
def macs_of(network: Callable[[Tensor], Tensor], image: Tensor) -> int:
    """Multiply-accumulates of convolutions and matrix products for one image [1, 3, S, S].

    PyTorch's counter counts a multiply-accumulate as two operations, so this is half of its
    count. Batch norms, activations and pooling are not in it.
    """
    with FlopCounterMode(display=False) as counter:
        network(image)
    return counter.get_total_flops() // 2
