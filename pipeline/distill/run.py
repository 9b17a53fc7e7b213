"""One distillation from its parameters, for the stage, for trials and for benchmarks."""

from pathlib import Path

import torch

from pipeline.console import Advance
from pipeline.device import memory_format
from pipeline.distill.objectives.objective import Objective
from pipeline.distill.parallel import ALONE, World
from pipeline.distill.trainer import Report, Trained, train
from pipeline.distill.views import views_of
from pipeline.distill.web import WebImages
from pipeline.models import build
from pipeline.models.checkpoint import ModelConfig
from pipeline.models.fuse import fuse
from pipeline.models.network import Network
from pipeline.params import Distill
from pipeline.registry import OBJECTIVES


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
) -> tuple[Objective, Trained]:
    """Builds the student and distils it; see `train` for the errors raised.

    Args:
        section: with what its objective fixes, and a number as learning rate.
        teacher: in evaluation mode, on the device of `web`; `config` is its own.
        folder: where an interrupted run goes on.
    """
    device = web.teacher_logits.device
    views = views_of(section, config, web.pixels.side)
    torch.manual_seed(section.seed)
    student = build(section.student, len(config.class_names)).to(device)
    # frozen, the teacher's batch norms can be part of its convolutions: less to read and write
    teacher = fuse(teacher).requires_grad_(False).to(memory_format=memory_format(device))
    example = views.whole(next(iter(web.pixels.batches([web.train[:1]]))))
    objective = OBJECTIVES.load(section.objective)(student, teacher, example, section)
    objective.to(device, memory_format=memory_format(device))
    objective.world = world
    return objective, train(web, objective, views, section, precision, folder, advance, report)
