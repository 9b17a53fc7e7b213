"""The student beside the teacher, before either has seen an image: does it fit, what it costs."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from kd3_pipeline.console import printable
from kd3_pipeline.device import resolve_precision
from kd3_pipeline.distill.cautions import memory_notes
from kd3_pipeline.distill.objectives.objective import Objective, fitting, with_own_settings
from kd3_pipeline.distill.pretrained import load_pretrained, pretrained
from kd3_pipeline.distill.run import build_student
from kd3_pipeline.errors import PipelineError, first_line
from kd3_pipeline.evaluate.cost import macs
from kd3_pipeline.models import ARCHITECTURES, TORCHVISION
from kd3_pipeline.models.checkpoint import ModelConfig
from kd3_pipeline.models.fuse import fuse
from kd3_pipeline.models.network import Network, device_of, parameter_count
from kd3_pipeline.models.size import library_parameters
from kd3_pipeline.params import Distill
from kd3_pipeline.registry import OBJECTIVES
from kd3_pipeline.weights.offline import student_start_is_here
from kd3_stages.steps.findings import Finding, wrong

LARGEST_BATCH, SECONDS = 32, 0.3  # of timing: images, seconds of a pass
RUNS, LONGEST = 3, 1.5  # passes, and seconds of more where the student seems slow
LEAST_GAIN = 0.98  # of the teacher's parameters: batch norms folded away are no smaller network
SLOWER = 1.5  # times the teacher's time that no noise explains
HUGE, FAR = 150_000_000, 4  # parameters, and times the teacher's, that are not waited for
SMALL_SIDE = 64  # pixels: networks of the distillation literature are made for 32


@dataclass(frozen=True)
class Costs:
    """Of one network: parameters, multiply-adds an image (None: not looked into), and seconds."""

    parameters: int
    macs: int | None
    seconds: float


def student_findings(section: Distill, network: Network, config: ModelConfig) -> list[Finding]:
    """The objective that will run, and the student as it is shipped beside its teacher."""
    found = []
    try:
        section, told = fitting(section, network)
        found.append(
            Finding("objective", told or section.objective, values={"objective": section.objective})
        )
    except PipelineError as error:
        found.append(wrong("objective", error))
    section, side = with_own_settings(section), config.input_size
    if huge := _far_too_large(section, network, config):
        return [*found, huge]
    try:
        objective = _objective(section, network, config)
        built = {"name": section.student, "num_classes": len(config.class_names)}
        whole, _ = objective.deployed(built | section.student_options, config.architecture)
        shipped = fuse(whole).eval()
        found += _start(section, config)
    except PipelineError as error:
        return [*found, wrong("student", error)]
    except (RuntimeError, ValueError, AssertionError) as error:
        text = (
            f"{section.student} does not take images of {config.input_size} pixels:"
            f" {first_line(error)}: choose another, or set its size in distill.student_options"
            " (timm: img_size; torchvision's ViT: image_size)"
        )
        return [*found, Finding("student", printable(text), False, 2)]
    both = (shipped, network)
    products = [macs(one, side) for one in both]  # which also passes each of them once
    batch, seconds = _timed(both, side)
    costs = [
        Costs(parameter_count(one), count, time)
        for one, count, time in zip(both, products, seconds, strict=True)
    ]
    transfer = getattr(objective, "transfer", None)
    carries = parameter_count(transfer) if transfer is not None else 0
    found.append(_beside(section, side, costs, batch, carries))
    if batch > 1:  # else it would take long; `distill` says so in any case
        found += _memory(section, objective, side)
    return found


def _far_too_large(section: Distill, network: Network, config: ModelConfig) -> Finding | None:
    """What is said of a student that it would take minutes only to build, as far as it is known
    before; None of any other."""
    about = (section.student, len(config.class_names), dict(section.student_options))
    ours, theirs = library_parameters(*about), parameter_count(network)
    if ours < max(HUGE, FAR * theirs):
        return None
    text = (
        f"{section.student}, {ours:,} parameters ({ours / max(1, theirs):,.0%} of the teacher's),"
        " and so not built here: it costs more than the teacher; a smaller one is what"
        " distillation is for"
    )
    values = {"parameters": ours, "teacher_parameters": theirs}
    return Finding("student", text, None, values=values, loud=True)


def _beside(
    section: Distill, side: int, costs: Sequence[Costs], batch: int, transfer: int
) -> Finding:
    """The student's costs, each with its share of the teacher's."""
    ours, theirs = costs
    text = f"{ours.parameters:,} parameters"
    shares: list[tuple[float, float, str, float]] = [
        (ours.parameters, theirs.parameters, text, 1.0)
    ]
    if ours.macs:
        text = f"{ours.macs / 1e6:,.1f} M multiplications"
        shares.append((ours.macs, theirs.macs or 0, text, 1.0))
    text = f"{_duration(ours.seconds)} for {batch} image{'s' * (batch > 1)}"
    shares.append((ours.seconds, theirs.seconds, text, SLOWER))
    told = [
        what + (f" ({mine / other:.0%} of the teacher's)" if other else "")
        for mine, other, what, _ in shares
    ]
    smaller = ours.parameters < LEAST_GAIN * theirs.parameters
    no_less = not smaller and (ours.macs or 0) >= (theirs.macs or 0)
    more = [mine > factor * other > 0 for mine, other, _, factor in shares]
    dearer = any(more)
    values = {
        "parameters": ours.parameters,
        "teacher_parameters": theirs.parameters,
        "macs": ours.macs,
        "teacher_macs": theirs.macs,
        "batch": batch,
        "seconds": ours.seconds,
        "teacher_seconds": theirs.seconds,
    }
    line = f"{section.student}, {', '.join(told)}"
    if not dearer and not no_less:
        return Finding("student", line, values=values)
    compared = "no less" if no_less and not any(more[:-1]) else "more"  # whatever was timed
    why = _why(section, side, ours.parameters, transfer)
    line += f": it costs {compared} than the teacher{why}"
    return Finding("student", line, None, values=values, loud=True)


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.1f} ms"


def _why(section: Distill, side: int, parameters: int, transfer: int) -> str:
    """What makes a student dear, as far as it is known, and what helps."""
    if side > SMALL_SIDE and section.student in ARCHITECTURES:
        return (
            f"; '{section.student}' is made for images of 32 pixels, and these have {side}: for"
            f" larger ones there are {TORCHVISION}NAME and timm/NAME"
        )
    if 2 * transfer > parameters:
        return (
            f"; {transfer:,} of its parameters carry its features to the teacher's: a teacher with"
            " fewer channels, or distill.objective: kd, needs none or fewer"
        )
    return "; a smaller one is what distillation is for"


def _objective(section: Distill, teacher: Network, config: ModelConfig) -> Objective:
    """The student in what would train it, on the teacher's device, its weights random.

    Raises:
        UserError: it cannot be built, or not be aligned.
        RuntimeError, ValueError, AssertionError: it does not take images of this size.
    """
    side, device = config.input_size, device_of(teacher)
    student = build_student(section, config).to(device).eval()
    image = torch.zeros(1, 3, side, side, device=device)
    with torch.no_grad():
        student(image)
    objective: Objective = OBJECTIVES.load(section.objective)(student, teacher, image, section)
    return objective.to(device)


def _start(section: Distill, config: ModelConfig) -> list[Finding]:
    """Whether the weights that the student is to start from are there, and fit it.

    Raises:
        UserError: there are none, or they do not.
    """
    if not section.student_weights:
        return []
    if not student_start_is_here(section):
        text = f"{section.student_weights} of {section.student}: `pipeline distill` gets them"
        return [Finding("student's weights", text, None)]
    start = pretrained(section)
    assert start is not None
    load_pretrained(build_student(section, config), start)
    return [Finding("student's weights", f"{printable(start.origin)} fits {section.student}")]


def _memory(section: Distill, objective: Objective, side: int) -> list[Finding]:
    """Whether a step of the training has room in the memory that is free now."""
    device = next(objective.student.parameters()).device
    precision = resolve_precision(section.precision, device)
    images = torch.zeros(2, 3, side, side, device=device)
    told = memory_notes(objective, images, section, precision)
    return [Finding("memory", line, None, loud=True, measured=True) for line in told]


@torch.inference_mode()
def _timed(networks: Sequence[Network], side: int) -> tuple[int, list[float]]:
    """Images of a batch, as many as the slowest passes in a short time, and seconds of each.

    By turns, the best of some: other programs only ever make it slower. All have been passed
    before, since a first pass also sets up.
    """
    once = [_seconds(one, 1, side) for one in networks]
    batch = min(LARGEST_BATCH, int(SECONDS / max(once)))
    if batch < 2:
        return 1, once
    best = [float("inf")] * len(networks)
    began, run = time.perf_counter(), 0
    while run < RUNS or (
        # another program may have had the processor
        best[0] > SLOWER * best[1] and time.perf_counter() - began < LONGEST
    ):
        run += 1
        now = [_seconds(one, batch, side) for one in networks]
        best = [min(pair) for pair in zip(best, now, strict=True)]
    return batch, best


def _seconds(network: Network, batch: int, side: int) -> float:
    device = device_of(network)
    images = torch.zeros(batch, 3, side, side, device=device)
    began = time.perf_counter()
    network(images).cpu()  # waits for the device
    return time.perf_counter() - began
