"""Program of a student: one function from pixels to logits, and that function as files."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from kd3_pipeline.console import printable
from kd3_pipeline.errors import UserError
from kd3_pipeline.models.checkpoint import ModelConfig
from kd3_pipeline.models.network import Network

InputKind = Literal["uint8", "float"]
ABOUT = "about"  # key of the JSON text, within a file, that says how to use it
INPUT, OUTPUT = "images", "logits"


class Shipped(nn.Module):
    """A network with the normalisation of its input before it.

    Args:
        kind: of the input: `uint8` is RGB [B, S, S, 3] as an image is decoded, `float` is float32
            [B, 3, S, S] from 0 to 1.
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, network: Network, config: ModelConfig, kind: InputKind) -> None:
        super().__init__()
        self.network, self.kind = network, kind
        mean, std = (torch.tensor(v, dtype=torch.float64) for v in (config.mean, config.std))
        top = 255 if kind == "uint8" else 1
        self.register_buffer("scale", (1 / (top * std)).float().view(3, 1, 1))
        self.register_buffer("offset", (mean / std).float().view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        if self.kind == "uint8":
            images = images.permute(0, 3, 1, 2)
        return self.network(images * self.scale - self.offset)


def as_input(pixels: np.ndarray, kind: InputKind) -> np.ndarray:
    """Pixels uint8 [B, S, S, 3] as a `Shipped` network of this kind takes them."""
    if kind == "uint8":
        return pixels
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)) / np.float32(255)


def about(config: ModelConfig, kind: InputKind) -> dict[str, Any]:
    """Directions for a file that stands alone: the config but for the architecture, and `input`."""
    values = asdict(config)
    del values["architecture"]
    return values | {"input": kind}


def export_program(network: Network, config: ModelConfig, kind: InputKind) -> ExportedProgram:
    """The student as a program of `torch.export`, for any number of images at a time.

    Raises:
        UserError: its architecture cannot be recorded.
    """
    shipped = Shipped(network, config, kind).eval().requires_grad_(False)
    pixels = np.zeros((2, config.input_size, config.input_size, 3), np.uint8)
    example = torch.from_numpy(as_input(pixels, kind))
    dynamic = {INPUT: {0: Dim("batch", min=1)}}
    with _plain_attention():
        try:
            program = torch.export.export(shipped, (example,), dynamic_shapes=dynamic)
        except Exception as first:  # stand-ins for tensors go through any code, which may fail
            try:  # by its bytecode: to the code that runs, `len(images)` is the example's
                program = torch.export.export(
                    shipped, (example,), dynamic_shapes=dynamic, strict=True
                )
            except Exception:
                raise _unsuited("torch.export", first, "all but safetensors") from None
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # lines and paths of the machine that exported
    return program


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Attention by operations that others know, not by PyTorch's own one for inference."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def write_torch(path: Path, program: ExportedProgram, describe: dict[str, Any]) -> None:
    """Writes `program` for `torch.export.load`; its bytes depend on the file's name as well."""
    torch.export.save(program, path, extra_files={ABOUT: _text(describe)})


def write_onnx(path: Path, program: ExportedProgram, describe: dict[str, Any]) -> None:
    """Writes `program` as ONNX; needs the packages onnx and onnxscript.

    Raises:
        UserError: ONNX has no such operation.
    """
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    try:
        exported = torch.onnx.export(
            program,
            (),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes={INPUT: {0: "batch"}},
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        raise _unsuited("ONNX", error, "onnx") from None
    assert exported is not None  # as no file was named
    ClearMetadataAndDocStringPass()(exported.model)  # names of modules, paths of the machine
    exported.model.metadata_props[ABOUT] = _text(describe)
    exported.save(path)


def _unsuited(what: str, error: Exception, formats: str) -> UserError:
    cause = error.__cause__ or error  # torch.onnx tells it last, after what to report to whom
    text = " ".join(str(cause).split())  # what it is about may stand in the second line
    reason = f"{type(cause).__name__}: {printable(text)[:300]}"
    return UserError(
        f"{what} cannot hold this student: {reason}", f"take {formats} out of export.formats"
    )


def _text(describe: dict[str, Any]) -> str:
    return json.dumps(describe, ensure_ascii=False)
