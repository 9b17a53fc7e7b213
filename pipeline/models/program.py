"""Program as a network: a teacher of which only the answers are seen, in a process of its own."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kd3_pipeline.errors import UserError
from kd3_pipeline.models.adapting import LUMA
from kd3_pipeline.models.network import Cut, Network
from kd3_pipeline.program.archive import checked_copy
from kd3_pipeline.program.client import CHUNK, Kind, ProgramProcess

NAME = "program"  # of such an architecture
FILES: dict[str, str] = {"onnx": "model.onnx", "torchscript": "model.pt", "export": "model.pt2"}
TAIL = "tail.safetensors"
LEAST = 1e-30  # probability that a logarithm is still taken of

REASONS: dict[str, str] = {
    "map": "",
    "vector": "its graph has no global average pooling before its last linear layer",
    "logits": "its graph does not end in a linear layer whose weights are in it",
}

Values = Literal["normalised", "unit", "bytes"]


class Answers(Protocol):
    """Whoever answers for a network that is not here.

    A process with a file (`ProgramProcess`) does; an address in a network could, with batches and
    retries of its own.
    """

    def __call__(self, images: np.ndarray) -> Sequence[np.ndarray]:
        """The outputs [B, …] for a batch as the program takes it, in the order of its spec."""
        ...


@dataclass(frozen=True)
class ProgramSpec:
    """How a program is asked, and what it answers.

    Attributes:
        channels: of the features; of logits, their number.
        outputs: that are asked for: the features, or else the logits.
        dtype: of its input.
        layout: `nchw` [B, C, S, S] or `nhwc` [B, S, S, C].
        values: `normalised` by mean and std, `unit` from 0 to 1, or `bytes` from 0 to 255.
        batch: images it takes at a time, neither more nor fewer; 0: any number.
        softmax: it answers with probabilities, of which logarithms are taken.
        parameters: numbers that it has learnt, but for the tail's.
        colours, order: of its input: 3, or 1 for brightness; `rgb` or `bgr`.
    """

    num_classes: int
    kind: Kind
    cut: Cut
    channels: int
    outputs: list[str]
    dtype: str = "float32"
    layout: Literal["nchw", "nhwc"] = "nchw"
    values: Values = "normalised"
    batch: int = 0
    softmax: bool = False
    parameters: int = 0
    colours: int = 3
    order: str = "rgb"


class Program(Network):
    """A network that others run: no gradient goes through it, and it stays where it is.

    Args:
        tail: the linear layer behind the features; None where the cut is at the logits.
        mean, std: of the images that `features` is given.
    """

    runs_elsewhere = True

    def __init__(
        self,
        answers: Answers,
        spec: ProgramSpec,
        mean: Sequence[float],
        std: Sequence[float],
        tail: nn.Linear | None = None,
    ) -> None:
        super().__init__()
        self.answers, self.spec, self.cut = answers, spec, spec.cut
        self.feature_channels = spec.channels
        self.fc: nn.Module = nn.Identity() if tail is None else tail
        self.mean, self.std = tuple(mean), tuple(std)
        self.cut_reason = REASONS[spec.cut]
        self.own_input = spec.values != "normalised"
        self.parameters_elsewhere = spec.parameters

    @property
    def num_classes(self) -> int:
        return self.spec.num_classes

    @torch.compiler.disable
    def features(self, images: Tensor) -> Tensor:
        """What the program answers to normalised RGB images [B, 3, S, S]: float32 [B, C, H, W] of
        a `map`, else [B, C], on the images' device.

        Raises:
            UserError: the program fails, ends or hangs.
        """
        if not isinstance(images, Tensor):
            raise TypeError("a program takes tensors, not stand-ins for them")
        fed = self.fed(images.detach().float().cpu())
        step = self.spec.batch or max(1, CHUNK // (images.shape[-1] * images.shape[-2]))
        parts = [self._answer(fed[start : start + step]) for start in range(0, len(fed), step)]
        found = torch.from_numpy(np.concatenate(parts)).to(images.device)
        return found.clamp(min=LEAST).log() if self.spec.softmax else found

    def _answer(self, fed: np.ndarray) -> np.ndarray:
        count, batch = len(fed), self.spec.batch or len(fed)
        if count < batch:  # the last images once more, for a graph that takes just so many
            fed = np.concatenate([fed, np.repeat(fed[-1:], batch - count, axis=0)])
        answer = np.asarray(self.answers(fed)[0])
        if answer.ndim not in (2, 4) or answer.shape[:2] != (batch, self.spec.channels):
            raise UserError(
                f"the teacher answered {batch} images with {list(answer.shape)}, expected"
                f" [{batch}, {self.spec.channels}, …]",
                "run `pipeline teacher` again",
            )
        return answer[:count].astype(np.float32)

    def fed(self, images: Tensor) -> np.ndarray:
        """The images as the program takes them."""
        spec = self.spec
        if spec.values != "normalised":
            mean, std = (torch.tensor(v).view(3, 1, 1) for v in (self.mean, self.std))
            images = images * std + mean
        if spec.values == "bytes":
            images = images.mul(255).round().clamp(0, 255)
        if spec.order == "bgr":
            images = images.flip(1)
        if spec.colours == 1:
            images = (images * torch.tensor(LUMA).view(3, 1, 1)).sum(dim=1, keepdim=True)
        if spec.layout == "nhwc":
            images = images.permute(0, 2, 3, 1)
        return np.ascontiguousarray(images.numpy().astype(spec.dtype))


def open_program(path: Path, kind: Kind, cut: bool, device: torch.device) -> ProgramProcess:
    """The process of a program, on CUDA where both it and its runtime can use that.

    Raises:
        UserError: as `ProgramProcess`.
    """
    place = "cuda" if device.type == "cuda" else "cpu"
    return ProgramProcess(kind, path, place, cut)


def save_program(folder: Path, network: Program, data: bytes, values: dict[str, Any]) -> None:
    """Writes the file, its tail and `config.json`.

    Args:
        values: of `ModelConfig`; its architecture and its SHA-256 are added.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILES[network.spec.kind]).write_bytes(data)
    tail = {name: value.contiguous() for name, value in network.fc.state_dict().items()}
    if tail:
        save_file(tail, folder / TAIL)
    values = values | {
        "architecture": {"name": NAME, **asdict(network.spec)},
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    (folder / "config.json").write_text(text, "utf-8", newline="\n")


def program_file(folder: Path, architecture: dict[str, Any]) -> Path:
    """Where the program of an architecture lies in its folder.

    Raises:
        UserError: there is no such kind.
    """
    kind = architecture.get("kind")
    if kind not in FILES:
        raise UserError(f"{folder} holds no program: its kind is {kind!r}", "run its stage again")
    return folder / FILES[kind]


def load_program(
    folder: Path,
    architecture: dict[str, Any],
    sha256: str,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device,
    trusted: bool,
) -> Program:
    """The program in a folder, opened in its process, its tail on `device`.

    Args:
        trusted: what it holds need not be read before it is opened.

    Raises:
        UserError: a file is missing, damaged or another one, or may do more than compute.
    """
    path = program_file(folder, architecture)
    known = {one.name for one in fields(ProgramSpec)}
    options = {name: value for name, value in architecture.items() if name in known}
    try:
        spec = ProgramSpec(**options)
        data = path.read_bytes()
        stored = load_file(folder / TAIL) if spec.cut != "logits" else {}
    except (TypeError, OSError, SafetensorError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{folder} holds no program: {reason}", "run its stage again") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise UserError(
            f"{path} is not the file that config.json describes (its SHA-256 differs)",
            "restore it with `dvc checkout`, or run its stage again",
        )
    if spec.kind != "onnx" and not trusted and checked_copy(path, spec.kind) != data:
        raise UserError(
            f"{path} holds what was not read: it is not as the teacher's stage writes it",
            "run `pipeline teacher` again, from the file that it was made of",
        )
    tail = None
    if stored:
        tail = nn.Linear(spec.channels, spec.num_classes)
        shapes = {name: value.shape for name, value in tail.state_dict().items()}
        if shapes != {name: value.shape for name, value in stored.items()}:
            raise UserError(f"{folder / TAIL} does not fit {path}", "run its stage again")
        tail.load_state_dict(stored)
    answers = open_program(path, spec.kind, spec.cut != "logits", device)
    answers.outputs = spec.outputs
    return Program(answers, spec, mean, std, tail).to(device).eval()
