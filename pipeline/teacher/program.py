"""Teacher that is a program: a file of ONNX, TorchScript or `torch.export`, tried before it is
taken."""

import hashlib
import json
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kd3_pipeline.errors import UserError
from kd3_pipeline.models.finite import pictures
from kd3_pipeline.models.program import FILES, Program, ProgramSpec, Values, open_program
from kd3_pipeline.params import Teacher
from kd3_pipeline.pixels import normalise
from kd3_pipeline.program.archive import checked_copy
from kd3_pipeline.program.client import Kind, ProgramProcess
from kd3_pipeline.program.onnx_graph import OnnxGraph, Tail, chosen_output, read_onnx
from kd3_pipeline.unpacked import check_unpacked
from kd3_pipeline.weights.files import check_sha256

NAMES = {"onnx": "ONNX", "torchscript": "TorchScript", "export": "torch.export"}
CLOSE = 1e-4  # of the largest logit: what the tail on the features may differ from the logits
SURE = 1e-3  # what probabilities of a batch may be off a sum of 1


@dataclass(frozen=True)
class About:
    """What `pipeline export` writes into the files of a student, as far as a file says it."""

    class_names: list[str] = field(default_factory=list)
    input_size: int = 0
    mean: list[float] = field(default_factory=list)
    std: list[float] = field(default_factory=list)
    values: Values = "normalised"
    fit: str = ""
    resize: int = 0


@dataclass(frozen=True)
class ProgramTeacher:
    """A program that was tried, with what its checkpoint says beside it.

    Attributes:
        data: the file to keep: with its weights inside, and nothing in it that was not read.
        sha256: of the user's file.
        notes: for the user, a line each.
    """

    network: Program
    data: bytes
    class_names: list[str]
    mean: list[float]
    std: list[float]
    input_size: int
    fit: str
    resize: int
    sha256: str
    notes: list[str]


def read_program(section: Teacher, kind: Kind) -> ProgramTeacher:
    """Opens `teacher.path` in a process of its own, and finds out how it is to be asked.

    Raises:
        UserError: it may do more than compute, or cannot be opened, or answers no batch of images
            of `teacher.input_size` with finite numbers, one for each class; names the parameter
            that helps.
    """
    path = Path(section.path)
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    check_sha256(digest, section.sha256, str(path))
    graph = read_onnx(path, section.output) if kind == "onnx" else None
    about = _about(graph.about if graph else _extra(path))
    data = graph.data if graph else _archive(path, kind, section.trust)
    notes = list(graph.notes) if graph else []
    section, told = _with_about(section, about)
    notes += told
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / FILES[kind]
        file.write_bytes(data)
        process = open_program(file, kind, not section.output, torch.device("cpu"))
    spec, tail, more = _Trial(section, kind, process, about).spec(graph)
    process.outputs = spec.outputs
    network = Program(process, spec, section.mean, section.std, tail)
    names = section.class_names or about.class_names
    return ProgramTeacher(
        network,
        data,
        list(names) or [f"class {k}" for k in range(spec.num_classes)],
        list(section.mean),
        list(section.std),
        section.input_size,
        about.fit,
        about.resize,
        digest,
        [f"{path.name} is a program of {NAMES[kind]}, run in a process of its own", *notes, *more],
    )


def _archive(path: Path, kind: Kind, trust: bool) -> bytes:
    return path.read_bytes() if trust else checked_copy(path, kind)


