"""Step of `pipeline teacher --check`: the teacher, before any crawl; also of `pipeline check`."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kd3_pipeline.console import Console, printable
from kd3_pipeline.device import resolve_device
from kd3_pipeline.errors import PipelineError
from kd3_pipeline.frames import Frame
from kd3_pipeline.labelled import LabelledImages
from kd3_pipeline.labelled.names import unnamed
from kd3_pipeline.models.checkpoint import CONFIG, PROGRAM, ModelConfig, load_model, read_config
from kd3_pipeline.models.network import Network, device_of, parameter_count
from kd3_pipeline.models.norms import first_norm
from kd3_pipeline.params import Params, Teacher
from kd3_pipeline.pixels import normalise
from kd3_pipeline.teacher.inspection import (
    Accuracy,
    accuracy,
    cut_text,
    feature_shape,
    tail_layers,
)
from kd3_pipeline.teacher.normalisation import (
    MOST,
    NORMALISATIONS,
    check_normalisation,
    check_order,
)
from kd3_stages import paths
from kd3_stages.steps.class_check import asked_for, styles, test_set
from kd3_stages.steps.findings import Finding, show, what_next, wrong
from kd3_stages.steps.student_check import student_findings
from kd3_stages.steps.teacher import UNNAMED, loaded
from kd3_stages.steps.teacher_outline import outline_findings, to_be_got, without_teacher
from kd3_stages.steps.teacher_pictures import pictures

SHOWN = 5  # class names
SECONDS = 60.0  # of a pass over the test set
SURE = 3.0  # standard errors
ORDER = "order of colours"
OTHER_ORDER = "try teacher.order with the other value"
WHOLE = 256  # images for whole passes of the network, at 32 pixels; fewer of larger ones


def run(params: Params, images: Path | None, console: Console) -> int:
    """Says what the teacher of params.yaml is; writes nothing. The exit code that it asks for."""
    found = check_teacher(params, images, console, fetch=True, seconds=SECONDS)
    otherwise = "`dvc repro`, or `pipeline teacher` and `pipeline crawl`"
    return show([*found, what_next(found, otherwise)], console)


def check_teacher(
    params: Params, images: Path | None, console: Console, *, fetch: bool, seconds: float
) -> list[Finding]:
    """Findings about the teacher: the one of params.yaml, or, not to `fetch` one, as far as it is
    here; and about what depends on it: classes, test set, student.

    Args:
        images: a folder, tar or table to check the normalisation with; None: the test set's, else
            those of the crawl.
        fetch: the teacher may come from a network; else one in models/teacher is looked at first.
        seconds: for a pass over the test set; under `SECONDS`, nothing else takes much longer.
    """
    section = params.teacher
    try:
        config = read_config(paths.TEACHER) if (paths.TEACHER / CONFIG).is_file() else None
        here = config is not None and _of_this_network(section, config)
        if to_be_got(section, here, fetch):
            return outline_findings(params, console)
        # the source itself where it is here: models/teacher may be of other parameters
        if section.source == "train" or (here and not fetch and not _local(section, here)):
            network, config = load_model(paths.TEACHER, resolve_device(section.device))
            place = str(paths.TEACHER) + _made_otherwise(section, config)
        else:
            network, config, _ = loaded(section, console)
            place = section.source
    except PipelineError as error:
        return without_teacher(params, wrong("teacher", error), console)
    return _findings(network.eval(), config, place, params, images, console, seconds)


def _of_this_network(section: Teacher, config: ModelConfig) -> bool:
    """Whether models/teacher is of the network, and trained on the data, that params.yaml names."""
    if section.source == "train" and not config.source.endswith(f" images of {section.data}"):
        return False
    return config.architecture.get("name") in (section.architecture, section.hub_network, PROGRAM)


def _local(section: Teacher, here: bool) -> bool:
    """Whether the teacher's source is on this machine; not if only models/teacher is left of it."""
    if section.source == "file":
        return Path(section.path).exists() or not here
    return section.source == "torch.hub" and Path(section.repository).is_dir()


