"""DFND (Chen et al., "Learning Student Networks in the Wild", CVPR 2021)."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from kd3_pipeline.distill.objectives.objective import Objective, softened_divergence
from kd3_pipeline.models.network import Network
from kd3_pipeline.params import Distill

KEPT_LABELS = 0.9  # share of the teacher's labels that the untrained matrix takes to be right


class DFND(Objective):
    """KL to the teacher, and its labels through a learned matrix of label noise.

    Trained on the images of which the teacher is most sure. The teacher's label ỹ of a web image
    may be wrong: p(ỹ = j | x) = Σ_i p(y = i | x) Q_ij, where p(y | x) is the student's prediction
    and the row-stochastic Q [C, C] is learned with it.
    """

    settings: ClassVar[dict[str, Any]] = {"selection": "confident"}

    def __init__(
        self, student: Network, teacher: Network, images: Tensor, section: Distill
    ) -> None:
        super().__init__(student, teacher, images, section)
        classes = student.num_classes
        noise = torch.full((classes, classes), (1 - KEPT_LABELS) / max(classes - 1, 1))
        noise.fill_diagonal_(KEPT_LABELS)
        self.noise_logits = nn.Parameter(noise.log())

    def forward(
        self,
        images: Tensor,
        *others: Tensor,
        weights: Tensor | None = None,
        answers: Tensor | None = None,
    ) -> dict[str, Tensor]:
        target = self.ask_teacher(images)[1] if answers is None else answers
        logits = self.student(images).float()
        with torch.autocast(images.device.type, enabled=False):
            noisy = logits.softmax(dim=1) @ self.noise_logits.softmax(dim=1)
            likelihood = noisy.clamp(min=1e-12).log()
            unlikely = functional.nll_loss(likelihood, target.argmax(dim=1), reduction="none")
            unlikely = (unlikely if weights is None else weights * unlikely).mean()
        return {
            "kl": softened_divergence(logits, target, self.section.kd_temperature, weights),
            "noisy_label": unlikely,
        }
