"""Parts of two aligned pictures, and how well each agrees."""

from dataclasses import dataclass

import torch

from kd3_pipeline.dedup.levels import deviation, mean_over, surroundings, window_means

CONTRAST = 0.22  # standard deviation to which both pictures are brought
LEAST_CONTRAST = 0.08  # of a picture that is brought to it
FLAT = 0.05  # standard deviation, after that, up to which a part shows nothing
SEEN = 0.5  # of a window, that both pictures must have
CLIPPED, BRIGHT = 0.97, 0.55  # levels of a pixel that was too bright for one picture only
MOST_CLIPPED = 0.3  # of a picture: where it is more, its ground is white
LEAST_SHOWN = 4  # windows that show something, fewer of which tell nothing


@dataclass(frozen=True)
class Views:
    """P pairs of pictures, b seen at the places of a's pixels."""

    a: torch.Tensor  # float32 [P, 3, SIDE, SIDE], 0 to 1
    b: torch.Tensor
    mask: torch.Tensor  # float32 [P, SIDE, SIDE], 1 where both are seen

    def of_rows(self, rows: torch.Tensor) -> "Views":
        return Views(self.a[rows], self.b[rows], self.mask[rows])

    def swapped(self) -> "Views":
        return Views(self.b, self.a, self.mask)


def compare_parts(
    a: torch.Tensor, b: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Correlation of each window, at the best shift by up to a pixel; 1 where both are flat.

    0 everywhere where hardly any window shows something.

    Args:
        a, b: float32 [P, SIDE, SIDE], luminance.

    Returns:
        float32 [P, 11, 11], and which windows show something (bool).
    """
    mask = unclipped(a, b, mask)
    a, b = (evened(grey, mask) for grey in (a, b))
    seen = window_means(mask)
    count = seen.clamp(min=0.05)
    mean_b, of_b = window_means(b * mask) / count, b * mask
    variance_b = (window_means(b * of_b) / count - mean_b**2).clamp(min=0)
    best, largest = torch.full_like(seen, -1), variance_b
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            moved = torch.roll(a, (down, right), (1, 2))
            weighed = moved * mask
            mean_a = window_means(weighed) / count
            variance_a = (window_means(moved * weighed) / count - mean_a**2).clamp(min=0)
            if down == right == 0:
                largest = torch.maximum(largest, variance_a)
            shared = window_means(moved * of_b) / count - mean_a * mean_b
            power = (variance_a + 1e-6) * (variance_b + 1e-6)
            best = torch.maximum(best, shared / power.sqrt())
    shown = (seen >= SEEN) & (largest > FLAT**2)
    tells = shown.sum(dim=(1, 2)) >= LEAST_SHOWN
    return torch.where(shown, best, 1.0) * tells[:, None, None], shown


def unclipped(a: torch.Tensor, b: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mask without pixels that may have been too bright for one picture, if they are few."""
    clipped = torch.zeros_like(mask, dtype=torch.bool)
    for one, other in ((a, b), (b, a)):
        clipped |= (one > CLIPPED) & (other > BRIGHT) & (other < CLIPPED)
    few = mean_over(clipped.float(), mask) <= MOST_CLIPPED
    return mask * ~(clipped & few[:, None, None])


def evened(grey: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """At the usual contrast, less the mean of the surroundings: vignettes are no subject."""
    contrast = CONTRAST / deviation(grey, mask).clamp(min=LEAST_CONTRAST)
    grey = grey * contrast[:, None, None]
    return grey - surroundings(grey, mask)
