"""Files of a student, written and then opened again to see that they are the student."""

import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.console import Advance, no_progress
from pipeline.export.checks import Pixels, agreement, compare
from pipeline.export.model import open_model
from pipeline.export.program import (
    InputKind,
    about,
    as_input,
    export_program,
    write_onnx,
    write_torch,
)
from pipeline.export.quantised import Scheme, write_int8
from pipeline.models.checkpoint import WEIGHTS, ModelConfig, save_model
from pipeline.models.network import Network

ONNX, TORCH, INT8 = "model.onnx", "model.pt2", "model-int8.onnx"


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
    """Writes the student into `folder`: always as safetensors, in `formats` as onnx and torch.

    Args:
        kind: what the ONNX and torch files take, as `Shipped` has it.
        int8: also quantise the ONNX file; needs `onnx` among the formats.

    Returns:
        Names of the files that hold a network.
    """
    save_model(folder, network, config)
    names = [WEIGHTS]
    advance(1, WEIGHTS)
    if "onnx" not in formats and "torch" not in formats:
        return names
    program, describe = export_program(network, config, kind), about(config, kind)
    if "onnx" in formats:
        write_onnx(folder / ONNX, program, describe)
        names.append(ONNX)
        advance(1, ONNX)
    if "torch" in formats:
        write_torch(folder / TORCH, program, describe)
        names.append(TORCH)
        advance(1, TORCH)
    if int8:
        write_int8(folder / INT8, folder / ONNX, int8, as_input(pixels.calibrate, kind))
        names.append(INT8)
        advance(1, INT8)
    return names


def check_files(
    folder: Path,
    names: Sequence[str],
    expected: np.ndarray,
    pixels: Pixels,
    advance: Advance = no_progress,
) -> list[dict[str, Any]]:
    """Opens each file and compares its logits with those of the student, `expected`.

    Returns:
        Of each: file, bytes, sha256, max_difference of a logit, and same_class, the share of web
        images with the same class. That of 8 bits may differ, the others must not.

    Raises:
        ExternalError: as `compare`.
    """
    rows = []
    for name in names:
        logits = open_model(folder / name).logits(pixels.compare)
        if name != INT8:
            compare(name, logits, expected)
        data = (folder / name).read_bytes()
        rows.append(
            {
                "file": name,
                "bytes": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
                "max_difference": float(np.abs(logits - expected).max()),
                "same_class": agreement(logits[: pixels.web], expected[: pixels.web]),
            }
        )
        advance(1, name)
    return rows
