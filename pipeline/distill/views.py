"""Views of the pixels that the networks are shown: whole images and random crops."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from kd3_pipeline.errors import UserError
from kd3_pipeline.models.checkpoint import ModelConfig
from kd3_pipeline.params import Distill
from kd3_pipeline.pixels import centre, draw_resized, draw_shifts, normalise, resized, shifted


@dataclass(frozen=True)
class Views:
    """How stored pixels uint8 [B, S0, S0, 3] become images [B, 3, S, S].

    Attributes:
        section: its `crop`, `crop_scale` and `flip`.
        mean, std: what the teacher expects, for pixels from 0 to 1.
        side: S, of the networks' input; 0: the stored side.
    """

    section: Distill
    mean: Sequence[float]
    std: Sequence[float]
    side: int = 0

    def whole(self, pixels: Tensor) -> Tensor:
        """The images as they are tested: the centres of what is stored."""
        return self._normalised(centre(pixels, self.side or pixels.shape[1]))

    def cropped(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """A random crop of each image, as training shows it."""
        count, stored = pixels.shape[:2]
        return self.cut(pixels, self.draw(count, stored, generator))

    def draw(self, count: int, stored: int, generator: torch.Generator) -> Tensor:
        """Random crops of `count` images of `stored` pixels, which `cut` takes: one a column.

        Returns:
            int64 [5, count] with `crop` resized, else [3, count], on the CPU.
        """
        crop, flip, side = self.section.crop, self.section.flip, self.side or stored
        if crop == "resized":
            return draw_resized(count, stored, (self.section.crop_scale, 1.0), flip, generator)
        # the margin of larger pixels has what a reflection can only make up
        below = (stored - side) // 2 if stored > side else side // 8
        above = stored - side - below if stored > side else below
        return draw_shifts(count, (-below, above) if crop == "pad" else (0, 0), flip, generator)

    def cut(self, pixels: Tensor, drawn: Tensor) -> Tensor:
        """The images [B, 3, S, S] of crops that were drawn, [K, B]."""
        side = self.side or pixels.shape[1]
        apply = resized if self.section.crop == "resized" else shifted
        return self._normalised(apply(pixels, drawn, side))

    def levels(self, count: float, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """`count` levels of 255 as a normalised image has them, then its black and its white.

        All float32 [3, 1, 1]; made once for a device, as that waits for it.
        """
        return _levels(count, tuple(self.mean), tuple(self.std), device)

    def _normalised(self, pixels: Tensor) -> Tensor:
        return normalise(pixels, self.mean, self.std)


def views_of(section: Distill, config: ModelConfig, stored: int) -> Views:
    """Views for a teacher of pixels that are stored with that side.

    Raises:
        UserError: what is stored is smaller than the teacher's input.
    """
    if stored < config.input_size:
        raise UserError(
            f"distill: the stored images have {stored} pixels a side, the teacher takes"
            f" {config.input_size}",
            "run `dvc repro embed`",
        )
    return Views(section, config.mean, config.std, config.input_size)


@lru_cache(maxsize=8)
def _levels(
    count: float, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    means, stds = (torch.tensor(values, dtype=torch.float64) for values in (mean, std))
    found = count / (255 * stds), -means / stds, (1 - means) / stds
    step, black, white = (one.float().view(3, 1, 1).to(device) for one in found)
    return step, black, white


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
