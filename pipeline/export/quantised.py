"""Quantisation of a student: ONNX with weights and activations of 8 bits, by onnxruntime."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from kd3_pipeline.export.program import INPUT

Scheme = Literal["dynamic", "static"]
LAYERS = ["Conv", "Gemm", "MatMul"]
CALIBRATION_BATCH = 64


def write_int8(path: Path, source: Path, scheme: Scheme, images: np.ndarray) -> None:
    """Quantises the ONNX file `source`.

    `static` fixes the range of each activation by `images`; `dynamic` finds it anew for every
    batch, and reads no images.

    Args:
        images: as the network of `source` takes them.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        if scheme == "dynamic":
            # onnxruntime has no convolution with signed weights whose input range is not known
            quantize_dynamic(
                prepared, path, op_types_to_quantize=LAYERS, weight_type=QuantType.QUInt8
            )
        else:
            quantize_static(
                prepared,
                path,
                Batches(images),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=[*LAYERS, "Add", "Relu"],
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
            )


class Batches:
    """Batches as onnxruntime's calibration asks for them."""

    def __init__(self, images: np.ndarray) -> None:
        self._batches: Iterator[np.ndarray] = (
            images[start : start + CALIBRATION_BATCH]
            for start in range(0, len(images), CALIBRATION_BATCH)
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}
