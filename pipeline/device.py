"""Devices that tensors live on, and the precision in which they are multiplied."""

from contextlib import AbstractContextManager
from typing import Literal, TypeVar

import torch
from torch import nn

from kd3_pipeline.errors import UserError

Precision = Literal["auto", "float32", "bfloat16"]
AnyModule = TypeVar("AnyModule", bound=nn.Module)


def resolve_device(name: str) -> torch.device:
    """`auto` is CUDA if there is one, else Apple's MPS, else the CPU.

    Raises:
        UserError: the named device is not here.
    """
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(kind for kind, found in there.items() if found)
    if not there.get(name):
        raise UserError(f"device '{name}' is not available on this machine", "use auto or cpu")
    return torch.device(name)


def resolve_precision(name: Precision, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 where the hardware multiplies it natively, else float32."""
    if name != "auto":
        return torch.bfloat16 if name == "bfloat16" else torch.float32
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device.type == "cpu" and torch.cpu.get_capabilities().get("avx512_bf16", False)
    return torch.bfloat16 if native else torch.float32


def autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager[None]:
    """Runs matrix products and convolutions in `precision`; weights and losses stay float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == torch.bfloat16)


def memory_format(device: torch.device) -> torch.memory_format:
    """Channels last on a GPU; on a CPU the backward pass of small networks is slower with it."""
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format


def laid_out(module: AnyModule, layout: torch.memory_format) -> AnyModule:
    """The module, its weights for images in that layout, in place.

    `Module.to` does so too, but fails where any weight has five dimensions.
    """
    for value in [*module.parameters(), *module.buffers()]:
        if value.dim() == 4:
            value.data = value.data.to(memory_format=layout)
    return module