class _Trial:
    """Finds how a program is asked, by asking it for plain pictures."""

    def __init__(self, section: Teacher, kind: Kind, process: ProgramProcess, about: About) -> None:
        self.section, self.kind, self.process, self.about = section, kind, process, about
        self.path = Path(section.path).name
        shown = normalise(pictures(section.input_size), section.mean, section.std)
        self.images = torch.cat([shown, shown.flip(2, 3)])
        self.notes: list[str] = []

    def spec(self, graph: OnnxGraph | None) -> tuple[ProgramSpec, nn.Linear | None, list[str]]:
        """How it is asked, its tail, and what to tell."""
        failures: list[str] = []
        for spec in self._ways():
            try:
                answers = self._ask(spec)
            except UserError as error:
                failures.append(str(error).removeprefix(f"{self.process.path.name}: "))
                if self.process.dead:
                    raise
                continue
            return self._read(spec, answers, graph)
        raise UserError(
            f"teacher.path: {self.path} takes no images of {self.section.input_size} pixels"
            f" (teacher.input_size): {failures[0]}",
            "set teacher.input_size, and teacher.channels, to what it was exported for",
        )

    def _ways(self) -> Iterator[ProgramSpec]:
        """Ways to ask that its one input allows, the likeliest first."""
        inputs = self.process.described["inputs"]
        if len(inputs) != 1:
            listed = ", ".join(one["name"] for one in inputs)
            raise UserError(
                f"teacher.path: {self.path} takes {len(inputs)} inputs ({listed}); a teacher takes"
                " one, the images",
                "export it with the others fixed",
            )
        given = inputs[0]
        basis = ProgramSpec(
            num_classes=0,
            kind=self.kind,
            cut="logits",
            channels=0,
            outputs=[],
            dtype=given["dtype"],
            values=self.about.values,
            colours=self.section.channels,
            order=self.section.order,
            parameters=self.process.described.get("parameters") or 0,
        )
        if given["shape"] is not None:
            yield self._by_shape(basis, given)
            return
        for layout in ("nchw", "nhwc"):
            for dtype in dict.fromkeys([given["dtype"], "float32", "uint8"]):
                values: Values = "bytes" if dtype == "uint8" else basis.values
                for batch in (0, 1):
                    yield replace(basis, layout=layout, dtype=dtype, values=values, batch=batch)

    def _by_shape(self, basis: ProgramSpec, given: dict[str, Any]) -> ProgramSpec:
        """The way that the shape of the input tells."""
        shape, dtype, colours = given["shape"], given["dtype"], self.section.channels
        told = f"{dtype} {['?' if n is None else n for n in shape]}"
        if len(shape) != 4 or dtype not in ("float32", "float16", "float64", "bfloat16", "uint8"):
            raise UserError(
                f"teacher.path: the input '{given['name']}' of {self.path} is {told}, no batch of"
                " images",
                "export it for images [batch, channels, height, width]",
            )
        if dtype == "bfloat16":
            raise UserError(
                f"teacher.path: {self.path} takes bfloat16, which numpy does not have",
                "export it for float32 or float16",
            )
        last = shape[3] in (1, 3) and shape[1] not in (1, 3)
        # of two sizes that are free, bytes come as images are decoded
        last = last or (dtype == "uint8" and shape[1] not in (1, 3))
        channels, sides = (shape[3], shape[1:3]) if last else (shape[1], shape[2:4])
        if channels not in (None, colours):
            raise UserError(
                f"teacher.channels: {self.path} takes {channels} channels ({told}), not {colours}",
                f"set it to {channels}" if channels in (1, 3) else "a teacher sees images",
            )
        wrong = [side for side in sides if side not in (None, self.section.input_size)]
        if wrong:
            raise UserError(
                f"teacher.input_size: {self.path} takes images of {sides[0]}×{sides[1]} pixels, not"
                f" {self.section.input_size}",
                f"set it to {wrong[0]}" if sides[0] == sides[1] else "export it for a square",
            )
        values: Values = "bytes" if dtype == "uint8" else basis.values
        layout: Any = "nhwc" if last else "nchw"
        return replace(basis, layout=layout, values=values, batch=shape[0] or 0)

    def _ask(self, spec: ProgramSpec) -> list[np.ndarray]:
        """All outputs for the pictures; they are the same whatever they are asked with."""
        fed = Program(self.process, spec, self.section.mean, self.section.std).fed(self.images)
        count = len(fed)
        batch = spec.batch or count
        if short := -count % batch:
            fed = np.concatenate([fed] + [fed[-1:]] * short)
        parts = [self.process(fed[at : at + batch]) for at in range(0, len(fed), batch)]
        if any(one.ndim and len(one) != batch for part in parts for one in part[:1]):
            raise UserError(f"it answers {batch} images with {list(parts[0][0].shape)}")
        outputs = [np.concatenate(some)[:count] for some in zip(*parts, strict=True)]
        if not spec.batch:
            alone = self.process(fed[:1])
            for whole, one in zip(outputs, alone, strict=True):
                near = whole[:1].shape == one.shape and np.allclose(whole[:1], one, 1e-2, 1e-2)
                if not near and np.isfinite(whole).all():
                    raise UserError("it answers an image otherwise alone than among others")
        return outputs

    def _read(
        self, spec: ProgramSpec, answers: list[np.ndarray], graph: OnnxGraph | None
    ) -> tuple[ProgramSpec, nn.Linear | None, list[str]]:
        names = graph.outputs if graph else self.process.names
        cut = self.process.described.get("cut", False)
        if graph or cut:
            logits, name = answers[0], names[0]
        else:
            name = chosen_output(names, [one.ndim for one in answers], self.section.output)
            logits = answers[names.index(name)]
        logits = logits.reshape(len(logits), -1) if logits.ndim == 4 else logits
        if logits.ndim != 2 or answers[names.index(name)].ndim != 2:
            shape = list(answers[names.index(name)].shape[1:])
            raise UserError(
                f"teacher.output: '{name}' of {self.path} is {shape} for an image, not one number"
                " for each class",
                "set it to the output that holds the logits",
            )
        self._check_finite(logits)
        wanted = self.section.class_names or self.about.class_names
        if wanted and len(wanted) != logits.shape[1]:
            raise UserError(
                f"teacher.class_names: {len(wanted)} names for the {logits.shape[1]} outputs of"
                f" {self.path}"
            )
        spec = replace(spec, num_classes=logits.shape[1], channels=logits.shape[1], outputs=[name])
        if spec.values == "bytes" and self.about.values == "normalised":
            self.notes.append(
                "it takes bytes and normalises them itself: teacher.mean and teacher.std are the"
                " student's alone"
            )
        if spec.batch:
            self.notes.append(f"it takes {spec.batch} image{'s' * (spec.batch > 1)} at a time")
        if graph:
            spec = replace(spec, parameters=graph.parameters)
        stored = graph.tail if graph else _tail_of(self.process.tail) if cut else None
        tail = self._tail(spec, answers, stored) if stored else None
        if tail is None:
            return self._with_softmax(spec, logits), None, self.notes
        if self.process.described.get("softmax"):
            self.notes.append("its softmax is cut off: the logits before it are used")
        features, own = answers[1], sum(one.numel() for one in tail.parameters())
        place: Any = "map" if features.ndim == 4 else "vector"
        spec = replace(
            spec,
            cut=place,
            channels=features.shape[1],
            outputs=[names[1]],
            parameters=max(0, spec.parameters - own),
        )
        return spec, tail, self.notes

    def _check_finite(self, logits: np.ndarray) -> None:
        if np.isfinite(logits).all():
            return
        raise UserError(
            f"teacher.path: {self.path} answers plain pictures (black, white, noise) with values"
            " that are not finite",
            "its weights are damaged, or teacher.mean and teacher.std are far off: take another"
            " file, or correct these",
        )

    def _with_softmax(self, spec: ProgramSpec, logits: np.ndarray) -> ProgramSpec:
        if spec.cut != "logits" or logits.shape[1] < 2:
            return spec
        if (logits >= 0).all() and np.abs(logits.sum(axis=1) - 1).max() < SURE:
            self.notes.append(
                "its outputs sum to 1: they are probabilities, and their logarithms are taken for"
                " logits"
            )
            return replace(spec, softmax=True)
        if (logits >= 0).all() and (logits <= 1).all():
            self.notes.append(
                "its outputs lie between 0 and 1 and do not sum to 1, as after a sigmoid: they are"
                " taken for logits as they are"
            )
        return spec

    def _tail(self, spec: ProgramSpec, answers: list[np.ndarray], stored: Tail) -> nn.Linear | None:
        """The last linear layer, where it gives the graph's own logits from the features."""
        features = torch.from_numpy(answers[1].astype(np.float32))
        pooled = features.mean(dim=(2, 3)) if features.ndim == 4 else features
        weight, bias = torch.tensor(stored.weight), torch.tensor(stored.bias)
        logits = torch.from_numpy(answers[0].astype(np.float32))
        if pooled.ndim != 2 or pooled.shape[1] != weight.shape[1]:
            return None
        tail = nn.Linear(weight.shape[1], weight.shape[0])
        tail.load_state_dict({"weight": weight, "bias": bias})
        with torch.no_grad():
            off = _relative(tail(pooled), logits)
        limit = CLOSE if spec.dtype != "float16" else 1e-2
        if off > limit or not pooled.isfinite().all():
            self.notes.append(
                f"its last linear layer on its features is {off:.2g} off its logits, relative to"
                " the largest: only its logits are used"
            )
            return None
        return tail.eval().requires_grad_(False)


