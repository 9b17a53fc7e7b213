"""Cost of a network: multiplications and time."""

import copy
import time
from typing import Any

import numpy as np
import torch

from kd3_pipeline.console import Advance, no_progress
from kd3_pipeline.models.macs import macs_of
from kd3_pipeline.models.network import Network, device_of

BATCHES = (1, 128)
SECONDS = 0.5  # of measuring for each batch size; a large network takes longer
FEWEST, MOST = 3, 200  # runs


def macs(network: Network, side: int) -> int | None:
    """As `macs_of`, for an image of that side; None of a program, which is not looked into."""
    if network.runs_elsewhere:
        return None
    image = torch.zeros(1, 3, side, side, device=device_of(network))
    return macs_of(network, image)


def latencies(
    network: Network, side: int, device: torch.device, advance: Advance = no_progress
) -> list[dict[str, Any]]:
    """Times of a forward pass of float32 images [batch, 3, side, side] that lie on the device.

    On the CPU, and also on `device` if that is CUDA, where each run waits for the device to be
    done. The first run is not counted. It is a measurement: it differs from run to run, and with
    what else the machine does.

    Returns:
        For each device and batch size (1 and 128): device, threads (of torch on the CPU), batch,
        and p50 and p95, percentiles of milliseconds a batch.
    """
    rows = []
    for place in [torch.device("cpu")] + [device] * (device.type == "cuda"):
        local = copy.deepcopy(network).to(place)  # the caller's network stays where it is
        for batch in BATCHES:
            p50, p95 = 1000 * np.percentile(_times(local, batch, side, place), [50, 95])
            rows.append(
                {
                    "device": place.type,
                    "threads": torch.get_num_threads(),
                    "batch": batch,
                    "p50": round(float(p50), 3),
                    "p95": round(float(p95), 3),
                }
            )
            advance(1)
    return rows


@torch.inference_mode()
def _times(network: Network, batch: int, side: int, device: torch.device) -> list[float]:
    """Seconds of each run."""
    images = torch.zeros(batch, 3, side, side, device=device)
    times: list[float] = []
    for run in range(MOST + 1):
        start = time.perf_counter()
        network(images)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if run:
            times.append(time.perf_counter() - start)
        if len(times) >= FEWEST and sum(times) > SECONDS:
            break
    return times
