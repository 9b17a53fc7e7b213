"""Check whether a network keeps values of one pass for another: two passes at once mix them."""

import gc
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.overrides import TorchFunctionMode

from kd3_pipeline.models.network import Network, device_of, pool

EVERY_MODULE_HAS = frozenset(vars(nn.Module()))
PLAIN = (bool, int, float, complex, str, bytes, torch.dtype, torch.device, type(None))
DEEPEST, LONGEST = 3, 1000  # lists in lists, and their items, that are compared


def keeps_values(network: Network, side: int) -> bool:
    """Tells whether a pass puts something where another one would find it.

    That is an attribute or a buffer of a module which has another value during or after a second
    pass, or a tensor of the pass that stays wherever it was put, as in a dictionary of a hook. What
    the first pass makes once for all, as a table of positions, is none of it.

    Args:
        network: in evaluation mode; it passes one random image, then two others.
        side: of the images in pixels.
    """
    if network.runs_elsewhere:
        return False
    draw, device = torch.Generator().manual_seed(0), device_of(network)
    one, two = (torch.randn(n, 3, side, side, generator=draw).to(device) for n in (1, 2))
    with torch.no_grad():
        _pass(network, one)
        own = [module for module in network.modules() if _of_own_code(module)]
        attributes, buffers = _attributes(own), _buffers(network)
        made = Made()
        made.add(two)
        with _watched(own, attributes) as changed, made:
            _pass(network, two)
        if changed or not _same(buffers, _buffers(network)):
            return True
    del one, two, attributes, buffers
    return made.any_alive()


def _pass(network: Network, images: Tensor) -> None:
    network.classify(pool(network.features(images).float()))


@contextmanager
def _watched(modules: Sequence[nn.Module], before: list[Any]) -> Iterator[list[bool]]:
    """Collects something as soon as attributes are others than `before` when any module ends."""
    changed: list[bool] = []

    def look(module: nn.Module, inputs: object, output: object) -> None:
        if not changed and not _same(before, _attributes(modules)):
            changed.append(True)

    hook = register_module_forward_hook(look)
    try:
        yield changed
    finally:
        hook.remove()


class Made(TorchFunctionMode):
    """Remembers the tensors that operations make, without keeping them."""

    def __init__(self) -> None:
        super().__init__()
        self._made: list[weakref.ref] = []

    def add(self, value: object) -> None:
        """Remembers a tensor, or those in a tuple or list."""
        if isinstance(value, Tensor):
            self._made.append(weakref.ref(value))
        elif isinstance(value, tuple | list):
            for one in value:
                self.add(one)

    def any_alive(self) -> bool:
        """Tells whether something still holds one of them."""
        if self._alive():
            gc.collect()  # the frames of a pass that was ended at the cut
        return self._alive()

    def _alive(self) -> bool:
        return any(one() is not None for one in self._made)

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not any(result is one for one in args):  # which may be a weight, and is not new
            self.add(result)
        return result


def _of_own_code(module: nn.Module) -> bool:
    """Tells it from layers of libraries, of which none sets an attribute in a pass."""
    known = type(module).__module__.partition(".")[0] in ("torch", "torchvision", "timm")
    return not known and not isinstance(module, torch.jit.ScriptModule)


def _attributes(modules: Sequence[nn.Module]) -> list[Any]:
    """What modules hold beside their tensors and one another; of containers the content."""
    return [
        _held({k: v for k, v in vars(module).items() if k not in EVERY_MODULE_HAS}, DEEPEST)
        for module in modules
    ]


def _buffers(network: nn.Module) -> Any:
    return {name: _held(buffer, 0) for name, buffer in network.named_buffers()}


def _held(value: Any, depth: int) -> Any:
    """A value as it is now: tensors and containers are copied."""
    if isinstance(value, Tensor):
        return value.clone() if value.layout == torch.strided else value
    if not depth or (isinstance(value, Sized) and len(value) > LONGEST):
        return value
    if isinstance(value, Mapping):
        return {key: _held(one, depth - 1) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_held(one, depth - 1) for one in value]
    return value


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        plain = one.layout == other.layout == torch.strided and one.dtype == other.dtype
        return plain and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(
            _same(value, other[key]) for key, value in one.items()
        )
    if isinstance(one, list):
        return len(one) == len(other) and all(_same(*pair) for pair in zip(one, other, strict=True))
    return isinstance(one, PLAIN) and one == other