def _tail_of(arrays: list[np.ndarray]) -> Tail:
    weight = arrays[0]
    return Tail(weight, arrays[1] if len(arrays) > 1 else np.zeros(len(weight), np.float32))


def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-12))


def _extra(path: Path) -> str:
    """What `pipeline export` has written into an archive of torch; empty: nothing."""
    try:
        with zipfile.ZipFile(path) as file:
            check_unpacked(file, path, "teacher.path")
            name = next(one for one in file.namelist() if one.endswith("/extra/about"))
            return file.read(name).decode()
    except (StopIteration, UnicodeDecodeError, zipfile.BadZipFile, OSError):
        return ""


def _about(text: str) -> About:
    """Directions in a file, as far as they are what `pipeline export` writes; else none."""
    try:
        told = json.loads(text)
        kinds: dict[str, Values] = {"uint8": "bytes", "float": "unit"}
        about = About(
            [str(name) for name in told["class_names"]],
            int(told["input_size"]),
            [float(value) for value in told["mean"]],
            [float(value) for value in told["std"]],
            kinds[told["input"]],
            told.get("fit") if told.get("fit") in ("crop", "squash") else "",
            int(told.get("resize", 0)),
        )
    except (ValueError, KeyError, TypeError):
        return About()
    plain = len(about.mean) == len(about.std) == 3 and min(about.std) > 0
    return about if plain and 0 < about.input_size <= 1024 else About()


def _with_about(section: Teacher, about: About) -> tuple[Teacher, list[str]]:
    """The section with what the file itself says, and what to tell of it."""
    if not about.input_size:
        return section, []
    changes = {"input_size": about.input_size, "mean": about.mean, "std": about.std}
    note = (
        f"it was written by `pipeline export`: its input size {about.input_size}, mean, std and"
        f" {len(about.class_names)} class names are its own, whatever the parameters say"
    )
    return section.model_copy(update=changes | {"class_names": about.class_names}), [note]
