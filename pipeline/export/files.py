"""Files of a student, written and then opened again to see that they are the student."""

import hashlib
import math
import tempfile
from collections.abc import Callable, Collection, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from torch.export import ExportedProgram

from kd3_pipeline.console import Advance, no_progress
from kd3_pipeline.export.checks import (
    FLOAT,
    HALF,
    Comparison,
    Pixels,
    agreement,
    compare,
    require_student,
)
from kd3_pipeline.export.half import write_fp16
from kd3_pipeline.export.litert import write_litert
from kd3_pipeline.export.model import open_model
from kd3_pipeline.export.program import (
    InputKind,
    about,
    as_input,
    export_program,
    write_onnx,
    write_torch,
)
from kd3_pipeline.export.quantised import Scheme, write_int8
from kd3_pipeline.models.checkpoint import WEIGHTS, ModelConfig, save_model
from kd3_pipeline.models.network import Network

ONNX, TORCH, LITERT = "model.onnx", "model.pt2", "model.tflite"
FP16, INT8 = "model-fp16.onnx", "model-int8.onnx"
REDUCED = (FP16, INT8)  # may be left out where they are too far from the student


def write_files(
    folder: Path,
    network: Network,
    config: ModelConfig,
    *,
    formats: Collection[str],
    kind: InputKind,
    int8: Scheme | None,
    pixels: Pixels,
    advance: Advance = no_progress,
) -> list[str]:
    """Writes the student into `folder`: always as safetensors, and in the other `formats`.

    Args:
        formats: of onnx, onnx-fp16, torch, litert; onnx-fp16 is made of onnx, and needs it.
        kind: what all files but safetensors take, as `Shipped` has it.
        int8: also quantise the ONNX file; needs `onnx` among the formats.
        advance: called before each file with 0 and its name, and after it with 1.

    Returns:
        Names of the files that hold a network.
    """
    describe = about(config, kind)

    @cache
    def program() -> ExportedProgram:
        return export_program(network, config, kind)

    def litert(path: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            write_torch(Path(scratch) / TORCH, program(), describe)
            write_litert(path, Path(scratch) / TORCH, describe)

    writers: dict[str, Callable[[Path], object]] = {}
    writers[WEIGHTS] = lambda path: save_model(path.parent, network, config)
    if "onnx" in formats:
        writers[ONNX] = lambda path: write_onnx(path, program(), describe)
    if "torch" in formats:
        writers[TORCH] = lambda path: write_torch(path, program(), describe)
    if "onnx-fp16" in formats:
        writers[FP16] = lambda path: write_fp16(path, folder / ONNX, as_input(pixels.compare, kind))
    if int8:
        scheme, images = int8, as_input(pixels.calibrate, kind)
        writers[INT8] = lambda path: write_int8(path, folder / ONNX, scheme, images)
    if "litert" in formats:
        writers[LITERT] = litert
    for name, write in writers.items():
        advance(0, name)
        write(folder / name)
        advance(1, name)
    return list(writers)


def check_files(
    folder: Path,
    names: Sequence[str],
    expected: np.ndarray,
    pixels: Pixels,
    advance: Advance = no_progress,
    int8_agreement: float = 0.0,
) -> list[dict[str, Any]]:
    """Opens each file and compares its logits with those of the student, `expected`.

    Args:
        int8_agreement: smallest share of web images on which 8 bits have the student's class.

    Returns:
        Of each: file, bytes, sha256, runtime, and the `measured` values; `agrees` may be false for
        files of 8 and 16 bits.

    Raises:
        ExternalError: another file is not the student.
    """
    rows = []
    for name in names:
        advance(0, f"check {name}")
        model = open_model(folder / name)
        logits = model.logits(pixels.compare)
        found = compare(logits, expected, HALF if name == FP16 else FLOAT)
        if name not in REDUCED:
            require_student(name, found, len(expected))
        row = measured(found, logits[: pixels.web], expected[: pixels.web])
        if name == INT8:
            row["agrees"] = row["same_class"] >= int8_agreement
        data = (folder / name).read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        head = {"file": name, "bytes": len(data), "sha256": digest, "runtime": model.runtime}
        rows.append(head | row)
        advance(1, name)
    return rows


def measured(found: Comparison, logits: np.ndarray, expected: np.ndarray) -> dict[str, Any]:
    """A comparison as JSON has it.

    Args:
        logits, expected: of the web images alone.

    Returns:
        max_difference of a logit, of_spread: the same in spreads of its image (both null where the
        file answers with no numbers); same_class: share of web images of the same class; ties:
        images of another class that is as likely; agrees.
    """
    finite = math.isfinite(found.difference)
    return {
        "max_difference": found.difference if finite else None,
        "of_spread": found.relative if finite else None,
        "same_class": agreement(logits, expected) if logits.shape == expected.shape else 0.0,
        "ties": found.ties,
        "agrees": found.agrees,
    }
