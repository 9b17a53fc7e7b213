"""Moments of images at a teacher's batch norms, weights by them, and what `embed` leaves."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from kd3_pipeline.console import no_progress
from kd3_pipeline.demo.domains import original_images
from kd3_pipeline.embed import moments as module
from kd3_pipeline.embed.moments import (
    MOMENTS,
    MomentPass,
    basis_of,
    layer_errors,
    measured,
    moment_weights,
    passes,
    systematic,
)
from kd3_pipeline.errors import UserError
from kd3_pipeline.models import build
from kd3_pipeline.models.checkpoint import ModelConfig, save_model
from kd3_pipeline.models.network import Network
from kd3_pipeline.models.norms import norms_met, norms_to_match
from kd3_pipeline.paramfile import read_params
from kd3_pipeline.params import Embed
from kd3_pipeline.pixels import normalise
from kd3_pipeline.store import read_table, write_table
from kd3_stages.cli import app

from .conftest import SIDE, Crawled

MEAN, STD = [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]
ORIGINAL = original_images("train", 200, SIDE, 7)[0]
PALER = np.clip(0.5 * original_images("train", 400, SIDE, 8)[0] + 100, 0, 255).astype(np.uint8)
WEB = np.concatenate([ORIGINAL[:100], PALER])  # the first hundred are as the teacher knew them


@pytest.fixture(scope="module")
def teacher() -> Network:
    """A network whose batch norms remember such images."""
    torch.manual_seed(0)
    network = build("resnet8", 10)
    shown = normalise(torch.from_numpy(ORIGINAL), MEAN, STD)
    for _ in range(60):
        network(shown)
    return network.eval()


def config(mean=MEAN, std=STD) -> ModelConfig:
    architecture = {"name": "resnet8", "num_classes": 10}
    return ModelConfig(architecture, [f"class {k}" for k in range(10)], mean, std, SIDE, "a test")


def passed(network: Network) -> MomentPass:
    norms = norms_to_match(network, SIDE, "embed.moments")
    return MomentPass(network, config(), torch.float32, norms)


def test_moments_are_those_of_what_goes_into_each_norm_less_what_it_remembers(teacher):
    found = passed(teacher)
    moments = found(ORIGINAL[:5])
    assert list(found.norms) == [
        name for name, one in teacher.named_modules() if isinstance(one, nn.BatchNorm2d)
    ]
    with torch.no_grad():
        first = teacher.conv1(normalise(torch.from_numpy(ORIGINAL[:5]), MEAN, STD))
    norm = teacher.bn1
    mean = first.mean((2, 3)) - norm.running_mean
    square = first.square().mean((2, 3)) - norm.running_var - norm.running_mean.square()
    torch.testing.assert_close(moments[:, found.spans["bn1"]], torch.cat([mean, square], 1))
    # over the very images that it remembers they are nothing
    whole = found(ORIGINAL).mean(0)
    assert (whole.abs() < 0.05 * found.usual).all()


def test_a_norm_that_is_met_twice_has_the_mean_of_both():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3)
            self.fc = nn.Linear(3, 2)

        def forward(self, images):
            once = self.norm(images)
            return self.fc(self.norm(2 * images + 0 * once).mean((2, 3)))

    network = Twice()
    network.norm.running_mean.fill_(0.5)
    network.eval()
    found = MomentPass(network, config(), torch.float32, {"norm": network.norm})
    images = normalise(torch.from_numpy(ORIGINAL[:4]), MEAN, STD)
    expected = 1.5 * images.mean((2, 3)) - 0.5
    torch.testing.assert_close(found(ORIGINAL[:4])[:, :3], expected, rtol=1e-4, atol=1e-5)


def test_directions_keep_the_lengths_of_what_they_were_taken_from(teacher):
    found = passed(teacher)
    basis = basis_of(found, ORIGINAL, 64, no_progress)
    count = int((basis.scale > 0).sum())
    assert basis.directions.shape == (len(basis.scale), 200 // 8)
    products = basis.directions.T @ basis.directions * count
    torch.testing.assert_close(products, torch.eye(25), atol=1e-3, rtol=0)
    standard = found(ORIGINAL) * basis.scale
    kept = (standard @ basis.directions).square().sum() * count / standard.square().sum()
    assert kept > 0.85


def test_a_channel_that_never_varies_is_left_out_and_counted(teacher):
    found = passed(teacher)
    with torch.no_grad():
        teacher.conv1.weight[3], saved = 0, teacher.conv1.weight[3].clone()
    basis = basis_of(found, ORIGINAL, 64, no_progress)
    with torch.no_grad():
        teacher.conv1.weight[3] = saved
    assert basis.left_out >= 2  # its mean and its square
    assert basis.scale.isfinite().all() and basis.directions.isfinite().all()


def weigh(network: Network, folder: Path, advance=no_progress) -> module.MomentWeights:
    return moment_weights(passed(network), WEB, folder, 20, advance)


def test_images_like_those_of_the_training_are_raised_and_the_moments_come_nearer(
    teacher, tmp_path
):
    done = []
    found = weigh(teacher, tmp_path, lambda n=1, note="": done.append(n))
    assert sum(done) == passes(len(WEB))
    assert found.weights[:100].mean() > 2 * found.weights[100:].mean()
    figures = found.figures
    assert figures["error_after"] < 0.5 * figures["error_before"]
    assert 0 < figures["effective"] < len(WEB)
    assert [one["layer"] for one in figures["layers"]] == list(passed(teacher).norms)
    first = figures["layers"][0]
    assert first["after"] < 0.5 * first["before"]
    assert figures["measured_on"] == len(WEB)


def test_errors_by_layer_are_those_of_the_weighted_mean(teacher):
    found = passed(teacher)
    basis = basis_of(found, WEB, 64, no_progress)
    weights = np.random.default_rng(0).random(len(WEB))
    errors = layer_errors(found, basis, WEB, np.arange(len(WEB)), weights, 64, no_progress)
    mean = torch.from_numpy(weights / weights.sum()) @ found(WEB).double() * basis.scale
    squares = mean[basis.scale > 0].square()
    assert errors[""] == pytest.approx(float(squares.mean().sqrt()), rel=1e-4)
    assert errors.keys() == {"", *found.norms}


def test_few_images_are_all_measured_and_many_are_drawn_by_weight():
    weights = np.array([0.0, 1.0, 3.0], np.float32)
    rows, times = systematic(weights, 5)
    assert (rows.tolist(), times.tolist()) == ([0, 1, 2], [0, 1, 3])
    rows, times = systematic(np.repeat(weights, 1000), 400)
    assert times.sum() == 400 and rows.min() >= 1000
    assert times[rows < 2000].sum() == pytest.approx(100, abs=1)
    assert [measured(n) for n in (10, 20_000, 10**6)] == [10, 2000, 4096]


class Killed(Exception):
    pass


def test_a_pass_that_was_cut_short_goes_on_with_the_same_bytes(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PIECE", 3)
    whole = weigh(teacher, tmp_path / "whole")
    calls = []

    def advance(n: int = 1, note: str = "") -> None:
        calls.append(n)
        if sum(calls) >= 500 + 200:  # the directions take 500
            raise Killed

    with pytest.raises(Killed):
        weigh(teacher, tmp_path / "cut", advance)
    assert (tmp_path / "cut/saved").read_text() == "180\n"
    told = []
    again = weigh(teacher, tmp_path / "cut", lambda n=1, note="": told.append(n))
    assert 180 in told and sum(told) == passes(len(WEB))
    assert again.weights.tobytes() == whole.weights.tobytes() and again.figures == whole.figures
    files = [(tmp_path / name / MOMENTS).read_bytes() for name in ("whole", "cut")]
    assert files[0] == files[1]


def test_a_teacher_without_remembered_moments_is_refused():
    plain = nn.Sequential(nn.Flatten(), nn.LayerNorm(3 * SIDE**2), nn.Linear(3 * SIDE**2, 4))
    with pytest.raises(UserError, match=r"embed.moments: no batch norms are seen in the teacher"):
        norms_to_match(plain, SIDE, "embed.moments")
    with pytest.raises(UserError, match="9 batch norms have seen too few images in training"):
        norms_to_match(build("resnet8", 10).eval(), SIDE, "embed.moments")


def test_norms_come_in_the_order_of_a_pass_and_unmet_ones_not_at_all(teacher):
    teacher.spare = nn.BatchNorm2d(3)
    met = norms_met(teacher, torch.zeros(2, 3, SIDE, SIDE))
    del teacher.spare
    assert next(iter(met)) == "bn1" and "spare" not in met


# the stage


@pytest.fixture
def workspace(crawled: Crawled, teacher, tmp_path: Path, monkeypatch) -> Crawled:
    monkeypatch.chdir(tmp_path)
    save_model(Path("models/teacher"), teacher, config())
    write_table(Path("data/dedup/images.parquet"), crawled.verdicts())
    Path("params.yaml").write_text("embed: {device: cpu, precision: float32}")
    return crawled


def embed(*changes: str):
    options = [word for change in changes for word in ("--set", f"embed.{change}")]
    return CliRunner().invoke(app, ["embed", *options])


def test_weights_are_a_column_and_figures_and_off_unless_asked_for(workspace):
    assert not Embed().moments
    assert embed("moments=true").exit_code == 0
    images = read_table(Path("data/embed/images.parquet"))
    weights = images["moment_weight"].to_numpy()
    assert weights.dtype == np.float32 and weights.mean() == pytest.approx(1, abs=1e-5)
    figures = json.loads(Path("reports/embed.json").read_text())["moments"]
    assert figures["error_after"] <= figures["error_before"]
    assert not list(Path(".cache/embed").glob("*"))
    assert embed().exit_code == 0
    assert "moment_weight" not in read_table(Path("data/embed/images.parquet")).column_names
    assert "moments" not in json.loads(Path("reports/embed.json").read_text())


def test_a_teacher_that_is_fed_wrongly_is_refused_and_the_pass_is_not_lost(workspace, teacher):
    save_model(Path("models/teacher"), teacher, config([0.0] * 3, [1.0] * 3))
    refused = embed("moments=true")
    said = " ".join(refused.output.split())
    assert refused.exit_code == 2
    assert "embed.moments: teacher.mean and teacher.std do not seem to be those" in said
    assert "or switch embed.moments off" in said
    assert list(Path(".cache/embed").glob("*/logits.npy"))
    assert embed().exit_code == 0 and not list(Path(".cache/embed").glob("*"))


def test_an_untrained_teacher_is_refused_before_the_pass(workspace):
    save_model(Path("models/teacher"), build("resnet8", 10).eval(), config())
    refused = embed("moments=true")
    assert refused.exit_code == 2 and "have seen too few images" in refused.output
    assert not list(Path(".cache").glob("embed/*"))


def test_drawing_by_weights_that_nobody_makes_is_told_before(tmp_path):
    (tmp_path / "params.yaml").write_text("distill: {sampling: moments}")
    with pytest.raises(UserError, match=r"'moments' needs embed.moments"):
        read_params(tmp_path / "params.yaml")
