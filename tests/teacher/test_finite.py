"""Teachers whose weights or answers are no numbers: what the stages say of them."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from kd3_pipeline.errors import UserError
from kd3_pipeline.models import build
from kd3_pipeline.models.checkpoint import ModelConfig, load_model, save_model
from kd3_pipeline.models.finite import check_answers, check_weights
from kd3_stages.cli import app

SIDE, MEAN, STD = 16, [0.5] * 3, [0.25] * 3


def network():
    torch.manual_seed(1)
    made = build("resnet8", 5)
    made(torch.randn(8, 3, SIDE, SIDE))
    return made.eval()


def answers(made, mean=MEAN, std=STD) -> None:
    check_answers(made, mean, std, SIDE, "teacher.pt")


def command(folder: Path, made, **changes: object) -> Result:
    """`pipeline teacher` on a file of these weights."""
    save_file(made.state_dict(), folder / "given.safetensors")
    section = {
        "source": "file",
        "path": str(folder / "given.safetensors"),
        "architecture": "resnet8",
        "input_size": SIDE,
        "mean": MEAN,
        "std": STD,
        **changes,
    }
    (folder / "params.yaml").write_text(json.dumps({"teacher": section}))
    return CliRunner().invoke(app, ["teacher"])


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_sound_teacher_passes(workspace):
    assert command(workspace, network()).exit_code == 0
    load_model(Path("models/teacher"), torch.device("cpu"))


@pytest.mark.parametrize(
    ("value", "word"), [(torch.nan, "NaN"), (torch.inf, "infinite"), (-torch.inf, "infinite")]
)
def test_the_teacher_stage_names_the_tensor_that_is_not_finite(workspace, value, word):
    made = network()
    made.conv1.weight.data[3, 1, 0, :2] = value
    found = command(workspace, made)
    assert found.exit_code == 2
    assert (
        "given.safetensors has weights that are not finite: conv1.weight"
        f" (2 of 432 {word}): they are damaged, or of a training that failed: take other weights"
    ) in found.stderr.replace("\n", " ")
    assert not Path("models/teacher").exists()


def test_of_many_tensors_six_are_named_and_the_rest_counted():
    state = {f"layer{n}": torch.tensor([1.0, torch.nan, torch.inf]) for n in range(9)}
    state |= {"steps": torch.tensor(3), "fine": torch.ones(3)}
    with pytest.raises(UserError) as caught:
        check_weights(state, "a.pt")
    assert "layer5 (2 of 3 NaN or infinite) and 3 more tensors: " in str(caught.value)
    assert "layer6" not in str(caught.value) and "fine" not in str(caught.value)


def test_half_precision_is_looked_at_too():
    with pytest.raises(UserError, match=r"a \(1 of 2 infinite\)"):
        check_weights({"a": torch.tensor([1.0, 70_000.0]).half()}, "a.pt")


def test_finite_weights_that_answer_with_what_is_not_are_refused_by_layer(workspace):
    made = network()
    made.layer2[0].bn1.running_var.fill_(-1.0)
    found = command(workspace, made)
    assert found.exit_code == 2
    told = found.stderr.replace("\n", " ")
    assert "answers plain pictures (black, white, noise) with values that are not finite" in told
    assert "first behind its layer 'layer2.0.bn1'" in told
    assert not Path("models/teacher").exists()


def test_a_normalisation_that_is_far_off_is_refused():
    made = network()
    made.conv1.weight.data *= 1e10
    answers(made)
    with pytest.raises(UserError, match=r"teacher\.mean and teacher\.std are far off"):
        answers(made, std=[1e-35] * 3)


def test_the_check_leaves_the_network_as_it_was():
    made = network().train()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    answers(made)
    assert made.training
    assert all(torch.equal(before[name], value) for name, value in made.state_dict().items())
    assert not any(module._forward_hooks for module in made.modules())


def test_a_training_that_fails_leaves_no_teacher(workspace):
    from PIL import Image

    for label in ("cat", "dog"):
        folder = workspace / "train" / label
        folder.mkdir(parents=True)
        for shade in range(8):
            Image.new("RGB", (SIDE, SIDE), (shade * 30,) * 3).save(folder / f"{shade}.png")
    section = {"data": "train", "architecture": "resnet8", "input_size": SIDE, "epochs": 3}
    section |= {"batch_size": 8, "lr": 1e30, "device": "cpu", "precision": "float32"}
    Path("params.yaml").write_text(json.dumps({"teacher": section}))
    found = CliRunner().invoke(app, ["teacher"])
    assert found.exit_code == 2
    assert "the training failed: lower teacher.lr" in found.stderr.replace("\n", " ")
    assert not Path("models/teacher").exists()


@pytest.mark.parametrize("who", ["teacher", "student"])
def test_a_stored_model_that_is_not_finite_is_not_used(tmp_path, who):
    made = network()
    made.fc.bias.data[1] = torch.nan
    config = ModelConfig(
        {"name": "resnet8", "num_classes": 5}, list("abcde"), MEAN, STD, SIDE, "a test"
    )
    save_model(tmp_path / who, made, config)
    with pytest.raises(UserError) as caught:
        load_model(tmp_path / who, torch.device("cpu"))
    assert f"{who}/model.safetensors has weights that are not finite: fc.bias" in str(caught.value)
    assert str(caught.value).endswith("run its stage again, with other weights")
