"""KD3 without each of its parts, other methods, and departures, at equal steps and with seeds.

    dvc repro embed && python -m benchmarks.ablation --seeds 0 1 2 --jobs 2

Reads data/embed and models/teacher, so it serves the demo and, after `pipeline preset
cifar10-local`, real images (`--test PATH`). Every run has the same number of steps. Where a loss
has gradients of another size, several learning rates are tried with the first seed, and held-out
agreement with the teacher takes one: no label is read for it. Test accuracy is only reported.

Runs are kept in --out, one line a run: the same command goes on where it stopped.
"""

import argparse
import json
import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch
from scipy.stats import spearmanr

from benchmarks.distilled import distilled
from kd3_pipeline.device import resolve_device, resolve_precision
from kd3_pipeline.distill.objectives.objective import with_own_settings
from kd3_pipeline.frames import Frame
from kd3_pipeline.labelled import load_labelled
from kd3_pipeline.params import Distill

BASE = "kd3"
METHODS: dict[str, dict[str, Any]] = {
    BASE: {},
    "kd3 without selection": {"selection": "none"},
    "kd3 without alignment": {"alignment": False, "logit_weight": 1.0},
    "kd3 without mixing": {"mixing": False},
    "kd, everything": {"objective": "kd", "selection": "none"},
    "kd, selected": {"objective": "kd"},
    "simkd": {"objective": "simkd"},
    "dfnd": {"objective": "dfnd"},
    # bfloat16 for speed; the published epochs shrink with what is kept, so they are refilled
    "official, refilled": {"objective": "official", "refill": True, "precision": "auto"},
}
DEPARTURES: dict[str, dict[str, Any]] = {
    "relative feature loss": {"feature_loss": "relative"},
    "teacher floor 0.5": {"teacher_floor": 0.5},
    "relative feature loss, teacher floor 0.5": {
        "feature_loss": "relative",
        "teacher_floor": 0.5,
    },
    "teacher selects alone": {"teacher_floor": 1.0},
    "judges a random crop (published)": {"judge": "random"},
    "crop resized 0.08 (published)": {"crop": "resized", "crop_scale": 0.08},
    "crop resized 0.5": {"crop": "resized", "crop_scale": 0.5},
    "logit term 0.1": {"logit_weight": 0.1},
    "contrast weight 0.1": {"contrast_weight": 0.1},
    "no disagreement weights": {"weighting": False},
    "average 0.99": {"ema": 0.99},
    "off-topic weight 0.5": {"off_topic_weight": 0.5},
    "off-topic weight 1": {"off_topic_weight": 1.0},
    # after `pipeline embed --set embed.redundant=0.2`; with a fifth of the images fewer, ten epochs
    # have the steps of eight
    "redundant 0.2 skipped, 10 epochs": {"skip_redundant": True, "epochs": 10},
}
ARMS = METHODS | DEPARTURES
RATES = {
    BASE: (0.6, 1.0, 2.0, 4.0),
    "kd3 without alignment": (0.1, 0.3, 0.6),
    "kd, everything": (0.1, 0.3, 0.6),
    "kd, selected": (0.1, 0.3, 0.6),
    "dfnd": (0.1, 0.3, 0.6),
    "relative feature loss": (1.0, 2.0, 4.0, 8.0),
    "logit term 0.1": (0.3, 1.0, 2.0, 4.0),
}
HELD_OUT = 0.15  # of 3% of the demo's images, one is worth a point of agreement
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 8: 2.365, 10: 2.262}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--epochs", type=int, default=8)
    options.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    options.add_argument("--student", default="resnet8")
    options.add_argument("--flip", action="store_true", help="mirrored images mean the same")
    options.add_argument("--test", default="demo", help="labelled images to report on")
    options.add_argument("--images", type=int, default=2000, help="of them; 0 is all")
    options.add_argument(
        "--lr", nargs="+", default=[], metavar="ARM=RATE,RATE", help="to try instead of its own"
    )
    options.add_argument("--jobs", type=int, default=1, help="runs at a time, a thread each")
    options.add_argument("--out", type=Path, default=Path("reports/ablation.jsonl"))
    given = options.parse_args()
    given.arms = list(dict.fromkeys([BASE, *given.arms]))
    known = dict(RATES) | {
        arm: tuple(map(float, rates.split(",")))
        for arm, _, rates in (one.rpartition("=") for one in given.lr)
    }
    common = {
        "epochs": given.epochs,
        "student": given.student,
        "flip": given.flip,
        "held_out": HELD_OUT,
    }
    done = Runs(given.out, (given.test, given.images))
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(given.jobs, mp_context=spawn) as pool:
        first = given.seeds[0]
        tried = [
            (common | ARMS[arm] | {"lr": rate}, first)
            for arm in given.arms
            for rate in known.get(arm, ())
            if len(known[arm]) > 1
        ]
        done.complete(pool, tried)
        base = done.best_rate(common | ARMS[BASE], known[BASE], first)
        rates = {
            arm: done.best_rate(common | ARMS[arm], known.get(arm, (base,)), first)
            for arm in given.arms
        }
        wanted = [
            (common | ARMS[arm] | {"lr": rates[arm]}, seed)
            for seed in given.seeds
            for arm in given.arms
        ]
        done.complete(pool, wanted)
    rows = {
        arm: [done.found(common | ARMS[arm] | {"lr": rates[arm]}, seed) for seed in given.seeds]
        for arm in given.arms
    }
    print(f"{given.epochs} epochs, seeds {given.seeds}, torch {torch.__version__}\n")
    print(done.ranking())
    print("| arm | lr | held-out agreement | test accuracy by seed | mean | beside kd3 | s |")
    print("|---|---|---|---|---|---|---|")
    for arm, runs in rows.items():
        tests = [100 * one["accuracy"] for one in runs]
        beside = [test - 100 * one["accuracy"] for test, one in zip(tests, rows[BASE], strict=True)]
        print(
            f"| {arm} | {rates[arm]}"
            f" | {statistics.mean(one['agreement'] for one in runs):.3f}"
            f" | {', '.join(f'{test:.1f}' for test in tests)} | {statistics.mean(tests):.1f}"
            f" | {interval(beside) if arm != BASE else ''}"
            f" | {statistics.mean(one['seconds'] for one in runs):.0f} |"
        )


