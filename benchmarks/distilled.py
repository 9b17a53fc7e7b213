"""One distillation for a benchmark, from the demo's data/embed and models/teacher."""

import tempfile
from pathlib import Path

import torch

from pipeline.console import no_progress
from pipeline.distill.objectives import KD, KD3, OBJECTIVES, Terms
from pipeline.distill.trainer import Schedule, Trained, distill
from pipeline.distill.web import load_web_images
from pipeline.models import build
from pipeline.models.checkpoint import ModelConfig, load_model
from pipeline.params import Distill
from pipeline.pixels import normalise
from pipeline.runkey import fields_of


def distilled(
    section: Distill, device: torch.device, precision: torch.dtype
) -> tuple[KD3 | KD, Trained, ModelConfig]:
    """The trained objective, its curves, and the teacher's config."""
    web = load_web_images(Path("data/embed"), section.held_out, device)
    teacher, config = load_model(Path("models/teacher"), device)
    teacher.requires_grad_(False)
    torch.manual_seed(section.seed)
    student = build(section.student, len(config.class_names)).to(device)
    example = normalise(web.pixels[:1], config.mean, config.std)
    terms = Terms(**fields_of(Terms, section))
    objective = OBJECTIVES[section.objective](student, teacher, example, terms).to(device)
    schedule = Schedule(**fields_of(Schedule, section))
    with tempfile.TemporaryDirectory() as folder:
        trained = distill(
            web,
            objective,
            config.mean,
            config.std,
            schedule,
            precision,
            Path(folder),
            no_progress,
            lambda curves: None,
        )
    return objective, trained, config
