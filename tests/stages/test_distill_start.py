"""`pipeline distill` from pretrained weights: what is said before, written down, and tracked."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from kd3_pipeline.models import build
from kd3_pipeline.params import Distill, Params
from kd3_stages.steps.inputs import outside_paths
from tests.stages.workspace import invoke

OPTIONS = ("distill.epochs=1", "distill.optimizer=adamw", "distill.clip=1", "distill.accumulate=2")


def test_a_start_is_told_before_training_and_written_down(project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(project, folder, symlinks=True)
    torch.manual_seed(7)
    state = build("resnet8", 3).state_dict()
    save_file({name: value.clone() for name, value in state.items()}, folder / "net.safetensors")
    settings = (*OPTIONS, "distill.student_weights=net.safetensors", "distill.student=resnet8")
    done = invoke(folder, "distill", *(word for one in settings for word in ("--set", one)))
    told = [line for line in done.stderr.splitlines() if line.startswith("note: ")]
    assert "the student starts from net.safetensors (SHA-256 " in told[0]
    assert "fc.weight, fc.bias" in told[0]
    found = json.loads((folder / "reports/distill.json").read_text())["student_weights"]
    assert found["origin"] == "net.safetensors"
    config = json.loads((folder / "models/student/config.json").read_text("utf-8"))
    assert config["source"].endswith(f"; started from net.safetensors, SHA-256 {found['sha256']}")
    assert str(tmp_path) not in json.dumps(config)  # a path says nothing to others


@pytest.mark.parametrize(
    ("weights", "tracked"),
    [
        ("", False),
        ("default", False),
        ("IMAGENET1K_V1", False),
        ("net.safetensors", True),
        ("./net", True),
        ("weights/net", True),
    ],
)
def test_a_file_of_weights_is_an_input_and_a_librarys_is_not(weights: str, tracked: bool) -> None:
    params = Params(distill=Distill(student_weights=weights))
    found = outside_paths(params).get("distill", {})
    assert found == ({"distill.student_weights": weights} if tracked else {})
