"""One run of the whole pipeline under the real DVC, shared by the tests that look at it."""

import io
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from PIL import Image

from pipeline.demo.domains import original_images
from pipeline.demo.shapes import CLASS_NAMES
from tests.stages.workspace import TINY, copy_project, fresh_copy, run


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project after `git init` and a first `dvc repro` with tiny parameters."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return first_run(tmp_path_factory.mktemp("project"))
    # processes that share the tests share one run as well, and have a copy each
    shared = tmp_path_factory.getbasetemp().parent / "project"
    with FileLock(f"{shared}.lock"):
        if not (shared / "repro.log").exists():
            first_run(shared)
    return fresh_copy(shared, tmp_path_factory.mktemp("shared"))


def first_run(folder: Path) -> Path:
    copy_project(folder, TINY)
    write_labelled(folder / "original.parquet", 320)
    run(folder, "git", "init", "-q")
    run(folder, "git", "add", ".")
    run(folder, "git", "commit", "-qm", "start")
    done = run(folder, "dvc", "repro")
    run(folder, "git", "add", "reports", "dvc.lock")
    run(folder, "git", "commit", "-qm", "first run")
    (folder / "repro.log").write_text(done.stdout)
    return folder


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
