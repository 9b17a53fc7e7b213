"""Exported student, opened from whichever file, as one function from pixels to logits."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from kd3_pipeline.console import Advance, no_progress
from kd3_pipeline.errors import UserError, first_line
from kd3_pipeline.export.program import ABOUT, INPUT, as_input
from kd3_pipeline.extras import ONNX, install, install_extra
from kd3_pipeline.frames import Fit, Frame
from kd3_pipeline.models.checkpoint import WEIGHTS
from kd3_pipeline.pixelstore import Pixels

BATCH = 64
SUFFIXES = (".safetensors", ".onnx", ".pt2", ".tflite")
Logits = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Model:
    """A student and how to use it.

    Attributes:
        fit, resize: how an image is made square, as `Frame` has it.
        temperature: that logits are divided by before the softmax.
        runtime: package that runs it, with its version.
    """

    class_names: list[str]
    input_size: int
    fit: Fit
    resize: int
    temperature: float
    runtime: str
    _run: Logits

    @property
    def frame(self) -> Frame:
        return Frame(self.input_size, self.fit, self.resize)

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
    """Opens what `pipeline export` wrote; by its suffix .safetensors, .onnx, .pt2 or .tflite.

    A .pt2 file can hold code that runs when it is opened.

    Raises:
        UserError: it is missing or damaged, of another origin, or its package is not installed.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: no model ends so", f"expected {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise UserError(f"{path} not found", "run `pipeline export`, or name another --model")
    openers = {
        ".safetensors": _safetensors,
        ".onnx": _onnx,
        ".pt2": _torch,
        ".tflite": _litert,
    }
    return openers[path.suffix](path)


def _safetensors(path: Path) -> Model:
    import torch

    from kd3_pipeline.models.distilled import load_student
    from kd3_pipeline.pixels import normalise

    if path.name != WEIGHTS:
        raise UserError(f"{path}: expected a file named {WEIGHTS} with its config.json beside it")
    network, config = load_student(path.parent, torch.device("cpu"))

    @torch.inference_mode()
    def run(pixels: np.ndarray) -> np.ndarray:
        return network(normalise(torch.tensor(pixels), config.mean, config.std)).numpy()

    return Model(
        config.class_names,
        config.input_size,
        config.fit or "crop",
        config.resize,
        config.temperature,
        f"torch {torch.__version__}",
        run,
    )


def _onnx(path: Path) -> Model:
    try:
        import onnxruntime
    except ImportError:
        raise UserError(f"{path}: onnxruntime is not installed", install(*ONNX)) from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        told = session.get_modelmeta().custom_metadata_map.get(ABOUT, "")
    except Exception as error:  # a class of its own for each way to be damaged, none in common
        raise _damaged(path, error) from None
    runtime = f"onnxruntime {onnxruntime.__version__}"
    return _described(path, told, runtime, lambda images: session.run(None, {INPUT: images})[0])


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

    return _described(path, files[ABOUT], f"torch {torch.__version__}", run)


def _litert(path: Path) -> Model:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        raise UserError(
            f"{path}: ai-edge-litert is not installed", install_extra("litert")
        ) from None
    from kd3_pipeline.export.litert import read_about

    try:
        interpreter = Interpreter(str(path))
        interpreter.allocate_tensors()
        told = read_about(path.read_bytes())
    except Exception as error:  # whatever the reader of flatbuffers raises
        raise _damaged(path, error) from None
    (into,), (out,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(images: np.ndarray) -> np.ndarray:
        answers = []
        for image in images:  # the file takes one at a time
            interpreter.set_tensor(into["index"], image[None])
            interpreter.invoke()
            answers.append(interpreter.get_tensor(out["index"]))
        return np.concatenate(answers)

    return _described(path, told, f"ai-edge-litert {version('ai-edge-litert')}", run)


def _described(path: Path, text: str, runtime: str, run: Logits) -> Model:
    try:
        about: dict[str, Any] = json.loads(text)
        names, side, kind = (about[key] for key in ("class_names", "input_size", "input"))
        fit: Fit = about["fit"] or "crop"
        resize, temperature = int(about.get("resize", 0)), float(about["temperature"])
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{path} does not say how to use it", "write it by `pipeline export`"
        ) from None

    def from_pixels(pixels: np.ndarray) -> np.ndarray:
        return run(as_input(pixels, kind))

    return Model(names, side, fit, resize, temperature, runtime, from_pixels)


def _damaged(path: Path, error: Exception) -> UserError:
    reason = f"{type(error).__name__}: {first_line(error)}"
    return UserError(f"{path} holds no model: {reason}", "run `pipeline export` again")
