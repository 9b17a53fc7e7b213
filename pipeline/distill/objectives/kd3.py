"""What a student minimises. An objective has its modules, its predictions and its loss terms."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.kd3 import (
    Projection,
    Transfer,
    disagreement_weights,
    mix_distribution,
    nt_xent,
    weighted_feature_loss,
)
from pipeline.models.distilled import Distilled
from pipeline.models.network import Network, pool


@dataclass(frozen=True)
class Terms:
    """Settings of the loss terms; see `distill` in params.yaml."""

    mixing: bool
    mixing_alpha: float
    contrast_weight: float
    contrast_temperature: float
    kd_temperature: float


class KD3(nn.Module):
    """Weighted feature alignment under the teacher's classifier, and MixDistribution contrast.

    The published loss has a second contrast term, on the teacher's features. It only trains a
    projection that nothing reads, so it is left out: the student's gradients are the same.

    Args:
        student: a backbone; its own classifier is not used.
        teacher: frozen, in evaluation mode.
        images: a batch as the student sees it, for the sizes of the feature maps.
    """

    def __init__(self, student: Network, teacher: Network, images: Tensor, terms: Terms) -> None:
        super().__init__()
        self.student = student
        self.transfer = Transfer(student.feature_channels, teacher.feature_channels)
        self.projection = Projection(student.feature_channels)
        self.terms = terms
        self._teacher = [teacher]  # in a list, so that it is no part of this module's state
        with torch.no_grad():
            self._teacher_side = teacher.features(images).shape[-1]

    def predict(self, images: Tensor) -> Tensor:
        """The student's logits [B, C]."""
        student_map = self.student.features(images)
        if student_map.shape[-1] > self._teacher_side:
            student_map = functional.adaptive_avg_pool2d(student_map, self._teacher_side)
        return self._teacher[0].classify(pool(self.transfer.transfer(student_map)))

    def losses(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """The terms of L = L_kd + β L_con, each with its weight applied.

        Args:
            images: normalised, [B, 3, S, S].
            generator: source of MixDistribution's draws.
        """
        teacher = self._teacher[0]
        with torch.no_grad():
            teacher_map = teacher.features(images)
            teacher_logits = teacher.classify(pool(teacher_map))
        student_features = self.student.features(images)
        student_map, teacher_map = self.transfer(student_features, teacher_map)
        student_logits = teacher.classify(pool(student_map))
        weights = disagreement_weights(student_logits.float(), teacher_logits.float())
        terms = {
            "feature": weighted_feature_loss(student_map.float(), teacher_map.float(), weights)
        }
        if self.terms.mixing:
            mixed = mix_distribution(images, alpha=self.terms.mixing_alpha, generator=generator)
            views = [pool(student_features), pool(self.student.features(mixed))]
            with torch.autocast(images.device.type, enabled=False):
                a, b = (self.projection(view.float()) for view in views)
                contrast = nt_xent(a, b, self.terms.contrast_temperature)
            terms["contrast"] = self.terms.contrast_weight * contrast
        return terms

    def deployed(self) -> tuple[Network, dict[str, Any]]:
        """The student as one network, and its architecture without the backbone's name."""
        classifier = copy.deepcopy(self._teacher[0].classifier)
        network = Distilled(self.student, self.transfer, classifier, self._teacher_side)
        return network, {
            "num_classes": classifier.out_features,
            "teacher_channels": classifier.in_features,
            "factor": 2,
            "side": self._teacher_side,
        }


class KD(nn.Module):
    """Plain distillation: KL between softened logits (Hinton et al., 2015)."""

    def __init__(self, student: Network, teacher: Network, images: Tensor, terms: Terms) -> None:
        super().__init__()
        self.student = student
        self.terms = terms
        self._teacher = [teacher]  # in a list, so that it is no part of this module's state

    def predict(self, images: Tensor) -> Tensor:
        """The student's logits [B, C]."""
        return self.student(images)

    def losses(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """T² KL(teacher ‖ student) of logits divided by the temperature T."""
        temperature = self.terms.kd_temperature
        with torch.no_grad():
            target = (self._teacher[0](images).float() / temperature).log_softmax(dim=1)
        predicted = (self.student(images).float() / temperature).log_softmax(dim=1)
        divergence = functional.kl_div(predicted, target, reduction="batchmean", log_target=True)
        return {"kl": temperature**2 * divergence}

    def deployed(self) -> tuple[Network, dict[str, Any]]:
        """The student as it is, and its architecture without the name."""
        return self.student, {"num_classes": self.student.classifier.out_features}


OBJECTIVES = {"kd3": KD3, "kd": KD}
