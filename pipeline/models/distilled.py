"""The student that is deployed: backbone, transfer module and the teacher's classifier in one."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.kd3 import Transfer
from pipeline.models import build
from pipeline.models.checkpoint import ModelConfig, load_model
from pipeline.models.network import Network


class Distilled(Network):
    """A student as one plain network, with logits from the teacher's classifier.

    Args:
        backbone: the student; its own classifier is dropped, because nothing trained it.
        transfer: trained with the student.
        classifier: the teacher's.
        side: the teacher's feature maps are `side` × `side`; larger student maps are pooled.
    """

    def __init__(
        self, backbone: Network, transfer: Transfer, classifier: nn.Linear, side: int
    ) -> None:
        super().__init__()
        setattr(backbone, backbone.classifier_name, nn.Identity())
        self.backbone = backbone
        self.transfer = transfer.transfer
        self.fc = classifier
        self.side = side
        self.feature_channels = classifier.in_features

    def features(self, images: Tensor) -> Tensor:
        feature_map = self.backbone.features(images)
        if feature_map.shape[-1] > self.side:
            feature_map = functional.adaptive_avg_pool2d(feature_map, self.side)
        return self.transfer(feature_map)


def load_student(folder: Path, device: torch.device) -> tuple[Network, ModelConfig]:
    """What distillation wrote: a `Distilled` network, or a plain one.

    Raises:
        UserError: as `load_model`.
    """
    return load_model(folder, device, _build_student)


def _build_student(**architecture: Any) -> Network:
    if "backbone" not in architecture:
        return build(**architecture)
    channels, classes = architecture["teacher_channels"], architecture["num_classes"]
    backbone = build(architecture["backbone"], classes)
    transfer = Transfer(backbone.feature_channels, channels, architecture["factor"])
    return Distilled(backbone, transfer, nn.Linear(channels, classes), architecture["side"])
