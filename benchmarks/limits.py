"""Limits of a machine, and how much of them a piece of work asks for."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# private, and the only place of it: torch's own documentation of dispatch modes imports it so
from torch.utils._python_dispatch import TorchDispatchMode


def bandwidth(device: torch.device) -> float:
    """Bytes a second that a copy reads and writes."""
    source = torch.empty(2**27, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / best(lambda: target.copy_(source), device)


def product_flops(device: torch.device, precision: torch.dtype) -> float:
    """Operations a second of a large matrix product."""
    side = 8192 if device.type == "cuda" else 2048
    a = torch.randn(side, side, device=device, dtype=precision)
    return 2 * side**3 / best(lambda: a @ a, device)


def launch_seconds(device: torch.device) -> float:
    """Time of one of many small operations, one after another."""
    tiny = torch.zeros(8, device=device)

    def many() -> None:
        for _ in range(1000):
            tiny.add_(1)

    return best(many, device) / 1000


def best(work: Callable[[], Any], device: torch.device, repeat: int = 5) -> float:
    """Seconds of the fastest of a few times."""
    work()
    times = []
    for _ in range(repeat):
        started = now(device)
        work()
        times.append(now(device) - started)
    return min(times)


def now(device: torch.device) -> float:
    """The time when the device has done all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class Traffic(TorchDispatchMode):
    """Counts operations and the bytes of the tensors that they take and give; views are free."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        taken = [*_tensors(args), *_tensors((kwargs or {}).values())]
        given = list(_tensors([result]))
        storages = {tensor.untyped_storage().data_ptr() for tensor in taken}
        views = all(tensor.untyped_storage().data_ptr() in storages for tensor in given)
        if not views or func._schema.is_mutable:  # private: no other name says so
            self.operations += 1
            self.bytes += sum(tensor.nbytes for tensor in (*taken, *given))
        return result


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among arguments, and in the lists of tensors that some operations take."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Callable[[], int]]:
    """The most bytes in use inside, beyond those at its start."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        yield lambda: torch.cuda.max_memory_allocated(device) - before
        return
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far (Linux)
    before = _status("VmRSS")
    yield lambda: _status("VmHWM") - before


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def processor() -> str:
    """The CPU's name (Linux)."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
