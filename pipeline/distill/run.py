"""One distillation from its parameters, for the stage, for trials and for benchmarks."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from kd3_pipeline.console import Advance, no_progress
from kd3_pipeline.device import laid_out, memory_format
from kd3_pipeline.distill.objectives.objective import Objective, fitting
from kd3_pipeline.distill.parallel import ALONE, World
from kd3_pipeline.distill.pretrained import Pretrained, load_pretrained, pretrained, start_notes
from kd3_pipeline.distill.teacher_views import stored_views
from kd3_pipeline.distill.trainer import Report, Trained, train
from kd3_pipeline.distill.views import Views, views_of
from kd3_pipeline.distill.web import WebImages
from kd3_pipeline.errors import UserError, first_line
from kd3_pipeline.models import build
from kd3_pipeline.models.checkpoint import ModelConfig
from kd3_pipeline.models.fuse import fuse
from kd3_pipeline.models.network import Network
from kd3_pipeline.models.own import is_own
from kd3_pipeline.params import Distill
from kd3_pipeline.registry import OBJECTIVES


@dataclass(frozen=True)
class Prepared:
    """A student that is about to be trained.

    Attributes:
        objective: on the device, with the student in it.
        start: what the student's weights are; None: random.
        notes: what is to be told of them.
    """

    objective: Objective
    views: Views
    start: Pretrained | None = None
    notes: list[str] = field(default_factory=list)


def build_student(section: Distill, config: ModelConfig) -> Network:
    """The student with random weights, for the classes and the images of a teacher of `config`.

    Raises:
        UserError: as `build`.
    """
    options = dict(section.student_options)
    if is_own(section.student):
        options.setdefault("input_size", config.input_size)
    return build(section.student, len(config.class_names), **options)


def prepare(
    section: Distill, web: WebImages, teacher: Network, config: ModelConfig, world: World = ALONE
) -> Prepared:
    """Builds the student and what trains it.

    Args:
        section: with what its objective fixes.
        teacher: in evaluation mode, on the device of `web`; `config` is its own.

    Raises:
        UserError: the student cannot be built, does not take images of the teacher's size, or
            cannot be aligned with the teacher; or as `pretrained`.
        ExternalError: as `pretrained`.
    """
    section, _ = fitting(section, teacher)
    if section.disagreement and teacher.runs_elsewhere:
        raise UserError(
            "distill.disagreement needs the gradient of the teacher, which is a program that gives"
            " answers alone",
            "set it to 0",
        )
    device = web.teacher_logits.device
    views = views_of(section, config, web.pixels.side)
    start, notes = pretrained(section), []  # before the seed: a library may draw
    torch.manual_seed(section.seed)
    student = build_student(section, config)
    if start:
        left, told = load_pretrained(student, start)
        notes = [*start_notes(start, left, config), *told]
    student.to(device)
    # frozen, the teacher's batch norms can be part of its convolutions: less to read and write
    teacher = laid_out(fuse(teacher).requires_grad_(False), memory_format(device))
    example = views.whole(next(iter(web.pixels.batches([web.train[:1]]))))
    _check_size(student, example, section)
    objective = OBJECTIVES.load(section.objective)(student, teacher, example, section)
    laid_out(objective.to(device), memory_format(device))
    objective.world = world
    return Prepared(objective, views, start, notes)


def ready(
    section: Distill,
    web: WebImages,
    teacher: Network,
    config: ModelConfig,
    precision: torch.dtype,
    answers: Path,
    world: World = ALONE,
) -> Prepared:
    """As `prepare`, with the teacher's answers to stored views, which are asked for if need be.

    Args:
        answers: where they are kept.
    """
    section, _ = fitting(section, teacher)
    found = prepare(section, web, teacher, config, world)
    about = (section, web, found.objective.teacher, found.views, precision, answers, world)
    found.objective.stored = stored_views(*about, no_progress)
    return found


def distill(
    section: Distill,
    web: WebImages,
    teacher: Network,
    config: ModelConfig,
    precision: torch.dtype,
    folder: Path,
    advance: Advance,
    report: Report = lambda curves: None,
    world: World = ALONE,
    answers: Path | None = None,
) -> tuple[Objective, Trained]:
    """Builds the student and distils it; see `prepare` and `train` for the errors raised.

    Args:
        section: with what its objective fixes, a number as learning rate, no time as budget.
        teacher: in evaluation mode, on the device of `web`; `config` is its own.
        folder: where an interrupted run goes on.
        answers: where the teacher's answers to stored views are kept; None: in `folder`.
    """
    section, _ = fitting(section, teacher)
    answers = folder / "views" if answers is None else answers
    of = ready(section, web, teacher, config, precision, answers, world)
    training = (web, of.objective, of.views, section, precision, folder, advance, report)
    return of.objective, train(*training)


@torch.no_grad()
def _check_size(student: Network, images: Tensor, section: Distill) -> None:
    """Raises a UserError where the student does not take images like these."""
    training = student.training
    try:
        student.eval()(images)
    except (RuntimeError, ValueError, AssertionError) as error:
        raise UserError(
            f"distill.student: '{section.student}' does not take images of {images.shape[-1]}"
            f" pixels, the size of the teacher's: {first_line(error)}",
            "choose another, or set its size in distill.student_options (timm: img_size;"
            " torchvision's ViT: image_size)",
        ) from None
    finally:
        student.train(training)
