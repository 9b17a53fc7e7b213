"""Colours that a network of one's own takes, from those that all networks are given here."""

import torch
from torch import Tensor, nn

LUMA = (0.299, 0.587, 0.114)  # of R, G and B, as Pillow has it


class Adapted(nn.Module):
    """A module of one channel or of BGR, as one of RGB: [B, 3, S, S] → what the module gives.

    The brightness of normalised colours is the normalised brightness, where mean and deviation
    are one number for all colours.
    """

    luma: Tensor

    def __init__(self, model: nn.Module, channels: int, order: str) -> None:
        super().__init__()
        self.model = model
        self.channels = channels
        self.order = order
        self.register_buffer("luma", torch.tensor(LUMA).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        if self.channels == 1:
            return self.model((images * self.luma).sum(dim=1, keepdim=True))
        return self.model(images.flip(1) if self.order == "bgr" else images)


def adapted(model: nn.Module, channels: int, order: str) -> nn.Module:
    """`model` as one that takes RGB; its keys get the prefix `model.`.

    Args:
        channels: 1 or 3, that it takes.
        order: `rgb` or `bgr`, of three.
    """
    return Adapted(model, channels, order)
