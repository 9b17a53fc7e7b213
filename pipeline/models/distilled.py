"""Distilled student: backbone, transfer module and the teacher's classifier as one network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kd3_pipeline.errors import UserError
from kd3_pipeline.kd3 import Transfer
from kd3_pipeline.kd3.alignment import as_map, pooled_to
from kd3_pipeline.models import build
from kd3_pipeline.models.checkpoint import ModelConfig, load_model
from kd3_pipeline.models.fuse import fuse
from kd3_pipeline.models.layers import build_layers
from kd3_pipeline.models.network import Network, drop_classifier


class Distilled(Network):
    """A student as one plain network, with logits from the teacher's classifier.

    Args:
        backbone: the student; its own classifier is dropped, because nothing trained it.
        transfer: trained with the student.
        classifier: the teacher's, of one layer or several.
        side: the teacher's feature maps are `side` × `side`; larger student maps are pooled. 0:
            the teacher gives a vector.
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

    @property
    def num_classes(self) -> int:
        """Outputs of the last layer of the tail that has any; else it gives what it is given."""
        for layer in reversed(list(self.fc.modules())):
            if isinstance(layer, nn.Linear | nn.Conv2d):
                return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
        return self.feature_channels

    @staticmethod
    def architecture(
        *,
        backbone: str,
        side: int,
        num_classes: int,
        channels: int | None = None,
        tail: Sequence[dict[str, Any]] | None = None,
        teacher: dict[str, Any] | None = None,
        factor: int = 2,
        transfer: dict[str, Any] | None = None,
        fused: bool = False,
        backbone_options: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Architecture of such a network for `ModelConfig`, from which `load_student` rebuilds it.

        Args:
            backbone, backbone_options: of `kd3_pipeline.models.build`.
            side: as in the constructor.
            channels: of the teacher's features.
            tail: the teacher's classifier as `kd3_pipeline.models.layers.layers_of` gives it; with
                it nothing else of the teacher is needed.
            teacher: its own architecture, which has the classifier; kept where there is no `tail`.
            factor, transfer: of the transfer module, and its options.
            fused: the network went through `kd3_pipeline.models.fuse`.
        """
        options = {"backbone_options": backbone_options} if backbone_options else {}
        known = {"tail": list(tail), "channels": channels} if tail else {"teacher": teacher}
        return {
            "backbone": backbone,
            **options,
            **known,
            "num_classes": num_classes,
            "factor": factor,
            **({"transfer": transfer} if transfer else {}),
            "side": side,
            "fused": fused,
        }

    def features(self, images: Tensor) -> Tensor:
        feature_map = as_map(self.backbone.features(images))
        return self.transfer(pooled_to(feature_map, self.side))


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
    num_classes: int,
    factor: int,
    side: int,
    tail: Sequence[dict[str, Any]] | None = None,
    channels: int | None = None,
    teacher: dict[str, Any] | None = None,
    transfer: dict[str, Any] | None = None,
    backbone_options: dict[str, Any] | None = None,
) -> Network:
    student = build(backbone, num_classes, **(backbone_options or {}))
    drop_classifier(student)
    if tail is not None and channels is not None:
        classifier = build_layers(tail)
    elif teacher is not None:  # layers of its own, or a config of an older release
        channels, classifier = _tail(teacher)
    else:
        raise KeyError("tail and channels, or teacher")
    bridge = Transfer(student.feature_channels, channels, factor, **(transfer or {}))
    return Distilled(student, bridge, classifier, side)


def _tail(teacher: dict[str, Any]) -> tuple[int, nn.Module]:
    """Channels of a teacher's features, and its classifier with weights still to be loaded."""
    try:
        with torch.device("meta"):  # the rest of the teacher costs neither time nor memory
            network = _build_student(**teacher)
    except UserError:
        raise
    except (NotImplementedError, RuntimeError):  # a network may look at values while it is built
        network = _build_student(**teacher)
    return network.feature_channels, network.classifier.to_empty(device="cpu")
