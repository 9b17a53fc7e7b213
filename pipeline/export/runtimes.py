"""Runtimes other than those that the files are made for: what each answers from model.onnx."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shutil import which

import numpy as np

from kd3_pipeline.console import printable
from kd3_pipeline.errors import PipelineError
from kd3_pipeline.export.program import INPUT, OUTPUT, InputKind

Run = Callable[[np.ndarray], np.ndarray]  # images as the file takes them -> logits [N, C]


class RuntimeFailure(PipelineError):
    """A runtime cannot read the file, or stopped on it."""


@dataclass(frozen=True)
class Runtime:
    """A runtime that reads ONNX, or whose converter does.

    Attributes:
        packages: it needs these, as pip calls them; the first one has its version.
        load: opens a file for inputs of this kind, and images of `side` pixels.
    """

    packages: tuple[str, ...]
    load: Callable[[Path, InputKind, int], Run]

    @property
    def lacking(self) -> list[str]:
        """Packages that are not installed."""
        return [name for name in self.packages if _version(name) is None]

    @property
    def name(self) -> str:
        """Package and version."""
        return f"{self.packages[0]} {_version(self.packages[0])}"

    def logits(self, path: Path, kind: InputKind, images: np.ndarray) -> np.ndarray:
        """Logits [N, C] of images as the file takes them.

        Raises:
            RuntimeFailure: in one line, what it said.
        """
        try:
            side = images.shape[1 if kind == "uint8" else 2]
            answer = self.load(path, kind, side)(images)
            return np.asarray(answer, np.float32).reshape(len(images), -1)
        except Exception as error:  # each library has errors of its own, and some have any
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
            raise RuntimeFailure(f"{type(error).__name__}: {printable(lines[-1])[:200]}") from None


def _openvino(path: Path, kind: InputKind, side: int) -> Run:
    import openvino

    # some processors have numbers of 16 bits, which it takes unless told otherwise
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(path, "CPU", exact)
    return lambda images: np.array(model(images)[0])


def _opencv(path: Path, kind: InputKind, side: int) -> Run:
    import cv2

    network = cv2.dnn.readNetFromONNX(str(path))

    def run(images: np.ndarray) -> np.ndarray:
        network.setInput(images, INPUT)
        return network.forward()

    return run


def _mnn(path: Path, kind: InputKind, side: int) -> Run:
    from MNN import expr, nn

    with tempfile.TemporaryDirectory() as folder:
        converted = Path(folder) / "model.mnn"
        # not its command: that installs a package, and sends the machine's id to its makers
        convert = "import sys, MNN, _tools; _tools.mnnconvert(sys.argv)"
        names = ["--modelFile", str(path), "--MNNModel", str(converted), "--bizCode", "kd3"]
        _run([sys.executable, "-c", convert, "-f", "ONNX", *names], converted)
        network = nn.load_module_from_file(str(converted), [INPUT], [OUTPUT])

    def run(images: np.ndarray) -> np.ndarray:
        # NCHW says "as it lies" of a file that was ONNX; NHWC turns bytes round once more
        number = expr.uint8 if kind == "uint8" else expr.float
        given = expr.const(images, list(images.shape), expr.NCHW, number)
        (answer,) = network.onForward([given])
        return np.array(answer.read())

    return run


def _ncnn(path: Path, kind: InputKind, side: int) -> Run:
    import ncnn

    shape = f"[1,{side},{side},3]u8" if kind == "uint8" else f"[1,3,{side},{side}]f32"
    network = ncnn.Net()
    network.opt.use_fp16_packed = False
    network.opt.use_fp16_storage = False
    network.opt.use_fp16_arithmetic = False
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "model.ncnn.bin"
        (Path(folder) / "model.onnx").write_bytes(path.read_bytes())
        # weights would be rounded to 16 bits
        _run([_program("pnnx"), "model.onnx", f"inputshape={shape}", "fp16=0"], weights, folder)
        if network.load_param(str(weights.with_suffix(".param"))):
            raise RuntimeError("ncnn lacks a layer of it")
        if network.load_model(str(weights)):
            raise RuntimeError("ncnn cannot read the weights")
    (into, *_), (out, *_) = network.input_names(), network.output_names()

    def run(images: np.ndarray) -> np.ndarray:
        answers = []
        for image in images:
            extractor = network.create_extractor()
            extractor.input(into, ncnn.Mat(np.ascontiguousarray(image)).clone())
            failed, answer = extractor.extract(out)
            if failed:
                raise RuntimeError("ncnn stopped within the network")
            answers.append(np.array(answer).ravel())
        return np.stack(answers)

    return run


RUNTIMES = {
    "openvino": Runtime(("openvino",), _openvino),
    "opencv": Runtime(("opencv-python-headless",), _opencv),
    "mnn": Runtime(("mnn",), _mnn),
    "ncnn": Runtime(("ncnn", "pnnx"), _ncnn),
}


def _program(name: str) -> str:
    """Path of a package's program: beside this Python, or where the shell looks."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else which(name)
    if not found:
        raise FileNotFoundError(f"no program {name} beside {sys.executable}")
    return found


def _run(command: list[str], made: Path, folder: str | None = None) -> None:
    """Runs a converter, which has to have `made` a file."""
    alone = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=folder, env=alone, capture_output=True, text=True, errors="replace"
    )
    if not made.is_file():
        lines = [*done.stdout.splitlines(), *done.stderr.splitlines()] or ["it said nothing"]
        raise RuntimeError(f"{Path(command[0]).name} made no {made.name}: {lines[-1]}")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