def _made_otherwise(section: Teacher, config: ModelConfig) -> str:
    """What params.yaml says now and did not when models/teacher was made, in words."""
    if config.architecture.get("name") == PROGRAM:  # its own values come before the parameters
        return ""
    now = {"mean": list(section.mean), "std": list(section.std), "input_size": section.input_size}
    changed = [f"teacher.{key}" for key, value in now.items() if getattr(config, key) != value]
    return f", made before {', '.join(changed)} changed: `dvc repro teacher`" * bool(changed)


def _findings(
    network: Network,
    config: ModelConfig,
    place: str,
    params: Params,
    images: Path | None,
    console: Console,
    seconds: float,
) -> list[Finding]:
    names = config.class_names
    parameters = parameter_count(network)
    shown = ", ".join(printable(name) for name in names[:SHOWN])
    more = ", …" if len(names) > SHOWN else ""
    about = config.architecture.get("name", "")
    shape, tail = feature_shape(network, config), tail_layers(network)
    found = [
        Finding(
            "teacher",
            f"{about}, {parameters:,} parameters, {printable(config.source)} ({place})",
            values={"architecture": about, "parameters": parameters, "source": config.source},
        ),
        Finding("cut", cut_text(network), values={"cut": network.cut}),
        Finding(
            "classes",
            f"{len(names):,}: {shown}{more}" + (f": {UNNAMED}" if unnamed(names) else ""),
            None if unnamed(names) else True,
            values={"names": names},
        ),
        _input(network, config, params),
        Finding(
            "features",
            f"{'×'.join(map(str, shape))} an image; tail: {', '.join(tail) or 'none'}",
            values={"shape": list(shape), "tail": tail},
        ),
    ]
    found += asked_for(params.crawl, names)
    frame = Frame(config.input_size, params.embed.fit, params.embed.size)
    test, problem = test_set(params.evaluate, frame, names, MOST, console)
    pixels, told = pictures(images, test, frame, console)
    normalisation, better = _normalisation(network, config, pixels, told, console, seconds)
    found.append(normalisation)
    order = Finding(ORDER, "one channel has none") if params.teacher.channels == 1 else None
    if test is not None:
        asked = _Asked(network, config, test, seconds)
        measured = asked.accuracy(console)
        accuracies = _accuracy(measured, asked, better, params)
        found += [order or _order_by_labels(measured, asked), accuracies]
    else:
        found.append(order or _order(network, config, pixels))
        found += [problem] if problem else []
    found += styles(params.evaluate, frame, names)
    return [*found, *student_findings(params.distill, network, config)]


def _input(network: Network, config: ModelConfig, params: Params) -> Finding:
    side, section = config.input_size, params.teacher
    numbers = " and ".join(
        f"{what} {', '.join(f'{value:.4g}' for value in values)}"
        for what, values in (("mean", config.mean), ("std", config.std))
    )
    kinds = "1 channel (brightness)" if section.channels == 1 else f"3 channels ({section.order})"
    own = ", which the program does by itself" if network.own_input else ""
    values = {"size": side, "channels": section.channels, "order": section.order}
    text = f"{side}×{side} pixels, {kinds}, {numbers}{own}"
    return Finding("input", text, values=values | {"mean": config.mean, "std": config.std})


