"""Step of `pipeline teacher`: weights from a file or a hub, or a network trained here."""

from pathlib import Path
from typing import Any

import torch

from kd3_pipeline.console import Advance, Console
from kd3_pipeline.device import resolve_device, resolve_precision
from kd3_pipeline.errors import UserError, first_line
from kd3_pipeline.frames import Frame
from kd3_pipeline.labelled import Reading, load_labelled
from kd3_pipeline.labelled.matching import check_spellings
from kd3_pipeline.labelled.names import listed_names, unnamed
from kd3_pipeline.models import build
from kd3_pipeline.models.checkpoint import PROGRAM, ModelConfig, save_model
from kd3_pipeline.models.finite import check_answers, check_weights
from kd3_pipeline.models.network import Network, parameter_count
from kd3_pipeline.models.own import allow, is_own
from kd3_pipeline.models.program import save_program
from kd3_pipeline.params import Embed, Teacher
from kd3_pipeline.program.archive import kind_of
from kd3_pipeline.program.client import Kind
from kd3_pipeline.store import replacing, write_json
from kd3_pipeline.teacher.program import ProgramTeacher, read_program
from kd3_pipeline.teacher.train import train
from kd3_pipeline.weights import sources
from kd3_pipeline.weights.files import Weights, read_weights
from kd3_pipeline.weights.network import Fitted, fitted_network
from kd3_stages import paths
from kd3_stages.steps.teacher_config import teacher_config

UNNAMED = "nothing names them: set teacher.class_names, in the order of its outputs"
# with class names, options of the architecture, origin and figures
Made = tuple[Network, list[str], dict[str, Any], str, dict[str, Any]]


def run(section: Teacher, console: Console, embed: Embed) -> None:
    """Writes models/teacher; one that is trained here sees images as `embed` frames them."""
    kind = _kind(section)
    if kind:
        _program(section, kind, console)
        return
    if section.source == "train":
        frame = Frame(section.input_size, embed.fit, embed.size)
        network, config, summary = _checked(section, _trained(section, frame, console), console)
    else:
        network, config, summary = loaded(section, console)
    with replacing(paths.TEACHER) as folder:
        save_model(folder, network, config)
    names, source = config.class_names, config.source
    architecture = config.architecture["name"]
    summary = {
        "architecture": architecture,
        "source": section.source,
        **summary,
        "parameters": parameter_count(network),
        "classes": len(names),
    }
    write_json(paths.summary("teacher"), summary)
    console.result(
        f"teacher: {architecture}, {len(names)} classes, {source} → {paths.TEACHER}",
        summary,
    )


def loaded(section: Teacher, console: Console) -> tuple[Network, ModelConfig, dict[str, Any]]:
    """The teacher of any source but `train`, its config and figures; nothing is written.

    Raises:
        UserError: it cannot be had, or is none.
        ExternalError: its source cannot be reached.
    """
    kind = _kind(section)
    if not kind:
        return _checked(section, _published(section, console), console)
    teacher = _read_program(section, kind, console)
    config = ModelConfig(
        {"name": PROGRAM, "num_classes": len(teacher.class_names)},
        **_values(teacher, Path(section.path).name),
    )
    return teacher.network, config, {"kind": kind, "sha256": teacher.sha256}


def _kind(section: Teacher) -> Kind | None:
    return kind_of(Path(section.path)) if section.source == "file" else None


def _checked(
    section: Teacher, made: Made, console: Console
) -> tuple[Network, ModelConfig, dict[str, Any]]:
    network, names, options, source, summary = made
    _note_unnamed(names, console)
    check_weights(network.state_dict(), source, "the training failed: lower teacher.lr")
    check_answers(network, section.mean, section.std, section.input_size, source)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        console.note(
            f"two classes or more have the name {', '.join(twice[:5])}: test sets match them by"
            " number, so their classes have to be in the teacher's order"
        )
    config = teacher_config(section, names, options, source)
    return network, config, summary


def _note_unnamed(names: list[str], console: Console) -> None:
    if unnamed(names):
        console.note(f"the classes are {names[0]} to {names[-1]}: {UNNAMED}")


def _program(section: Teacher, kind: Kind, console: Console) -> None:
    """Writes models/teacher of a file that is run as it is."""
    teacher = _read_program(section, kind, console)
    network, names, source = teacher.network, teacher.class_names, Path(section.path).name
    values = _values(teacher, source)
    with replacing(paths.TEACHER) as folder:
        save_program(folder, network, teacher.data, values)
    summary = {
        "architecture": PROGRAM,
        "source": section.source,
        "sha256": teacher.sha256,
        "kind": kind,
        "cut": network.cut,
        "parameters": parameter_count(network),
        "classes": len(names),
    }
    write_json(paths.summary("teacher"), summary)
    console.result(
        f"teacher: {kind} program, cut at the {network.cut}, {len(names)} classes, {source} →"
        f" {paths.TEACHER}",
        summary,
    )


