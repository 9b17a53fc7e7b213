"""Runs of the whole pipeline under the real DVC, shared by the tests that look at them."""

import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from PIL import Image

from kd3_pipeline.demo.domains import original_images
from kd3_pipeline.demo.shapes import CLASS_NAMES
from tests.stages.workspace import (
    OUTSIDE,
    STAGES,
    TINY,
    copy_project,
    fresh_copy,
    repro,
    run,
    stub_project,
)

# one process for all of them, as loading what they need takes longer than their work here
EVERY_STAGE = """
import sys
from kd3_stages.cli import app
for stage in sys.argv[1:]:
    app([stage, "--quiet"], standalone_mode=False)
"""


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with tiny parameters, every stage run once and known to DVC and git."""
    return shared_by_processes(tmp_path_factory, "project", first_run)


@pytest.fixture(scope="session")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with stages that do no work and many inputs outside it; tests take a copy."""
    return shared_by_processes(tmp_path_factory, "stub", first_stub_run)


def shared_by_processes(
    factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]
) -> Path:
    """A folder that `make` fills once, of which each process that runs tests has a copy."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        folder = factory.mktemp(name)
        make(folder)
        return folder
    shared = factory.getbasetemp().parent / name
    with FileLock(f"{shared}.lock"):
        if not (shared / ".made").exists():
            make(shared)
            (shared / ".made").touch()
    return fresh_copy(shared, factory.mktemp(name))


def first_run(folder: Path) -> None:
    copy_project(folder, TINY)
    write_labelled(folder / "original.parquet", 320)
    run(folder, "git", "init", "-q")
    run(folder, "git", "add", ".")
    run(folder, "git", "commit", "-qm", "start")
    run(folder, sys.executable, "-c", EVERY_STAGE, *STAGES)
    run(folder, "dvc", "commit", "--force", "--quiet")
    run(folder, "git", "add", "reports", "dvc.lock")
    run(folder, "git", "commit", "-qm", "first run")


def first_stub_run(folder: Path) -> None:
    stub_project(folder, OUTSIDE)
    for name in ("teacher/resnet8.pt", "images/cat/1.jpg", "styles/art/cat/1.jpg", "web/1.jpg"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    assert len(repro(folder)) == 8


def write_labelled(path: Path, count: int) -> None:
    """A labelled data set as a file: the demo's originals as PNG in Parquet."""
    pixels, labels = original_images("train", count, 32, 7)
    rows = []
    for image in pixels:
        data = io.BytesIO()
        Image.fromarray(image).save(data, "PNG")
        rows.append({"bytes": data.getvalue(), "path": "image.png"})
    features = {"label": {"names": list(CLASS_NAMES), "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table({"image": rows, "label": labels}).replace_schema_metadata(metadata)
    pq.write_table(table, path)
