"""Weights of a small teacher of the demo's shapes, trained once for all tests."""

from pathlib import Path

import pytest
import torch

from kd3_pipeline.console import no_progress
from kd3_pipeline.demo.domains import original_images
from kd3_pipeline.demo.shapes import CLASS_NAMES
from kd3_pipeline.models import build
from kd3_pipeline.params import Teacher
from kd3_pipeline.teacher.train import train
from tests.stages.conftest import shared_by_processes

SIDE, MEAN, STD = 16, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
NAMES = "class_names: [" + ", ".join(CLASS_NAMES) + "]"


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared_by_processes(tmp_path_factory, "weights", train_them) / "teacher.pt"


def train_them(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    network = build("resnet8", 10)
    pixels, labels = original_images("train", 1000, SIDE)
    section = Teacher(epochs=8, batch_size=50, lr=0.2, mean=MEAN, std=STD)
    train(network, pixels, labels, section, torch.device("cpu"), torch.float32, no_progress)
    torch.save(network.state_dict(), folder / "teacher.pt")
