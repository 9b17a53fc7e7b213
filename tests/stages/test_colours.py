"""Teachers of blue first and of one channel, through the stages to a student that is shipped."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn
from torchvision import models

from kd3_pipeline.demo.shapes import CLASS_NAMES
from tests.stages.test_own_networks import command
from tests.stages.test_own_networks import project as project

OWN = """
from torch import nn
class Net(nn.Module):
    def __init__(self, num_classes, in_channels=3):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(in_channels, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(8, num_classes)
    def forward(self, x):
        return self.head(self.first(x).mean(dim=(2, 3)))
"""
PARAMS = """
teacher: {{source: file, path: ../teacher.pt, architecture: "{name}", trust: true, {more},
  class_names: {classes}, mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25]}}
embed: {{device: cpu, precision: float32}}
distill: {{student: resnet8, epochs: 1, batch_size: 16, lr: 0.02, held_out: 0.1,
  teacher_floor: 1, cutoff: 0.1, device: cpu, precision: float32}}
evaluate: {{test_set: ../tests, images: 0, latency: false, device: cpu}}
export: {{formats: [onnx]}}
"""
NAMES = {"torchvision/resnet18": "conv1", "nets.py:Net": "first.0"}  # with the first convolution


def module(name: str, channels: int) -> nn.Module:
    """A network as its author has it, in evaluation mode."""
    torch.manual_seed(0)
    if name != "nets.py:Net":
        model = models.resnet18(num_classes=10)
        model.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
        return model.eval()
    scope: dict = {"__name__": "user"}
    exec(OWN, scope)
    return scope["Net"](10, channels).eval()


def through(
    root: Path, kind: str, name: str, state: dict, more: str, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The folder in which there is such a teacher, which has seen the images."""
    folder = root / kind
    folder.mkdir()
    (folder / "nets.py").write_text(OWN)
    (folder / "data").mkdir()
    for stage in ("crawl", "dedup"):
        os.symlink(root / "data" / stage, folder / "data" / stage)
    torch.save(state, root / "teacher.pt")
    classes = json.dumps(list(CLASS_NAMES))
    (folder / "params.yaml").write_text(PARAMS.format(name=name, more=more, classes=classes))
    monkeypatch.chdir(folder)
    stages("teacher", "embed")
    return folder


def stages(*names: str) -> None:
    for name in names:
        command(name, "--quiet")


def answers(folder: Path) -> list[tuple[str, str]]:
    with (folder / "reports/predictions.csv").open() as file:
        return [(row["teacher"], row["teacher_confidence"][:5]) for row in csv.DictReader(file)]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_teacher_of_blue_first_is_the_one_of_red_first(project, name, monkeypatch):
    state = module(name, 3).state_dict()
    first = f"{NAMES[name]}.weight"
    rgb = through(project, "rgb", name, state, "order: rgb", monkeypatch)
    stages("distill", "evaluate")
    turned = state | {first: state[first].flip(1)}
    bgr = through(project, "bgr", name, turned, "order: bgr", monkeypatch)
    stages("distill", "evaluate")
    for values in ("features", "logits"):
        one, other = (np.load(folder / f"data/embed/{values}.npy") for folder in (rgb, bgr))
        np.testing.assert_allclose(other, one, rtol=2e-3, atol=1e-3 * np.ptp(one))
    assert answers(bgr) == answers(rgb)
    # the student sees red first in both
    one, other = (load_file(folder / "models/student/model.safetensors") for folder in (rgb, bgr))
    assert one.keys() == other.keys()
    for key, weight in one.items():
        np.testing.assert_allclose(other[key], weight, atol=1e-3, err_msg=key)


@pytest.mark.parametrize("name", NAMES)
def test_a_teacher_of_one_channel_sees_brightness(project, name, monkeypatch):
    model = module(name, 1)
    more = "channels: 1" + ", options: {in_channels: 1}" * (name == "nets.py:Net")
    folder = through(project, "grey", name, model.state_dict(), more, monkeypatch)
    pixels = np.load(folder / "data/embed/pixels.npy")
    grey = torch.from_numpy(pixels / 255 @ [0.299, 0.587, 0.114])[:, None].float()
    with torch.no_grad():
        expected = model((grey - 0.5) / 0.25).numpy()
    found = np.load(folder / "data/embed/logits.npy")
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.ptp(expected))
    if name != "nets.py:Net":
        return  # what follows does not look at the teacher's colours
    stages("distill", "evaluate", "export")
    session = onnxruntime.InferenceSession(folder / "models/export/model.onnx")
    assert session.get_inputs()[0].shape[1:] == [32, 32, 3]  # what is shipped takes colours
