"""One distillation for a benchmark, from data/embed and models/teacher."""

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch

from kd3_pipeline.console import no_progress
from kd3_pipeline.distill.run import distill
from kd3_pipeline.distill.trainer import Trained
from kd3_pipeline.distill.web import WebImages, load_web_images
from kd3_pipeline.evaluate.logits import logits_of
from kd3_pipeline.labelled import LabelledImages
from kd3_pipeline.models.checkpoint import ModelConfig, load_model
from kd3_pipeline.models.network import Network
from kd3_pipeline.params import Distill


class Distilled(NamedTuple):
    """What one distillation gave."""

    network: Network
    config: ModelConfig  # the teacher's
    architecture: dict[str, Any]  # the student's
    trained: Trained

    def accuracy(self, test: LabelledImages) -> float:
        """Share of right answers on labelled images, which nothing was chosen by."""
        device = next(self.network.parameters()).device
        logits = logits_of(
            self.network, test.pixels, self.config.mean, self.config.std, 256, device
        )
        return float((logits.argmax(axis=1) == test.labels).mean())


def web_images(section: Distill, device: torch.device) -> WebImages:
    """The images of data/embed, some of them held out, as the stage takes them."""
    return load_web_images(Path("data/embed"), section, device)


def distilled(section: Distill, device: torch.device, precision: torch.dtype) -> Distilled:
    """Distils once, as the stage does; an objective's own settings are the caller's to apply."""
    web = web_images(section, device)
    teacher, config = load_model(Path("models/teacher"), device)
    teacher.requires_grad_(False)
    with tempfile.TemporaryDirectory() as folder:
        objective, trained = distill(
            section, web, teacher, config, precision, Path(folder), no_progress
        )
    classes = len(config.class_names)
    student = {"name": section.student, "num_classes": classes, **section.student_options}
    network, architecture = objective.deployed(student, config.architecture)
    return Distilled(network.eval(), config, architecture, trained)
