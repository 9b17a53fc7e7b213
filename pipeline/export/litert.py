"""LiteRT file of a student, for phones and small devices: converted in a process of its own.

The converter speaks on both streams, and needs a GB of memory that it does not give back:
`python -m kd3_pipeline.export.litert PROGRAM.pt2 FILE.tflite ABOUT.json`.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from kd3_pipeline.console import printable
from kd3_pipeline.errors import UserError

ABOUT = "about"  # key of the metadata that says how to use the file


def write_litert(path: Path, program: Path, describe: dict[str, Any]) -> None:
    """Writes `program`, a file of torch.export of our own, as LiteRT for one image at a time.

    Raises:
        UserError: the converter has no such operation.
    """
    told = path.with_suffix(".json")
    told.write_text(json.dumps(describe, ensure_ascii=False), "utf-8")
    command = [
        sys.executable,
        "-m",
        "kd3_pipeline.export.litert",
        str(program),
        str(path),
        str(told),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    finally:
        told.unlink()
    if done.returncode or not path.is_file():
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
        raise UserError(
            f"LiteRT cannot hold this student: {printable(lines[-1])[:300]}",
            "take litert out of export.formats",
        )


def read_about(data: bytes) -> str:
    """What `write_litert` put into a file of LiteRT, as text; empty: nothing."""
    from ai_edge_litert.schema_py_generated import Model

    model = Model.GetRootAs(data, 0)
    for place in range(model.MetadataLength()):
        entry = model.Metadata(place)
        if entry.Name() == ABOUT.encode():
            return bytes(model.Buffers(entry.Buffer()).DataAsNumpy()).decode("utf-8")
    return ""


def _convert(program: Path, path: Path, told: Path) -> None:
    import litert_torch
    import torch
    from ai_edge_litert.schema_py_generated import BufferT, MetadataT
    from ai_edge_litert.tools import flatbuffer_utils

    exported = torch.export.load(program)
    (example,) = exported.example_inputs[0]
    litert_torch.convert(exported.module(), (example[:1],)).export(str(path))
    model = flatbuffer_utils.read_model(str(path))
    buffer, entry = BufferT(), MetadataT()
    buffer.data = list(told.read_bytes())
    entry.name, entry.buffer = ABOUT, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    flatbuffer_utils.write_model(model, str(path))


if __name__ == "__main__":
    _convert(*map(Path, sys.argv[1:]))
