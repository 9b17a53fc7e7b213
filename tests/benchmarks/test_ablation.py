import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from benchmarks import ablation
from kd3_pipeline.params import Distill
from kd3_pipeline.registry import OBJECTIVES

SETTINGS = {"epochs": 2, "lr": 0.5}


def test_every_arm_is_a_valid_section_and_names_a_rate():
    for name, changes in ablation.ARMS.items():
        section = Distill(**changes)
        assert section.objective in OBJECTIVES.entries
        assert name not in ablation.RATES or len(ablation.RATES[name]) > 1
    assert set(ablation.RATES) <= set(ablation.ARMS)


@pytest.mark.parametrize(
    ("differences", "text"),
    [([1.0, 2.0, 3.0], "+2.0 ± 2.5"), ([-1.0, -1.0], "-1.0 ± 0.0"), ([0.5], "+0.5")],
)
def test_an_interval_is_that_of_students_t(differences, text):
    assert ablation.interval(differences) == text


def test_runs_that_were_done_are_not_done_again(tmp_path, monkeypatch):
    ran = []

    def run(settings, seed, test):
        ran.append((settings["lr"], seed))
        return {"agreement": settings["lr"], "accuracy": 0.9, "kept": 1.0, "seconds": 1.0}

    monkeypatch.setattr(ablation, "run", run)
    path = tmp_path / "deep" / "runs.jsonl"
    path.parent.mkdir()
    with ThreadPoolExecutor(1) as pool:
        ablation.Runs(path, ("demo", 10)).complete(pool, [(SETTINGS, 0), (SETTINGS, 1)])
        again = ablation.Runs(path, ("demo", 10))
        again.complete(pool, [(SETTINGS, 0), (SETTINGS | {"lr": 0.7}, 0), (SETTINGS, 1)])
    assert sorted(ran) == [(0.5, 0), (0.5, 1), (0.7, 0)]
    assert len(path.read_text().splitlines()) == 3
    assert json.loads(path.read_text().splitlines()[0])["settings"] == SETTINGS
    assert again.found(SETTINGS, 1)["accuracy"] == 0.9
    assert again.best_rate(SETTINGS, (0.5, 0.7), 0) == 0.7
