"""One distillation from its settings, for the stage, for tuning and for benchmarks."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from pipeline.console import Advance
from pipeline.device import memory_format
from pipeline.distill.objectives import OBJECTIVES, Objective, Terms
from pipeline.distill.parallel import ALONE, World
from pipeline.distill.selection import Chooser, Choosing
from pipeline.distill.trainer import Schedule, Trained, distill
from pipeline.distill.views import Views
from pipeline.distill.web import WebImages
from pipeline.models import build
from pipeline.models.checkpoint import ModelConfig
from pipeline.models.fuse import fuse
from pipeline.models.network import Network
from pipeline.runkey import fields_of


@dataclass(frozen=True)
class Settings:
    """What to distil and how; see `distill` in params.yaml."""

    objective: str
    student: str
    terms: Terms
    choosing: Choosing
    schedule: Schedule
    crop: Literal["pad", "resized", "none"]
    crop_scale: float
    flip: bool
    compile: Literal["auto", "always", "never"]


def settings_of(section: Any) -> Settings:
    """The settings in an object with attributes of the names in params.yaml."""
    groups = {"terms": Terms, "choosing": Choosing, "schedule": Schedule}
    parts = {name: kind(**fields_of(kind, section)) for name, kind in groups.items()}
    plain = {
        name: getattr(section, name) for name in Settings.__annotations__ if name not in groups
    }
    return Settings(**plain, **parts)


def run(
    settings: Settings,
    web: WebImages,
    teacher: Network,
    config: ModelConfig,
    precision: torch.dtype,
    folder: Path,
    advance: Advance,
    report: Callable[[list[dict[str, Any]]], None] = lambda curves: None,
    world: World = ALONE,
) -> tuple[Objective, Trained]:
    """Builds the student and distils it; see `distill` for the errors raised.

    Args:
        teacher: in evaluation mode, on the device of `web`; `config` is its own.
        folder: where an interrupted run goes on.
    """
    device = web.teacher_logits.device
    schedule = settings.schedule
    views = Views(config.mean, config.std, settings.crop, settings.crop_scale, settings.flip)
    torch.manual_seed(schedule.seed)
    student = build(settings.student, len(config.class_names)).to(device)
    # frozen, the teacher's batch norms can be part of its convolutions: less to read and write
    teacher = fuse(teacher).requires_grad_(False).to(memory_format=memory_format(device))
    example = views.whole(next(iter(web.pixels.batches([web.train[:1]]))))
    objective = OBJECTIVES[settings.objective](student, teacher, example, settings.terms)
    objective.to(device, memory_format=memory_format(device))
    objective.world = world
    chooser = Chooser(
        web,
        objective,
        views,
        settings.choosing,
        schedule.epochs,
        schedule.seed,
        precision,
        schedule.batch_size,  # so that judging takes no more memory than training
    )
    wanted = settings.compile
    compiled = wanted == "always" or (wanted == "auto" and device.type == "cuda")
    trained = distill(
        web,
        objective,
        views,
        chooser,
        schedule,
        precision,
        folder,
        advance,
        report,
        compiled,
    )
    return objective, trained
