"""Exported student, opened from whichever file, as one function from pixels to logits."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.console import Advance, no_progress
from pipeline.errors import UserError
from pipeline.export.program import ABOUT, INPUT, as_input
from pipeline.images import Fit
from pipeline.models.checkpoint import WEIGHTS
from pipeline.pixelfile import Pixels

BATCH = 64
SUFFIXES = (".safetensors", ".onnx", ".pt2")
Logits = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Model:
    """A student and how to use it.

    Attributes:
        fit: how an image is made square.
        temperature: that logits are divided by before the softmax.
    """

    class_names: list[str]
    input_size: int
    fit: Fit
    temperature: float
    _run: Logits

    def logits(self, pixels: Pixels, advance: Advance = no_progress) -> np.ndarray:
        """uint8 [N, S, S, 3] → float32 [N, classes]."""
        parts = []
        for start in range(0, len(pixels), BATCH):
            parts.append(self._run(pixels[start : start + BATCH]))
            advance(len(parts[-1]))
        return np.concatenate(parts)

    def confidences(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 [N, S, S, 3] → softmax of the tempered logits, float64 [N, classes]."""
        logits = self.logits(pixels).astype(np.float64) / self.temperature
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return odds / odds.sum(axis=1, keepdims=True)


def open_model(path: Path) -> Model:
    """Opens what `pipeline export` wrote; by its suffix .safetensors, .onnx or .pt2.

    A .pt2 file can hold code that runs when it is opened.

    Raises:
        UserError: it is missing or damaged, of another origin, or its package is not installed.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: no model ends so", f"expected {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise UserError(f"{path} not found", "run `pipeline export`, or name another --model")
    return {".safetensors": _safetensors, ".onnx": _onnx, ".pt2": _torch}[path.suffix](path)


def _safetensors(path: Path) -> Model:
    import torch

    from pipeline.models.distilled import load_student
    from pipeline.pixels import normalise

    if path.name != WEIGHTS:
        raise UserError(f"{path}: expected a file named {WEIGHTS} with its config.json beside it")
    network, config = load_student(path.parent, torch.device("cpu"))

    @torch.inference_mode()
    def run(pixels: np.ndarray) -> np.ndarray:
        return network(normalise(torch.tensor(pixels), config.mean, config.std)).numpy()

    fit = config.fit or "crop"
    return Model(config.class_names, config.input_size, fit, config.temperature, run)


def _onnx(path: Path) -> Model:
    try:
        import onnxruntime
    except ImportError:
        raise UserError(
            f"{path}: onnxruntime is not installed", "pip install 'kd3-pipeline[export]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        told = session.get_modelmeta().custom_metadata_map.get(ABOUT, "")
    except Exception as error:  # a class of its own for each way to be damaged, none in common
        raise _damaged(path, error) from None
    return _described(path, told, lambda images: session.run(None, {INPUT: images})[0])


def _torch(path: Path) -> Model:
    import torch

    files = {ABOUT: ""}
    try:
        module = torch.export.load(path, extra_files=files).module()
    except Exception as error:  # the reader of archives and of graphs may fail in any way
        raise _damaged(path, error) from None

    @torch.inference_mode()
    def run(images: np.ndarray) -> np.ndarray:
        return module(torch.tensor(images)).numpy()

    return _described(path, files[ABOUT], run)


def _described(path: Path, text: str, run: Logits) -> Model:
    try:
        about: dict[str, Any] = json.loads(text)
        names, side, kind = (about[key] for key in ("class_names", "input_size", "input"))
        fit: Fit = about["fit"] or "crop"
        temperature = float(about["temperature"])
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{path} does not say how to use it", "write it by `pipeline export`"
        ) from None
    return Model(names, side, fit, temperature, lambda pixels: run(as_input(pixels, kind)))


def _damaged(path: Path, error: Exception) -> UserError:
    lines = str(error).splitlines() or [""]
    reason = f"{type(error).__name__}: {lines[0][:200]}"
    return UserError(f"{path} holds no model: {reason}", "run `pipeline export` again")
