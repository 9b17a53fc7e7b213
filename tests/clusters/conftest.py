"""A project after `crawl`, and clusters of this machine, for tests that run on them.

Ray's programs listen on every interface, whatever address they are given. So all of this runs in a
network of its own, which has the loopback interface alone: `make test-ray` makes one.
"""

import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from kd3_pipeline.demo.domains import original_images
from kd3_pipeline.models import build
from kd3_pipeline.models.checkpoint import ModelConfig, save_model
from tests.clusters.project import SIDE, crawled, told

HOST = "127.0.0.2"  # 127.0.0.1 is rewritten by Ray to another address of the machine


@pytest.fixture(scope="session", autouse=True)
def alone() -> None:
    """Refuses to open ports to anybody else."""
    others = [name for _, name in socket.if_nameindex() if name != "lo"]
    if others:
        pytest.fail(f"interfaces {', '.join(others)}: run these tests by `make test-ray`")


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A crawl of three row groups and a teacher, before `dedup`; tests take copies."""
    folder = tmp_path_factory.mktemp("project")
    crawled(folder, original_images("train", 260, SIDE, 5))
    architecture = {"name": "resnet8", "num_classes": 10}
    names = [f"class {label}" for label in range(10)]
    config = ModelConfig(architecture, names, [0.5, 0.4, 0.3], [0.25] * 3, SIDE, "a test")
    save_model(folder / "models/teacher", build("resnet8", 10).eval(), config)
    return folder


@pytest.fixture(scope="session")
def expected(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after `dedup` and `embed` by processes of this machine."""
    folder = shutil.copytree(project, tmp_path_factory.mktemp("expected") / "copy")
    for stage in ("dedup", "embed"):
        told(folder, stage, PIPELINE_ENGINE="processes:2")
    return folder


@pytest.fixture
def copy(project: Path, tmp_path: Path) -> Path:
    return shutil.copytree(project, tmp_path / "copy")


@pytest.fixture(scope="module")
def ray_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What drivers of the cluster need; nothing is written into the user's own folder."""
    own = {
        "HOME": str(tmp_path_factory.mktemp("home")),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in own.items():
            patch.setenv(name, value)
        patch.delenv("PYTHONPATH", raising=False)  # what workers have of the code was sent to them
        yield os.environ | own
