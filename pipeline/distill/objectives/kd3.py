"""KD3 (Tang et al., ICCV 2023): its loss, every component with its own switch."""

import copy
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.distill.objectives.objective import Objective, softened_divergence
from pipeline.kd3 import (
    Projection,
    Transfer,
    disagreement_weights,
    mix_distribution,
    nt_xent,
    weighted_feature_loss,
)
from pipeline.models.distilled import Distilled
from pipeline.models.network import Network, drop_classifier, pool
from pipeline.params import Distill


class KD3(Objective):
    """L = L_kd + β L_con: features weighted by disagreement, and MixDistribution contrast.

    The published loss has a second contrast term, on the teacher's features. It only trains a
    projection that nothing reads, so it is left out: the student's gradients are the same. In the
    contrast term all images count alike, because it asks for nothing that the teacher says.
    """

    def __init__(
        self, student: Network, teacher: Network, images: Tensor, section: Distill
    ) -> None:
        super().__init__(student, teacher, images, section)
        if section.alignment:
            drop_classifier(student)
            self.transfer = Transfer(student.feature_channels, teacher.feature_channels)
            with torch.no_grad():
                self._teacher_side = teacher.features(images).shape[-1]
        if section.mixing:
            self.projection = Projection(student.feature_channels)

    def views(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """The images, and with `mixing` the same in each other's channel statistics."""
        if not self.section.mixing:
            return (images,)
        mixed = mix_distribution(images, alpha=self.section.mixing_alpha, generator=generator)
        return images, mixed

    def forward(
        self, images: Tensor, *others: Tensor, weights: Tensor | None = None
    ) -> dict[str, Tensor]:
        section = self.section
        teacher_map, teacher_logits = self.ask_teacher(images)
        student_features = self.student.features(images)
        losses = {}
        if section.alignment:
            student_map, target_map = self.transfer(student_features, teacher_map)
            student_map, target_map = student_map.float(), target_map.float()
            student_logits = self.teacher.classify(pool(student_map)).float()
            counts = torch.ones(len(images), device=images.device)
            if section.weighting:
                counts = disagreement_weights(student_logits, teacher_logits)
            if weights is not None:
                counts = counts * weights
            feature = weighted_feature_loss(student_map, target_map, counts)
            if section.feature_loss == "relative":
                feature = feature / self.world.mean(target_map.square().mean())
            losses["feature"] = section.feature_weight * feature
        else:
            student_logits = self.student.classify(pool(student_features))
        if section.logit_weight:
            divergence = softened_divergence(
                student_logits, teacher_logits, section.kd_temperature, weights
            )
            losses["logit"] = section.logit_weight * divergence
        if section.mixing:
            views = pool(student_features), pool(self.student.features(others[0]))
            a, b = (self._project(self.projection, view) for view in views)
            losses["contrast"] = section.contrast_weight * self._contrast(a, b)
        return losses | self._other_terms(teacher_map, others)

    def predict(self, images: Tensor) -> Tensor:
        """The student's logits [B, C]."""
        if not self.section.alignment:
            return self.student(images)
        student_map = self.student.features(images)
        if student_map.shape[-1] > self._teacher_side:
            student_map = functional.adaptive_avg_pool2d(student_map, self._teacher_side)
        return self.teacher.classify(pool(self.transfer.transfer(student_map)))

    def deployed(
        self, student: dict[str, Any], teacher: dict[str, Any]
    ) -> tuple[Network, dict[str, Any]]:
        """Backbone, transfer module and the teacher's classifier in one."""
        if not self.section.alignment:
            return self.student, student
        classifier = copy.deepcopy(self.teacher.classifier)
        network = Distilled(self.student, self.transfer, classifier, self._teacher_side)
        return network, Distilled.architecture(
            backbone=student["name"],
            teacher=teacher,
            side=self._teacher_side,
            num_classes=student["num_classes"],
        )

    def _other_terms(self, teacher_map: Tensor, others: tuple[Tensor, ...]) -> dict[str, Tensor]:
        return {}

    def _project(self, projection: Projection, pooled: Tensor) -> Tensor:
        with torch.autocast(pooled.device.type, enabled=False):
            return projection(pooled.float())

    def _contrast(self, a: Tensor, b: Tensor) -> Tensor:
        """NT-Xent over the images of all processes."""
        with torch.autocast(a.device.type, enabled=False):
            return nt_xent(
                self.world.gather(a), self.world.gather(b), self.section.contrast_temperature
            )
