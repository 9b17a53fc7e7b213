"""A project in a folder, and its commands as processes of their own."""

import hashlib
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from kd3_pipeline.manifest import SCHEMA
from kd3_pipeline.store import StoredImage, write_shards, write_table
from tests.imports import ROOT

SIDE = 32
OUTPUTS = (
    *("data/dedup", "data/embed", "reports/dedup.json", "reports/embed.json"),
    *("reports/coverage.csv", "reports/classes.csv"),
)
PARAMS = """
dedup: {leaks: false}
embed: {device: cpu, precision: float32, batch_size: 20, redundant: 0.3}
"""


def crawled(folder: Path, drawn: tuple[np.ndarray, np.ndarray]) -> None:
    """Writes a crawl of pictures, of which each seventh comes again, cut a little."""
    images = []
    for row, (pixels, label) in enumerate(zip(*drawn, strict=True)):
        picture = Image.fromarray(pixels).resize((96, 96))
        for cut in (False, True)[: 1 + (row % 7 == 0)]:
            out = io.BytesIO()
            (picture.crop((3, 3, 93, 93)) if cut else picture).save(out, "JPEG", quality=92)
            data, side = out.getvalue(), 90 if cut else 96
            name = hashlib.sha256(data).hexdigest()
            images.append(StoredImage(name, data, int(label), side, side, "JPEG"))
    names = [f"class {label}" for label in range(10)]
    write_shards(folder / "data/crawl", images, names)
    rows = {
        "label": [image.label for image in images],
        "id": [image.id for image in images],
        "outcome": ["stored"] * len(images),
        "class": [names[image.label] for image in images],
        "url": [f"https://a.example/{row}.jpg" for row in range(len(images))],
    }
    nothing = [None] * len(images)
    columns = [pa.array(rows.get(name, nothing), SCHEMA.field(name).type) for name in SCHEMA.names]
    write_table(folder / "data/crawl/manifest.parquet", pa.table(columns, schema=SCHEMA))
    (folder / "params.yaml").write_text(PARAMS)


def started(folder: Path, stage: str, **environment: str) -> subprocess.Popen[str]:
    """A stage as a person would start it, with its own code before any installed."""
    own = {name: value for name, value in os.environ.items() if not name.endswith("_ADDRESS")}
    own |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment
    command = [sys.executable, "-m", "kd3_stages", stage]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=own, stdout=pipe, stderr=pipe, text=True)


def told(folder: Path, stage: str, code: int = 0, **environment: str) -> str:
    """Runs a stage to its end, and gives what it said on stderr."""
    process = started(folder, stage, **environment)
    out, said = process.communicate(timeout=300)
    assert process.returncode == code, out + said
    return said


def outputs(folder: Path) -> dict[str, bytes]:
    """What the stages wrote, by file."""
    paths = [path for name in OUTPUTS for path in (folder / name, *(folder / name).glob("*"))]
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in paths if path.is_file()
    }