def _read_program(section: Teacher, kind: Kind, console: Console) -> ProgramTeacher:
    """A file that is run as it is, tried, with what there is to tell of it told."""
    names = listed_names(section.class_names, "teacher.class_names")
    with console.progress("teacher: opening the program"):
        teacher = read_program(section.model_copy(update={"class_names": names}), kind)
    source = Path(section.path).name
    check_answers(teacher.network, teacher.mean, teacher.std, teacher.input_size, source)
    for note in teacher.notes:
        console.note(note)
    _note_unnamed(teacher.class_names, console)
    if section.architecture != Teacher().architecture:
        console.note(f"teacher.architecture '{section.architecture}' is not used: the file is")
    if not section.sha256:
        console.note(
            f"{source} has the SHA-256 {teacher.sha256}: set teacher.sha256 to it, and no other"
            " file is taken"
        )
    return teacher


def _values(teacher: ProgramTeacher, source: str) -> dict[str, Any]:
    """Values of `ModelConfig` but for the architecture."""
    return {
        "class_names": teacher.class_names,
        "mean": teacher.mean,
        "std": teacher.std,
        "input_size": teacher.input_size,
        "source": source,
        "fit": teacher.fit,
        "resize": teacher.resize,
    }


def _published(section: Teacher, console: Console) -> Made:
    weights = _weights(section)
    name = section.architecture
    with console.progress("teacher: trying architectures") as advance:
        try:
            found = _fitted(section, name, weights, advance)
        except UserError as problem:
            if section.source != "torch.hub":
                raise
            # its code may run, so its own network is there, and no other is looked for
            name = section.hub_network
            allow(name)
            found = _fitted(section, name, weights, advance)
            console.note(f"the network is the function's own, as {first_line(problem)}")
    for note in found.notes:
        console.note(note)
    if not section.sha256:
        console.note(
            f"{weights.origin} has the SHA-256 {weights.sha256}: set teacher.sha256 to it, and no"
            " other weights are taken"
        )
    origin = Path(section.path).name if section.source == "file" else weights.origin
    options = found.options | {"name": name}
    return found.network, found.class_names, options, origin, {"sha256": weights.sha256}


def _fitted(section: Teacher, architecture: str, weights: Weights, advance: Advance) -> Fitted:
    return fitted_network(
        weights,
        architecture,
        input_size=section.input_size,
        options=section.options,
        class_names=listed_names(section.class_names, "teacher.class_names"),
        channels=section.channels,
        order=section.order,
        suggest=section.source != "torch.hub",
        advance=advance,
    )


def _weights(section: Teacher) -> Weights:
    sha256, weights = section.sha256, section.weights
    if section.source == "file":
        return read_weights(Path(section.path), sha256, choice=weights)
    if section.source == "torch.hub":
        return sources.from_torch_hub(section.repository, weights, section.trust, sha256)
    if section.source == "hub":
        return sources.from_hub(section.repository, weights, sha256)
    get = {"timm": sources.from_timm, "torchvision": sources.from_torchvision}[section.source]
    return get(sources.name_in(section.source, section.architecture), weights, sha256)


def _trained(section: Teacher, frame: Frame, console: Console) -> Made:
    device = resolve_device(section.device)
    with console.progress("teacher: reading", section.drawn or None) as advance:
        data = load_labelled(
            section.data,
            "train",
            frame,
            section.drawn,
            section.seed,
            advance,
            reading=Reading.of(section),
            class_names=listed_names(section.class_names, "teacher.class_names"),
        )
    if not section.class_names:
        check_spellings(data.class_names, section.data)
    for note in [*data.notes, *data.drawn_told(section.data, "teacher.images")]:
        console.note(note)
    names = data.class_names or [f"class {k}" for k in range(int(data.labels.max()) + 1)]
    torch.manual_seed(section.seed)
    options = dict(section.options)
    if is_own(section.architecture):
        options = {"input_size": section.input_size} | options
    network = build(section.architecture, len(names), **options)
    precision = resolve_precision(section.precision, device)
    steps = section.epochs * (len(data.labels) // section.batch_size)
    with console.progress("teacher: training", steps) as advance:
        accuracy = train(network, data.pixels[:], data.labels, section, device, precision, advance)
    source = f"trained on {len(data.labels)} images of {section.data}"
    figures = {"training_images": len(data.labels), "training_accuracy": round(accuracy, 4)}
    return network, names, options | dict(network.remembered), source, figures
