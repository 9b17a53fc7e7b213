"""KD3 beside plain distillation on everything crawled, at equal steps, on the demo.

    dvc repro embed && python -m benchmarks.demo_methods --seeds 0 1 2

Every arm runs with three learning rates and all seeds, and takes the rate with the best mean
agreement on held-out web images, for which no label is read. The test set is only reported on.
"""

import argparse
import statistics
from typing import NamedTuple

import torch

from benchmarks.distilled import distilled
from pipeline.console import no_progress
from pipeline.device import resolve_device, resolve_precision
from pipeline.evaluate.metrics import predictions
from pipeline.labelled import load_labelled
from pipeline.params import Distill

ARMS = {
    "kd, everything": {"objective": "kd", "selection": False},
    "kd, selected": {"objective": "kd", "selection": True},
    "kd3 without selection and mixing": {"selection": False, "mixing": False},
    "kd3 without selection": {"selection": False},
    "kd3 without mixing": {"mixing": False},
    "kd3": {},
}
RATES = {"kd": (0.1, 0.3, 0.6), "kd3": (0.3, 0.6, 1.0)}


class Run(NamedTuple):
    """What one distillation gave."""

    agreement: float  # with the teacher, on held-out web images
    accuracy: float  # on the test set
    seconds: float


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--epochs", type=int, default=Distill().epochs)
    options.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    given = options.parse_args()
    print(f"{given.epochs} epochs, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print("| arm | lr | held-out agreement | test accuracy by seed | mean | s |")
    print("|---|---|---|---|---|---|")
    for name in given.arms:
        base = Distill(**ARMS[name], epochs=given.epochs)
        trials = []
        for lr in RATES[base.objective]:
            runs = [run(base.model_copy(update={"lr": lr, "seed": seed})) for seed in given.seeds]
            trials.append((statistics.mean(one.agreement for one in runs), lr, runs))
            print(row(f"{name}, tried", *trials[-1]), flush=True)
        print(row(f"**{name}**", *max(trials, key=lambda trial: trial[0])), flush=True)


def row(name: str, agreement: float, lr: float, runs: list[Run]) -> str:
    """A line of the table."""
    tests = [100 * one.accuracy for one in runs]
    shown = ", ".join(f"{test:.1f}" for test in tests)
    seconds = statistics.mean(one.seconds for one in runs)
    return (
        f"| {name} | {lr} | {agreement:.3f} | {shown} | {statistics.mean(tests):.1f}"
        f" | {seconds:.0f} |"
    )


def run(section: Distill) -> Run:
    """Distils and evaluates once."""
    device = resolve_device("auto")
    precision = resolve_precision(section.precision, device)
    objective, trained, config = distilled(section, device, precision)
    network = objective.deployed()[0].eval()
    test = load_labelled("demo", "test", config.input_size, 2000, 0)
    predicted = predictions(network, test.pixels, config.mean, config.std, 256, device, no_progress)
    seconds = sum(row["seconds"] for row in trained.curves)
    accuracy = float((predicted == test.labels).mean())
    return Run(trained.curves[-1]["agreement"], accuracy, seconds)


if __name__ == "__main__":
    main()
