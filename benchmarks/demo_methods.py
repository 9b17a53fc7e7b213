"""KD3 beside plain distillation on everything crawled, at equal steps, on the demo.

    dvc repro embed && python -m benchmarks.demo_methods --seeds 0 1 2

Each arm takes the learning rate with the best agreement on held-out web images (seed of the
first run, no label read); then all arms run with every seed. The test set is only reported on.
"""

import argparse
import statistics

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
RATES = {"kd": (0.1, 0.3, 1.0, 3.0), "kd3": (0.3, 0.6, 1.0, 1.5)}


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
        trials = [
            run(base.model_copy(update={"lr": lr, "seed": given.seeds[0]}))
            for lr in RATES[base.objective]
        ]
        best = max(trials, key=lambda trial: trial[0])
        for trial in trials:
            print(
                f"| {name}, probe | {trial[3]} | {trial[0]:.3f} | | | {trial[2]:.0f} |", flush=True
            )
        runs = [best] + [
            run(base.model_copy(update={"lr": best[3], "seed": seed})) for seed in given.seeds[1:]
        ]
        tests = [100 * one[1] for one in runs]
        agreement = statistics.mean(one[0] for one in runs)
        print(
            f"| {name} | {best[3]} | {agreement:.3f} | {', '.join(f'{t:.1f}' for t in tests)}"
            f" | {statistics.mean(tests):.1f} | {statistics.mean(one[2] for one in runs):.0f} |",
            flush=True,
        )


def run(section: Distill) -> tuple[float, float, float, float]:
    """Held-out agreement, test accuracy, seconds, learning rate."""
    device = resolve_device("auto")
    precision = resolve_precision(section.precision, device)
    objective, trained, config = distilled(section, device, precision)
    network = objective.deployed()[0].eval()
    test = load_labelled("demo", "test", config.input_size, 2000, 0)
    predicted = predictions(network, test.pixels, config.mean, config.std, 256, device, no_progress)
    seconds = sum(row["seconds"] for row in trained.curves)
    accuracy = float((predicted == test.labels).mean())
    return trained.curves[-1]["agreement"], accuracy, seconds, section.lr


if __name__ == "__main__":
    main()