def _normalisation(
    network: Network,
    config: ModelConfig,
    pixels: np.ndarray,
    told: str,
    console: Console,
    seconds: float,
) -> tuple[Finding, str | None]:
    """What is said of mean and std, and the name of better ones."""
    name = "mean and std"
    # larger pictures cost more, and the first batch norm needs none of these passes
    whole = max(64, min(WHOLE, WHOLE * 96**2 // config.input_size**2))
    if seconds < SECONDS and (needed := _needed(network, config, pixels[:whole])) > seconds:
        text = (
            f"not checked here: no batch norms are seen in it, and asking it for {whole} images in"
            f" every known way takes about {needed:,.0f} s; `pipeline teacher --check` does"
        )
        return Finding(name, text, None, values={"verdict": "unknown", "images": 0}), None
    with console.progress("teacher: mean and std", 1) as advance:
        check = check_normalisation(network, config, pixels, whole)
        advance()
    values = {"verdict": check.verdict, "images": len(pixels), "of": told, "better": check.better}
    text = check.text + (f" ({min(len(pixels), MOST):,} images of {told})" if told else "")
    ok = {"fits": True, "wrong": False, "unknown": None}[check.verdict]
    code = 0 if check.better is None else 2
    return Finding(name, text, ok, code, values, measured=True), check.better


def _needed(network: Network, config: ModelConfig, pixels: np.ndarray) -> float:
    """Seconds that the check takes where all of the network is passed; 0 where it is not."""
    if network.own_input or not len(pixels):
        return 0.0
    device = device_of(network)
    shown = normalise(torch.from_numpy(pixels[:4]).to(device), config.mean, config.std)
    if first_norm(network, shown) is not None:
        return 0.0
    with torch.no_grad():
        for _ in range(2):  # a TorchScript is compiled in its first passes
            network(shown)
        began = time.monotonic()
        network(shown).cpu()  # waits for the device
    return (time.monotonic() - began) / len(shown) * len(pixels) * (len(NORMALISATIONS) + 1)


def _order(network: Network, config: ModelConfig, pixels: np.ndarray) -> Finding:
    """Whether the colours are in the other order, by two signs that both have to say so."""
    if check_order(network, config, pixels[:MOST]).verdict == "wrong":
        text = f"the other one suits the network better: {OTHER_ORDER}"
        return Finding(ORDER, text, False, 2, measured=True)
    return Finding(ORDER, "cannot tell without labelled images", None)


@dataclass
class _Asked:
    """A teacher and labelled images, to be passed in one way or another."""

    network: Network
    config: ModelConfig
    test: LabelledImages
    seconds: float

    def accuracy(self, console: Console | None = None, share: float = 1.0, **how: Any) -> Accuracy:
        """In so much of the time; `how` as `inspection.accuracy` takes it."""
        labels = self.test.labels
        about = (self.network, self.config, self.test.pixels, labels, share * self.seconds)
        if console is None:
            return accuracy(*about, _quiet, **how)
        with console.progress("teacher: accuracy", len(labels)) as advance:
            return accuracy(*about, advance, **how)


def _order_by_labels(found: Accuracy, asked: _Asked) -> Finding:
    """Whether the colours are in the other order, by the same images the other way round."""
    other = asked.accuracy(share=1 / 4, reverse=True)
    text = f"as set, accuracy {found.value:.1%}; the other way round {other.value:.1%}"
    values = {"accuracy": found.value, "other": other.value}
    gain = found.beaten_by(other)
    if gain > SURE:
        return Finding(ORDER, f"{text}: {OTHER_ORDER}", False, 2, values, measured=True)
    if gain < -SURE:
        return Finding(ORDER, text, True, 0, values)
    return Finding(ORDER, f"{text}: too close to tell", None, 0, values)


def _accuracy(found: Accuracy, asked: _Asked, better: str | None, params: Params) -> Finding:
    text = f"{found.text} of {printable(params.evaluate.test_set)}"
    values = {"accuracy": found.value, "images": found.images, "interval": [found.low, found.high]}
    gain = 0.0
    if better:
        mean, std = NORMALISATIONS[better]
        other = asked.accuracy(share=1 / 2, mean=mean, std=std)
        text += f"; {other.value:.1%} with {better}"
        gain = found.beaten_by(other)
    if found.other_order:
        text += (
            f"; {found.permuted:.1%} if its outputs were in another order: set"
            " teacher.class_names in the order of its outputs"
        )
        return Finding("accuracy", text, False, 2, values)
    if found.by_chance and found.high > (1 + 1 / found.classes) / 2:  # nor far from a good one
        text += ": too few images to tell it from guessing"
        return Finding("accuracy", text, None, 0, values)
    if found.by_chance and params.teacher.source == "train":
        text += ": no better than guessing; it was trained here on too few images, or too briefly"
        return Finding("accuracy", text, values=values, loud=True)
    if found.by_chance:
        text += (
            ": no better than guessing, so the weights, the order of the classes or the input's"
            " form are not those it was trained with"
        )
        return Finding("accuracy", text, False, 2, values)
    if gain > SURE:
        return Finding("accuracy", text, False, 2, values, measured=True)
    return Finding("accuracy", text, True, 0, values)


def _quiet(n: int = 1, note: str = "") -> None:
    """No progress."""
