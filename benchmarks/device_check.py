"""One device beside the CPU: the same losses in float32, and images a second in both precisions.

    dvc repro embed && python -m benchmarks.device_check --device cuda

With --device cpu it is a smoke run of itself: losses equal to the last bit, ratio about one.
"""

import argparse

import torch

from benchmarks.distilled import distilled
from kd3_pipeline.device import resolve_device
from kd3_pipeline.distill.trainer import Trained
from kd3_pipeline.params import Distill

EPOCHS = 3


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--device", default="auto")
    device = resolve_device(options.parse_args().device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else device.type
    print(f"{name}, torch {torch.__version__}, {EPOCHS} epochs, seed 0")
    print("| device | precision | loss by epoch | images/s (last epoch) |")
    print("|---|---|---|---|")
    reference = run(torch.device("cpu"), torch.float32)
    same = run(device, torch.float32)
    run(device, torch.bfloat16)
    pairs = zip(reference.curves, same.curves, strict=True)
    worst = max(abs(a["loss"] - b["loss"]) / a["loss"] for a, b in pairs)
    print(f"\nlargest relative difference of a float32 loss: {worst:.2e}")


def run(device: torch.device, precision: torch.dtype) -> Trained:
    """Distils for a few epochs on `device` and prints a row."""
    trained = distilled(Distill(epochs=EPOCHS), device, precision).trained
    losses = ", ".join(f"{row['loss']:.6f}" for row in trained.curves)
    speed = trained.curves[-1]["images_per_s"]
    print(f"| {device.type} | {str(precision).removeprefix('torch.')} | {losses} | {speed:,} |")
    return trained


if __name__ == "__main__":
    main()
