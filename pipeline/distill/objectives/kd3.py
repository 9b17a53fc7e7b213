"""KD3 (Tang et al., ICCV 2023): its loss, every component with its own switch."""

import copy
from typing import Any, ClassVar

import torch
from torch import Tensor

from kd3_pipeline.distill.objectives.objective import Objective, softened_divergence
from kd3_pipeline.errors import UserError
from kd3_pipeline.kd3 import (
    ChannelVariance,
    Projection,
    Transfer,
    disagreement_weights,
    mix_distribution,
    nt_xent,
    per_channel,
    weighted_feature_loss,
)
from kd3_pipeline.kd3.alignment import as_map, pooled_to
from kd3_pipeline.models.distilled import Distilled
from kd3_pipeline.models.layers import layers_of
from kd3_pipeline.models.network import Network, drop_classifier, pool
from kd3_pipeline.params import Distill

# inner width of the transfer module: half of the teacher's channels as published, but no less, as
# for a map of ten classes, and for vectors no more, as for a flattened map of 25,088
NARROWEST, WIDEST = 32, 512


class KD3(Objective):
    """L = L_kd + β L_con: features weighted by disagreement, and MixDistribution contrast.

    The published loss has a second contrast term, on the teacher's features. It only trains a
    projection that nothing reads, so it is left out: the student's gradients are the same. In the
    contrast term all images count alike, because it asks for nothing that the teacher says.
    """

    follows_sign: ClassVar[bool] = True  # no ReLU before what the teacher has below zero

    def __init__(
        self, student: Network, teacher: Network, images: Tensor, section: Distill
    ) -> None:
        super().__init__(student, teacher, images, section)
        if section.alignment:
            _check_cuts(student, teacher, section)
            drop_classifier(student)
            with torch.no_grad():
                features = teacher.features(images)
            self._bridge, self._teacher_side = _bridge(student, features, self.follows_sign)
            channels = student.feature_channels, teacher.feature_channels
            self.transfer = Transfer(*channels, **self._bridge)
            if section.feature_loss == "standardised":
                self.variance = ChannelVariance(teacher.feature_channels)
        if section.mixing:
            self.projection = Projection(student.feature_channels)

    def views(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """The images, and with `mixing` the same in each other's channel statistics."""
        if not self.section.mixing:
            return (images,)
        mixed = mix_distribution(images, alpha=self.section.mixing_alpha, generator=generator)
        return images, mixed

    def forward(
        self,
        images: Tensor,
        *others: Tensor,
        weights: Tensor | None = None,
        answers: Tensor | None = None,
    ) -> dict[str, Tensor]:
        section = self.section
        teacher_features, teacher_logits = self._told(images, answers)
        student_features = self.student.features(images)
        losses = {}
        if section.alignment:
            ours, theirs = self.transfer(student_features, teacher_features)
            ours, theirs = ours.float(), theirs.float()
            student_logits = self.teacher.classify(pool(ours)).float()
            counts = torch.ones(len(images), device=images.device)
            if section.weighting:
                counts = disagreement_weights(student_logits, teacher_logits)
            if weights is not None:
                counts = counts * weights
            losses["feature"] = section.feature_weight * self._feature_loss(ours, theirs, counts)
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
        return losses | self._other_terms(teacher_features, others)

    def predict(self, images: Tensor) -> Tensor:
        """The student's logits [B, C]."""
        if not self.section.alignment:
            return self.student(images)
        student_map = pooled_to(as_map(self.student.features(images)), self._teacher_side)
        return self.teacher.classify(pool(self.transfer.transfer(student_map)))

    def deployed(
        self, student: dict[str, Any], teacher: dict[str, Any]
    ) -> tuple[Network, dict[str, Any]]:
        """Backbone, transfer module and the teacher's classifier in one."""
        if not self.section.alignment:
            return self.student, student
        classifier = copy.deepcopy(self.teacher.classifier)
        network = Distilled(self.student, self.transfer, classifier, self._teacher_side)
        own = {key: value for key, value in student.items() if key not in ("name", "num_classes")}
        return network, Distilled.architecture(
            backbone=student["name"],
            backbone_options=own,
            teacher=teacher,
            tail=layers_of(classifier),
            channels=self.teacher.feature_channels,
            side=self._teacher_side,
            num_classes=student["num_classes"],
            transfer=self._bridge,
        )

    def _told(self, images: Tensor, answers: Tensor | None) -> tuple[Tensor, Tensor]:
        """The teacher's features and logits; of stored features only the tail is computed."""
        if answers is None:
            return self.ask_teacher(images)
        if not self.section.alignment:
            return answers, answers
        with torch.no_grad():
            return answers, self.teacher.classify(pool(answers)).float()

    def _feature_loss(self, ours: Tensor, theirs: Tensor, counts: Tensor) -> Tensor:
        """The square of what is apart, in units of the teacher's features.

        `relative`: ÷ mean of h_t², over all elements of the batch. `standardised`: (h_s − h_t)² ÷
        σ_c², the variance of its channel over all that the teacher has said in the run.
        """
        how = self.section.feature_loss
        if how == "standardised":
            if self.training:
                self._take_in(theirs)
            scale = per_channel(self.variance().rsqrt(), theirs)
            return weighted_feature_loss(scale * ours, scale * theirs, counts)
        feature = weighted_feature_loss(ours, theirs, counts)
        return feature / self.world.mean(theirs.square().mean()) if how == "relative" else feature

    @torch.no_grad()
    def _take_in(self, theirs: Tensor) -> None:
        """Mean and variance of the teacher's channels, of the batches of all processes."""
        over = [0, *range(2, theirs.ndim)]
        mean = self.world.mean(theirs.mean(dim=over))
        apart = (theirs - per_channel(mean, theirs)).square()
        self.variance.update(mean, self.world.mean(apart.mean(dim=over)))

    def _other_terms(
        self, teacher_features: Tensor, others: tuple[Tensor, ...]
    ) -> dict[str, Tensor]:
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


def _check_cuts(student: Network, teacher: Network, section: Distill) -> None:
    """Raises a UserError where there are no features to align."""
    if teacher.cut == "logits":
        raise UserError(
            "distill: the teacher gives logits alone, so there are no features to align with",
            "set distill.objective to kd or dfnd",
        )
    if student.cut == "logits":
        raise UserError(
            f"distill.student: of '{section.student}' only the logits can be had, so it has no"
            " features to align",
            "set distill.objective to kd or dfnd, or choose a network that ends in a linear layer",
        )


def _bridge(
    student: Network, teacher_features: Tensor, follows_sign: bool
) -> tuple[dict[str, Any], int]:
    """Options of the transfer module, and the side of the teacher's map; 0: it gives a vector.

    Args:
        teacher_features: of some images.
        follows_sign: features below zero can be met; else a map's never are.
    """
    options: dict[str, Any] = {"kernel": 1} if student.cut == "vector" else {}
    channels = teacher_features.shape[1]
    if channels // 2 < NARROWEST:
        options["inner"] = NARROWEST
    vector = teacher_features.ndim == 2
    # as behind SiLU or a layer norm; a last ReLU would never meet them
    if (vector or follows_sign) and (teacher_features < 0).any():
        options["signed"] = True
    if not vector:
        return options, teacher_features.shape[-1]
    if channels // 2 > WIDEST:
        options["inner"] = WIDEST
    return options, 0
