"""Checkpoint of a network: `model.safetensors` and `config.json`, and nothing that can run."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from kd3_pipeline.errors import UserError
from kd3_pipeline.frames import Frame
from kd3_pipeline.models import build
from kd3_pipeline.models.finite import check_weights
from kd3_pipeline.models.network import Network
from kd3_pipeline.program.consent import programs_trusted

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
PROGRAM = "program"  # the architecture of `kd3_pipeline.models.program`


@dataclass(frozen=True)
class ModelConfig:
    """All that is needed to use the weights beside it.

    Attributes:
        architecture: `name`, `num_classes` and options of `kd3_pipeline.models.build`; of a
            distilled student, `Distilled.architecture`; `fused` if it went through
            `kd3_pipeline.models.fuse`.
        mean, std: of the input, for pixels from 0 to 1.
        input_size: side of the input in pixels.
        source: where the weights come from.
        sha256: of `model.safetensors`; set when saved.
        fit: how an image is made square, `crop` or `squash`; empty: not told.
        temperature: that logits are divided by for confidences, fitted by `evaluate`.
        resize: side that an image is brought to before its centre of `input_size` is taken;
            0: `input_size`, and nothing is cut off (`kd3_pipeline.frames.framed`).
        known_input: the network was trained here, so that `mean` and `std` are those of its
            training for certain.
    """

    architecture: dict[str, Any]
    class_names: list[str]
    mean: list[float]
    std: list[float]
    input_size: int
    source: str
    sha256: str = ""
    fit: Literal["", "crop", "squash"] = ""
    temperature: float = 1.0
    resize: int = 0
    known_input: bool = False

    @property
    def frame(self) -> Frame:
        """How an image becomes the square that the network sees."""
        return Frame(self.input_size, self.fit or "crop", self.resize)


def save_model(folder: Path, network: nn.Module, config: ModelConfig) -> None:
    """Writes both files into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {  # cloned, because the format holds no tensors that share memory
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in network.state_dict().items()
    }
    data = save(state)
    (folder / WEIGHTS).write_bytes(data)
    values = asdict(config) | {"sha256": hashlib.sha256(data).hexdigest()}
    (folder / CONFIG).write_text(
        json.dumps(values, indent=2, ensure_ascii=False) + "\n", "utf-8", newline="\n"
    )


def load_model(
    folder: Path, device: torch.device, make: Callable[..., Network] = build
) -> tuple[Network, ModelConfig]:
    """The network in evaluation mode on `device`, and its config.

    Args:
        make: builds the network from the values of `config.architecture`.

    Raises:
        UserError: a file is missing or damaged, or the weights are not of this architecture, or
            are not finite.
    """
    config = read_config(folder)
    if config.architecture.get("name") == PROGRAM:
        return _load_program(folder, config, device), config
    try:
        network = make(**config.architecture)
        outputs, names = network.num_classes, len(config.class_names)
        if outputs != names:
            raise ValueError(f"{names} class names for {outputs} outputs")
        state = load_file(folder / WEIGHTS)
    except (ValueError, TypeError, KeyError, RuntimeError, OSError, SafetensorError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{folder} holds no model: {reason}", "run its stage again") from None
    if hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest() != config.sha256:
        raise UserError(
            f"{folder / WEIGHTS} is not the file that {CONFIG} describes (its SHA-256 differs)",
            "restore it with `dvc checkout`, or run its stage again",
        )
    load_state(network, state, str(folder / WEIGHTS))
    check_weights(state, str(folder / WEIGHTS), "run its stage again, with other weights")
    return network.to(device).eval(), config


def weights_file(folder: Path, config: ModelConfig) -> Path:
    """The file in `folder` that holds what was learnt: weights, or a program."""
    if config.architecture.get("name") != PROGRAM:
        return folder / WEIGHTS
    from kd3_pipeline.models.program import program_file

    return program_file(folder, config.architecture)


def read_config(folder: Path) -> ModelConfig:
    """
    Raises:
        UserError: a file is missing, or the config is damaged.
    """
    if not (folder / CONFIG).is_file():
        raise UserError(f"{folder / CONFIG} not found", "run the stage that writes it")
    try:
        config = ModelConfig(**json.loads((folder / CONFIG).read_text("utf-8")))
        path = weights_file(folder, config)
    except (ValueError, TypeError, AttributeError, RecursionError, OSError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{folder} holds no model: {reason}", "run its stage again") from None
    if not path.is_file():
        raise UserError(f"{path} not found", "run the stage that writes it")
    return config


def _load_program(folder: Path, config: ModelConfig, device: torch.device) -> Network:
    # late, as few have one
    from kd3_pipeline.models.program import load_program

    network = load_program(
        folder,
        config.architecture,
        config.sha256,
        config.mean,
        config.std,
        device,
        programs_trusted(),
    )
    if network.num_classes != len(config.class_names):
        raise UserError(
            f"{folder} has {len(config.class_names)} class names for {network.num_classes} outputs",
            "run its stage again",
        )
    return network


def load_state(network: nn.Module, state: dict[str, torch.Tensor], origin: str) -> None:
    """Loads weights strictly.

    Raises:
        UserError: lists the keys that are missing, unexpected or of another shape.
    """
    own = network.state_dict()
    problems = [f"missing {name}" for name in own if name not in state]
    problems += [f"unexpected {name}" for name in state if name not in own]
    problems += [
        f"{name} is {list(state[name].shape)}, not {list(value.shape)}"
        for name, value in own.items()
        if name in state and state[name].shape != value.shape
    ]
    if problems:
        shown = "; ".join(problems[:6]) + (f"; and {len(problems) - 6} more" * (len(problems) > 6))
        raise UserError(f"{origin} does not fit the architecture: {shown}")
    network.load_state_dict(state)
