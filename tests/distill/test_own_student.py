"""A student of one's own code: consent, and what its folder says of it."""

import json
from pathlib import Path

import pytest
import torch

from kd3_pipeline.console import no_progress
from kd3_pipeline.distill.outputs import save_student
from kd3_pipeline.distill.run import distill, prepare
from kd3_pipeline.errors import UserError
from kd3_pipeline.models import own
from kd3_pipeline.models.checkpoint import ModelConfig
from kd3_pipeline.models.distilled import load_student
from kd3_pipeline.pixels import normalise
from tests.distill.world import (
    CLASS_COUNT,
    CPU,
    MEAN,
    SIDE,
    STD,
    pixels,
    section,
    teacher,
    web,
)

CODE = """
from torch import nn


class Student(nn.Module):
    def __init__(self, num_classes, width=4):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.fc1 = nn.Linear(width * 64, 20)
        self.fc2 = nn.Linear(20, num_classes)

    def forward(self, x):
        x = self.body(x)
        x = x.view(x.size(0), -1)
        return self.fc2(self.fc1(x).relu())
"""
CONFIG = ModelConfig(
    {"name": "resnet8", "num_classes": CLASS_COUNT}, list("abcdefghij"), MEAN, STD, SIDE, "a test"
)


@pytest.fixture
def name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file of code, to which nobody has agreed."""
    monkeypatch.setattr(own, "_allowed", set())
    (tmp_path / "student.py").write_text(CODE)
    return f"{tmp_path / 'student.py'}:Student"


def test_the_code_of_a_student_runs_with_consent_alone(name: str) -> None:
    with pytest.raises(UserError, match=r"distill\.trust"):
        prepare(section(student=name), web(), teacher(), CONFIG)


@pytest.mark.parametrize("objective", ["kd3", "kd"])
def test_a_student_of_ones_own_is_trained_saved_and_loaded(
    name: str, tmp_path: Path, objective: str
) -> None:
    own.allow(name)
    of = section(student=name, student_options={"width": 6}, objective=objective, epochs=1)
    found, _ = distill(of, web(), teacher(), CONFIG, torch.float32, tmp_path / "run", no_progress)
    save_student(tmp_path / "saved", found, of.student, CONFIG, "a test")
    loaded, config = load_student(tmp_path / "saved", CPU)
    images = normalise(pixels(slice(4)), MEAN, STD)
    with torch.no_grad():
        expected = found.eval().predict(images)
        torch.testing.assert_close(loaded(images), expected, rtol=1e-4, atol=1e-5)
    written = json.dumps(config.architecture)
    digest = own.code_digest(own.code_files(name))
    assert f'"code.sha256": "{digest}"' in written
    assert f'"input_size": {SIDE}' in written
    assert '"width": 6' in written
    own._allowed.clear()
    with pytest.raises(UserError, match="code that would run on this machine"):
        load_student(tmp_path / "saved", CPU)
