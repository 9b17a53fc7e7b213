"""Interface of every objective: its views of a batch, its loss terms, its student."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from kd3_pipeline.distill.answers import LOGITS_ALONE, wants_features
from kd3_pipeline.distill.parallel import ALONE, World
from kd3_pipeline.distill.teacher_views import StoredViews
from kd3_pipeline.models.network import Network, pool
from kd3_pipeline.params import Distill
from kd3_pipeline.registry import OBJECTIVES


class Objective(nn.Module):
    """Modules to train, and the terms of their loss.

    Args:
        student: the network to train.
        teacher: frozen, in evaluation mode.
        images: a batch as the student sees it, for the sizes of the feature maps.
        section: weights and switches of the terms.
    """

    # parameters that the objective's own paper or code fixes; they override those of the user
    settings: ClassVar[dict[str, Any]] = {}

    def __init__(
        self, student: Network, teacher: Network, images: Tensor, section: Distill
    ) -> None:
        super().__init__()
        self.student = student
        self.section = section
        self.world: World = ALONE
        self.stored: StoredViews | None = None  # set where the teacher has been asked before
        self._teacher = [teacher]  # in a list, so that it is no part of this module's state

    @property
    def teacher(self) -> Network:
        """The frozen teacher."""
        return self._teacher[0]

    def views(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """What `forward` is shown of a batch [B, 3, S, S]: the images, and other versions of them.

        Args:
            generator: source of the draws, on the CPU.
        """
        return (images,)

    def forward(
        self,
        images: Tensor,
        *others: Tensor,
        weights: Tensor | None = None,
        answers: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The loss terms by name, each with its weight applied; they are summed.

        Args:
            images, others: `views`, or this process's share of them.
            weights: float32 [B], how much each image counts in the terms that ask the student for
                what the teacher says of it; None: all alike.
            answers: what the teacher has said of just these images, where that is stored: its
                features, float32 [B, C_t, …], if `wants_features`, else its logits [B, C]; None:
                it is asked.
        """
        raise TypeError(f"{type(self).__name__} defines no loss")

    def predict(self, images: Tensor) -> Tensor:
        """The student's logits [B, C]."""
        return self.student(images)

    def deployed(
        self, student: dict[str, Any], teacher: dict[str, Any]
    ) -> tuple[Network, dict[str, Any]]:
        """The student as one network, and what rebuilds it.

        Args:
            student, teacher: how `kd3_pipeline.models.build` made the two.
        """
        return self.student, student

    def answers(self, images: Tensor) -> Tensor:
        """What the teacher says of images that can be stored, without gradient; see `forward`."""
        features, logits = self.ask_teacher(images)
        return features.float().clone() if wants_features(self.section) else logits

    def ask_teacher(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's feature map [B, C_t, H, W] and logits [B, C], without gradient."""
        with torch.inference_mode():
            feature_map = self.teacher.features(images)
            logits = self.teacher.classify(pool(feature_map)).float()
        return feature_map, logits.clone()  # a tensor of inference mode cannot be used in a loss


def fitting(section: Distill, teacher: Network) -> tuple[Distill, str]:
    """The section with an objective that this teacher has answers for, and what changed, in words.

    A teacher of which only logits are seen has no features to align with, nor a classifier to
    share.
    """
    if section.objective not in LOGITS_ALONE:
        if teacher.cut != "logits":
            return section, ""
        told = f"kd, in place of {section.objective}: of the teacher only logits are seen"
        return section.model_copy(update={"objective": "kd"}), told
    return section, ""


def with_own_settings(section: Distill) -> Distill:
    """The section with what its objective fixes."""
    return section.model_copy(update=OBJECTIVES.load(section.objective).settings)


def softened_divergence(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float,
    weights: Tensor | None = None,
) -> Tensor:
    """T² KL(teacher ‖ student) of logits [B, C] divided by T (Hinton et al., 2015).

    The mean over images, each times its weight where there are `weights` [B].
    """
    target = (teacher_logits.float() / temperature).log_softmax(dim=1)
    predicted = (student_logits.float() / temperature).log_softmax(dim=1)
    if weights is None:
        divergence = functional.kl_div(predicted, target, reduction="batchmean", log_target=True)
    else:
        each = functional.kl_div(predicted, target, reduction="none", log_target=True).sum(dim=1)
        divergence = (weights * each).mean()
    return temperature**2 * divergence
