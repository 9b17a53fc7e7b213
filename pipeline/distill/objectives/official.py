"""The published code to the letter, to compare with in one code base."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from kd3_pipeline.distill.objectives.kd3 import KD3
from kd3_pipeline.kd3 import Projection
from kd3_pipeline.models.network import Network, pool
from kd3_pipeline.params import Distill


class Official(KD3):
    """KD3 with every choice of the published code, and the contrast term on the teacher's views.

    One random crop is judged and another one trained on, the student selects alone from half of
    the epochs on, the kept images alone make an epoch, in float32.
    """

    follows_sign = False
    settings: ClassVar[dict[str, Any]] = {
        "student_weights": "",
        "schedule": "step",
        "optimizer": "sgd",
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "clip": 0.0,
        "accumulate": 1,
        "teacher_views": 0,
        "ema": 0.0,
        "disagreement": 0.0,
        "selection": "dynamic",
        "cutoff": 0.95,
        "teacher_floor": 0.0,
        "judge": "random",
        "refill": False,
        "alignment": True,
        "weighting": True,
        "feature_loss": "mean",
        "feature_weight": 1.0,
        "logit_weight": 0.0,
        "mixing": True,
        "mixing_alpha": 0.1,
        "contrast_weight": 0.001,
        "contrast_temperature": 0.3,
        "crop": "resized",
        "crop_scale": 0.08,
        "flip": True,
        "off_topic_weight": 0.0,
        "skip_redundant": False,
        "precision": "float32",
    }

    def __init__(
        self, student: Network, teacher: Network, images: Tensor, section: Distill
    ) -> None:
        super().__init__(student, teacher, images, section)
        self.teacher_projection = Projection(teacher.feature_channels)

    def _other_terms(
        self, teacher_features: Tensor, others: tuple[Tensor, ...]
    ) -> dict[str, Tensor]:
        with torch.no_grad():
            # a copy: of a vector `pool` gives the tensor of inference mode itself
            views = pool(teacher_features).clone(), pool(self.teacher.features(others[0]))
        a, b = (self._project(self.teacher_projection, view) for view in views)
        return {"teacher_contrast": self.section.contrast_weight * self._contrast(a, b)}
