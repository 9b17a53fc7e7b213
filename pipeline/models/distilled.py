"""Distilled student: backbone, transfer module and the teacher's classifier as one network."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.kd3 import Transfer
from pipeline.models import build
from pipeline.models.checkpoint import ModelConfig, load_model
from pipeline.models.fuse import fuse
from pipeline.models.network import Network, drop_classifier


class Distilled(Network):
    """A student as one plain network, with logits from the teacher's classifier.

    Args:
        backbone: the student; its own classifier is dropped, because nothing trained it.
        transfer: trained with the student.
        classifier: the teacher's, of one layer or several.
        side: the teacher's feature maps are `side` × `side`; larger student maps are pooled.
    """

    def __init__(
        self, backbone: Network, transfer: Transfer, classifier: nn.Module, side: int
    ) -> None:
        super().__init__()
        drop_classifier(backbone)
        self.backbone = backbone
        self.transfer = transfer.transfer
        self.fc = classifier
        self.side = side
        layers = [layer for layer in self.transfer if isinstance(layer, nn.Conv2d)]
        if layers[0].in_channels != backbone.feature_channels:
            raise ValueError("the transfer module was made before the backbone's classifier went")
        self.feature_channels = layers[-1].out_channels

    @staticmethod
    def architecture(
        *,
        backbone: str,
        teacher: dict[str, Any],
        side: int,
        num_classes: int,
        factor: int = 2,
        fused: bool = False,
        backbone_options: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Architecture of such a network for `ModelConfig`, from which `load_student` rebuilds it.

        Args:
            backbone, backbone_options: of `pipeline.models.build`.
            teacher: the teacher's own architecture, for its classifier.
            side: as in the constructor.
            factor: of the transfer module.
            fused: the network went through `pipeline.models.fuse`.
        """
        options = {"backbone_options": backbone_options} if backbone_options else {}
        return {
            "backbone": backbone,
            **options,
            "teacher": teacher,
            "num_classes": num_classes,
            "factor": factor,
            "side": side,
            "fused": fused,
        }

    def features(self, images: Tensor) -> Tensor:
        feature_map = self.backbone.features(images)
        if feature_map.shape[-1] > self.side:
            feature_map = functional.adaptive_avg_pool2d(feature_map, self.side)
        return self.transfer(feature_map)


def load_student(folder: Path, device: torch.device) -> tuple[Network, ModelConfig]:
    """Student that distillation wrote: a `Distilled` network or a plain one, fused or not.

    Raises:
        UserError: as `load_model`.
    """
    return load_model(folder, device, _build_student)


def _build_student(*, fused: bool = False, **architecture: Any) -> Network:
    make = _build_distilled if "backbone" in architecture else build
    network = make(**architecture)
    return fuse(network) if fused else network


def _build_distilled(
    *,
    backbone: str,
    teacher: dict[str, Any],
    num_classes: int,
    factor: int,
    side: int,
    backbone_options: dict[str, Any] | None = None,
) -> Network:
    student = build(backbone, num_classes, **(backbone_options or {}))
    drop_classifier(student)
    channels, classifier = _tail(teacher)
    transfer = Transfer(student.feature_channels, channels, factor)
    return Distilled(student, transfer, classifier, side)


def _tail(teacher: dict[str, Any]) -> tuple[int, nn.Module]:
    """Channels of a teacher's feature map, and its classifier with weights still to be loaded."""
    try:
        with torch.device("meta"):  # the rest of the teacher costs neither time nor memory
            network = _build_student(**teacher)
    except NotImplementedError:  # RegNet works out its widths with tensors
        network = _build_student(**teacher)
    return network.feature_channels, network.classifier.to_empty(device="cpu")
