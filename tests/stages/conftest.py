"""One run of the whole pipeline under the real DVC, shared by the tests that look at it."""

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.demo.domains import original_images
from pipeline.demo.shapes import CLASS_NAMES
from tests.stages.workspace import TINY, copy_project, run


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project after `git init` and a first `dvc repro` with tiny parameters."""
    folder = copy_project(tmp_path_factory.mktemp("project"), TINY)
    write_labelled(folder / "original.parquet", 320)
    run(folder, "git", "init", "-q")
    run(folder, "git", "add", ".")
    run(folder, "git", "commit", "-qm", "start")
    done = run(folder, "dvc", "repro")
    (folder / "repro.log").write_text(done.stdout)
    run(folder, "git", "add", "reports", "dvc.lock")
    run(folder, "git", "commit", "-qm", "first run")
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
