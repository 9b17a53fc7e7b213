"""Step of `pipeline teacher --check` and of `pipeline doctor`: the teacher, before any crawl."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from pipeline.console import Console, printable
from pipeline.device import resolve_device
from pipeline.distill.objectives.objective import fitting
from pipeline.errors import PipelineError, UserError
from pipeline.evaluate.cost import macs
from pipeline.images import Frame, ImageError, decode
from pipeline.imagesource.decoding import decoded
from pipeline.imagesource.source import open_source
from pipeline.labelled import LabelledImages, Reading, load_labelled
from pipeline.models import build
from pipeline.models.checkpoint import CONFIG, ModelConfig, load_model
from pipeline.models.network import Network, parameter_count
from pipeline.params import Params
from pipeline.store import open_parquet, shard_paths
from pipeline.teacher.inspection import (
    Accuracy,
    accuracy,
    cut_text,
    feature_shape,
    tail_layers,
)
from pipeline.teacher.normalisation import (
    MOST,
    NORMALISATIONS,
    NormalisationCheck,
    check_normalisation,
    check_order,
    spread,
)
from stages import paths
from stages.steps.teacher import loaded

MOST_BYTES = 2**31  # of an image of the user's own
SHOWN = 5  # class names
DOWNLOADED = ("cifar10", "cifar100")
SECONDS = 60.0  # of each pass over the test set
WHOLE = 256  # images for whole passes of the network, at 32 pixels; fewer of larger ones


@dataclass
class Finding:
    """One line: what was looked at, what was found, and the exit code it asks for.

    `ok` is None where nothing is known to be wrong, and nothing to be right.
    """

    name: str
    text: str
    ok: bool | None = True
    code: int = 0
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def line(self) -> str:
        mark = {True: "ok", False: "wrong", None: "?"}[self.ok]
        return f"{mark:5}  {self.name}: {self.text}"

    @property
    def as_json(self) -> dict[str, Any]:
        return {"ok": self.ok, "text": self.text} | self.values


def run(params: Params, images: Path | None, console: Console) -> int:
    """Says what the teacher of params.yaml is; writes nothing. The exit code that it asks for."""
    found = check_teacher(params, images, console, fetch=True)
    console.result(
        "\n".join(one.line for one in found), {"checks": {one.name: one.as_json for one in found}}
    )
    return max(one.code for one in found)


def check_teacher(
    params: Params, images: Path | None, console: Console, *, fetch: bool
) -> list[Finding]:
    """Findings about the teacher: the one of params.yaml, or, not to `fetch` one, as far as it is
    here.

    Args:
        images: a folder, tar or table to check the normalisation with; None: the test set's, else
            those of the crawl.
        fetch: the teacher may come from a network; else one in models/teacher is looked at first.
    """
    section = params.teacher
    here = (paths.TEACHER / CONFIG).is_file()
    local = section.source == "file" or (
        section.source == "torch.hub" and Path(section.repository).is_dir()
    )
    if section.source == "train" and not here:
        text = f"{section.architecture}, will be trained here on {section.data}"
        return [Finding("teacher", text, values={"source": "train"})]
    if not fetch and not here and not local:
        where = section.repository or section.architecture
        text = (
            f"{section.source} {where}, not here yet: `pipeline teacher --check` gets and checks it"
        )
        return [Finding("teacher", text, None, values={"source": section.source})]
    try:
        if section.source == "train" or (here and not fetch):
            network, config = load_model(paths.TEACHER, resolve_device(section.device))
            place = str(paths.TEACHER)
        else:
            network, config, _ = loaded(section, console)
            place = section.source
    except PipelineError as error:
        return [_wrong("teacher", error)]
    return _findings(network.eval(), config, place, params, images, console)


def _findings(
    network: Network,
    config: ModelConfig,
    place: str,
    params: Params,
    images: Path | None,
    console: Console,
) -> list[Finding]:
    names = config.class_names
    parameters = parameter_count(network)
    shown = ", ".join(printable(name) for name in names[:SHOWN])
    more = f", … {len(names):,} in all" if len(names) > SHOWN else ""
    about = config.architecture.get("name", "")
    shape, tail = feature_shape(network, config), tail_layers(network)
    found = [
        Finding(
            "teacher",
            f"{about}, {parameters:,} parameters, {printable(config.source)} ({place})",
            values={"architecture": about, "parameters": parameters, "source": config.source},
        ),
        Finding("cut", cut_text(network), values={"cut": network.cut}),
        Finding("classes", f"{len(names):,}: {shown}{more}", values={"names": names}),
        _input(network, config, params),
        Finding(
            "features",
            f"{'×'.join(map(str, shape))} an image; tail: {', '.join(tail) or 'none'}",
            values={"shape": list(shape), "tail": tail},
        ),
    ]
    frame = Frame(config.input_size, params.embed.fit, params.embed.size)
    test, problem = _test_set(params, frame, names, console)
    pixels, told = _pixels(images, test, frame, console)
    check = _normalisation(network, config, pixels, told, console)
    found.append(check[0])
    found.append(_order(network, config, pixels, test))
    found.append(problem or _accuracy(network, config, test, check[1], params, console))
    found += _student(network, config, params)
    wrong = [one.name for one in found if one.code]
    found.append(
        Finding("next", f"set right: {', '.join(wrong)}", None)
        if wrong
        else Finding("next", "`dvc repro`, or `pipeline teacher` and `pipeline crawl`")
    )
    return found


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


def _test_set(
    params: Params, frame: Frame, names: list[str], console: Console
) -> tuple[LabelledImages | None, Finding | None]:
    """Images of evaluate.test_set as it will match them, or what is to be said instead."""
    section = params.evaluate
    if section.test_set in DOWNLOADED:
        text = f"not measured: {section.test_set} is downloaded by `pipeline evaluate`"
        return None, Finding("accuracy", text, None)
    count = min(section.images or MOST, MOST)
    try:
        with console.progress("teacher: reading the test set", count) as advance:
            test = load_labelled(
                section.test_set,
                "test",
                frame,
                count,
                section.seed,
                advance,
                reading=Reading.of(section),
                class_names=names,
            )
    except PipelineError as error:
        return None, _wrong("accuracy", error)
    for note in test.notes:
        console.note(note)
    return test, None


def _pixels(
    images: Path | None, test: LabelledImages | None, frame: Frame, console: Console
) -> tuple[np.ndarray, str]:
    """Up to 512 pictures without labels, uint8 [N, S, S, 3], and where they are from."""
    if images is not None:
        return _own_images(images, frame, console), str(images)
    if test is not None:
        return np.array(test.pixels[spread(len(test.labels))]), "the test set"
    side = frame.side
    try:
        shards = shard_paths(paths.CRAWL)
    except UserError:  # nothing is crawled yet
        return np.zeros((0, side, side, 3), np.uint8), ""
    found: list[np.ndarray] = []
    for path in np.array(shards, dtype=object)[spread(len(shards), 8)]:
        with open_parquet(path) as file:
            column = file.read(columns=["image"])["image"]
        for row in spread(len(column), MOST // min(len(shards), 8)):
            try:
                found.append(frame.of(decode(pc.take(column, [int(row)])[0].as_py())))
            except ImageError:
                continue  # dedup looks at those
    return np.stack(found) if found else np.zeros((0, side, side, 3), np.uint8), "the crawl"


def _own_images(images: Path, frame: Frame, console: Console) -> np.ndarray:
    """
    Raises:
        UserError: nothing there is a picture.
    """
    source = open_source(images, MOST_BYTES)
    rows = [int(row) for row in spread(len(source))]
    with console.progress("teacher: reading images", len(rows)) as advance:
        found = []
        for _, pixels in decoded(source.read(rows), frame):
            advance(1)
            if not isinstance(pixels, str):
                found.append(pixels)
    if not found:
        raise UserError(f"--images: {images} has no picture that can be read")
    if len(found) < len(rows):
        console.note(f"{images}: {len(rows) - len(found):,} of {len(rows):,} could not be read")
    return np.stack(found)


def _normalisation(
    network: Network, config: ModelConfig, pixels: np.ndarray, told: str, console: Console
) -> tuple[Finding, NormalisationCheck]:
    # larger pictures cost more, and the first batch norm needs none of these passes
    whole = max(64, min(WHOLE, WHOLE * 96**2 // config.input_size**2))
    with console.progress("teacher: mean and std", 1) as advance:
        check = check_normalisation(network, config, pixels, whole)
        advance()
    values = {"verdict": check.verdict, "images": len(pixels), "of": told, "better": check.better}
    text = check.text + (f" ({min(len(pixels), MOST):,} images of {told})" if told else "")
    ok = {"fits": True, "wrong": False, "unknown": None}[check.verdict]
    finding = Finding("mean and std", text, ok, 0 if check.better is None else 2, values)
    return finding, check


def _order(
    network: Network, config: ModelConfig, pixels: np.ndarray, test: LabelledImages | None
) -> Finding:
    """Whether the colours are in the other order: by labels where there are, else by both signs."""
    hint = "try teacher.order with the other value"
    if test is not None and not network.own_input and len(test.labels):
        few = min(len(test.labels), 256)
        one, other = (
            accuracy(
                network,
                config,
                test.pixels[:few],
                test.labels[:few],
                SECONDS / 4,
                _quiet,
                reverse=r,
            )
            for r in (False, True)
        )
        text = f"as set, accuracy {one.value:.1%}; the other way round {other.value:.1%}"
        if other.low > one.high:
            return Finding("order of colours", f"{text}: {hint}", False, 2)
        return Finding("order of colours", text, True if one.low > other.high else None)
    found = check_order(network, config, pixels[:MOST])
    if found.verdict == "wrong":
        return Finding(
            "order of colours", f"the other one suits the network better: {hint}", False, 2
        )
    return Finding("order of colours", "cannot tell without labelled images", None)


def _accuracy(
    network: Network,
    config: ModelConfig,
    test: LabelledImages | None,
    check: NormalisationCheck,
    params: Params,
    console: Console,
) -> Finding:
    assert test is not None
    measure = {"network": network, "config": config, "pixels": test.pixels, "labels": test.labels}
    with console.progress("teacher: accuracy", len(test.labels)) as advance:
        found: Accuracy = accuracy(**measure, seconds=SECONDS, advance=advance)  # type: ignore[arg-type]
    text = f"{found.text} of {printable(params.evaluate.test_set)}"
    if check.better:
        mean, std = NORMALISATIONS[check.better]
        other = accuracy(**measure, seconds=SECONDS, advance=_quiet, mean=mean, std=std)  # type: ignore[arg-type]
        text += f"; {other.value:.1%} with {check.better}"
    values = {"accuracy": found.value, "images": found.images, "interval": [found.low, found.high]}
    if found.other_order:
        text += (
            f"; {found.permuted:.1%} if its outputs were in another order: set"
            " teacher.class_names in the order of its outputs"
        )
        return Finding("accuracy", text, False, 2, values)
    if found.by_chance:
        text += (
            ": no better than guessing, so the weights, the order of the classes or the input's"
            " form are not those it was trained with"
        )
        return Finding("accuracy", text, False, 2, values)
    return Finding("accuracy", text, True, 0, values)


def _student(network: Network, config: ModelConfig, params: Params) -> list[Finding]:
    """The objective that will run, and the student beside the teacher."""
    found = []
    try:
        section, told = fitting(params.distill, network)
        found.append(
            Finding("objective", told or section.objective, values={"objective": section.objective})
        )
    except PipelineError as error:
        found.append(_wrong("objective", error))
    try:
        options = params.distill.student_options
        student = build(params.distill.student, len(config.class_names), **options).eval()
        cost, whole = macs(student, config.input_size), macs(network, config.input_size)
    except PipelineError as error:
        return [*found, _wrong("student", error)]
    except (RuntimeError, ValueError, AssertionError) as error:
        first = (str(error).splitlines() or [""])[0]
        text = (
            f"{params.distill.student} does not take images of {config.input_size} pixels: {first}"
        )
        return [*found, Finding("student", printable(text), False, 2)]
    parameters, teachers = parameter_count(student), parameter_count(network)
    text = f"{params.distill.student}, {parameters:,} parameters"
    text += f" ({parameters / teachers:.0%} of the teacher's)" if teachers else ""
    text += f", {cost / 1e6:,.1f} M multiplications" if cost else ""
    dearer = bool(cost and whole and cost > whole)
    text += f" ({cost / whole:.0%})" if cost and whole else ""
    text += ": it costs more than the teacher" if dearer else ""
    values = {"parameters": parameters, "macs": cost, "teacher_macs": whole}
    return [*found, Finding("student", text, None if dearer else True, values=values)]


def _wrong(name: str, error: PipelineError) -> Finding:
    return Finding(name, printable("; ".join(str(error).splitlines())), False, error.exit_code)


def _quiet(n: int = 1, note: str = "") -> None:
    """No progress."""
