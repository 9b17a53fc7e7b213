"""Views of the pixels that the networks are shown: whole images and random crops."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.params import Distill
from pipeline.pixels import normalise, pad_crop, resized_crop


@dataclass(frozen=True)
class Views:
    """How pixels uint8 [B, S, S, 3] become images [B, 3, S, S].

    Attributes:
        section: its `crop`, `crop_scale` and `flip`.
        mean, std: what the teacher expects, for pixels from 0 to 1.
    """

    section: Distill
    mean: Sequence[float]
    std: Sequence[float]

    def whole(self, pixels: Tensor) -> Tensor:
        """The images as they are."""
        return normalise(pixels, self.mean, self.std)

    def cropped(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """A random crop of each image, as training shows it."""
        crop, flip = self.section.crop, self.section.flip
        if crop == "resized":
            cut = resized_crop(pixels, generator, flip, (self.section.crop_scale, 1.0))
        else:
            pad = pixels.shape[1] // 8 if crop == "pad" else 0
            cut = pad_crop(pixels, generator, pad, flip)
        return self.whole(cut)


def draws(*counters: int) -> torch.Generator:
    """A generator on the CPU for one place in a run, such as (seed, epoch, step).

    What a step draws depends on nothing that was drawn before it, so neither on where a run was
    interrupted nor on how many processes share it. Of the 64 bits of the key torch uses 32.
    """
    key = 0
    for counter in counters:  # splitmix64 of each in turn
        key = (key + counter + 0x9E3779B97F4A7C15) % 2**64
        key = ((key ^ key >> 30) * 0xBF58476D1CE4E5B9) % 2**64
        key = ((key ^ key >> 27) * 0x94D049BB133111EB) % 2**64
        key ^= key >> 31
    return torch.Generator().manual_seed(key)