class Runs:
    """Finished runs, on disk."""

    def __init__(self, path: Path, test: tuple[str, int]) -> None:
        self.path = path
        self.test = test
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        self.finished = {
            self.key(one["settings"], one["seed"]): one for one in map(json.loads, lines)
        }

    @staticmethod
    def key(settings: dict[str, Any], seed: int) -> str:
        return json.dumps([settings, seed], sort_keys=True)

    def found(self, settings: dict[str, Any], seed: int) -> dict[str, Any]:
        return self.finished[self.key(settings, seed)]

    def best_rate(self, settings: dict[str, Any], rates: tuple[float, ...], seed: int) -> float:
        """The rate with the best held-out agreement."""
        if len(rates) == 1:
            return rates[0]
        return max(rates, key=lambda rate: self.found(settings | {"lr": rate}, seed)["agreement"])

    def ranking(self) -> str:
        """How held-out agreement ranks all finished runs, beside test accuracy."""
        runs = list(self.finished.values())
        agreement, accuracy = ([one[name] for one in runs] for name in ("agreement", "accuracy"))
        chosen = max(runs, key=lambda one: one["agreement"])
        correlation = spearmanr(agreement, accuracy).statistic
        return (
            f"{len(runs)} runs: rank correlation of agreement and accuracy {correlation:.2f}; the"
            f" run of best agreement has {100 * chosen['accuracy']:.1f}%, the best run"
            f" {100 * max(accuracy):.1f}%\n"
        )

    def complete(self, pool: ProcessPoolExecutor, wanted: list[tuple[dict[str, Any], int]]) -> None:
        """Does those of the runs that are missing."""
        missing = [one for one in wanted if self.key(*one) not in self.finished]
        runs = {pool.submit(run, *one, self.test): one for one in missing}
        for ended in as_completed(runs):
            settings, seed = runs[ended]
            one = {"settings": settings, "seed": seed, **ended.result()}
            self.finished[self.key(settings, seed)] = one
            self.path.parent.mkdir(exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(one) + "\n")
            print(f"  {json.dumps(one)}", flush=True)


def run(settings: dict[str, Any], seed: int, test: tuple[str, int]) -> dict[str, float]:
    """Distils and evaluates once, in a process of its own."""
    torch.set_num_threads(1)
    # α as published in every arm but those of the floor, which won its place here
    base = Distill(
        objective=settings.get("objective", "kd3"),
        teacher_floor=settings.get("teacher_floor", 0.0),
    )
    section = with_own_settings(base).model_copy(update=settings | {"seed": seed})
    device = resolve_device("auto")
    started = time.monotonic()
    done = distilled(section, device, resolve_precision(section.precision, device))
    seconds = time.monotonic() - started
    images = load_labelled(test[0], "test", Frame(done.config.input_size), test[1], 0)
    return {
        "agreement": done.trained.curves[-1]["agreement"],
        "accuracy": done.accuracy(images),
        "kept": statistics.mean(row["kept"] for row in done.trained.curves),
        "seconds": round(seconds, 1),
    }


def interval(differences: list[float]) -> str:
    """Mean and 95% interval (Student's t, paired by seed)."""
    mean = statistics.mean(differences)
    if len(differences) < 2:
        return f"{mean:+.1f}"
    spread = statistics.stdev(differences) / len(differences) ** 0.5 * T_95[len(differences)]
    return f"{mean:+.1f} ± {spread:.1f}"


if __name__ == "__main__":
    main()
