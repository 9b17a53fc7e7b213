"""Alignment of two pictures: the affine map under which they agree best, from a rough start.

The inverse compositional algorithm of Baker and Matthews, "Lucas-Kanade 20 years on: a unifying
framework" (IJCV 2004), with robust weights, on pictures whose brightness and contrast are made
even. It finds turns by some degrees, crops, stretches and slants that a correlation cannot name.
"""

import math
from functools import lru_cache

import torch
from torch.nn import functional

COARSE, FINE = 24, 48  # pixels a side at which pictures are aligned
WINDOWS = {COARSE: 9, FINE: 15}  # pixels of the window in which brightness is made even
LEAST_CONTRAST = 6.0  # grey levels: deviations that are well below it count for little
STEPS = 4  # of the descent, at each size
OUTLIER = 0.7  # deviations by which two pixels may differ before they count for less
LARGEST_STEP = 0.25  # of the half side, which a step may move a corner
WELL = 0.8  # agreement from which no other start is tried
TURNS = (-6.0, 6.0)  # degrees, tried where the rough start does not lead to a good agreement
LEAST_OVERLAP = 0.3  # of a picture's area, less of which is not compared
LARGEST_SCALE = 4.0  # of areas


def aligned(
    a: torch.Tensor, b: torch.Tensor, places: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The affine maps from a's pixels to b's at which P pairs of pictures agree best.

    Args:
        a, b: float32 [P, S, S], grey levels; S a multiple of 48.
        places: float32 [P, 2, 3], where to start: (x, y, 1) of a to (x, y) of b, both from -1 to
            1 from one edge to the other.

    Returns:
        float32 [P, 2, 3], and the normalised correlation where the pictures overlap (float32 [P],
        -1 where too little does).
    """
    coarse, fine = (_Pair.of(a, b, size) for size in (COARSE, FINE))
    moved = coarse.descended(places)
    better = coarse.agreement(moved) > coarse.agreement(places)
    best = fine.descended(torch.where(better[:, None, None], moved, places))
    agreement = fine.agreement(best)
    rows = torch.nonzero(agreement < WELL)[:, 0]
    if len(rows):
        coarse, fine = coarse.of_rows(rows), fine.of_rows(rows)
        for degrees in TURNS:
            turned = fine.descended(coarse.descended(_turned(places[rows], degrees)))
            found = fine.agreement(turned)
            better = found > agreement[rows]
            best[rows[better]], agreement[rows[better]] = turned[better], found[better]
    return best, agreement


def sampled(pictures: torch.Tensor, places: torch.Tensor, size: int) -> torch.Tensor:
    """float32 [P, C, size, size]: pictures [P, C, S, S] seen at the places of another's pixels."""
    grid = (places @ _pixels(size)).transpose(1, 2).reshape(len(places), size, size, 2)
    return functional.grid_sample(pictures, grid, padding_mode="border", align_corners=False)


def inside(places: torch.Tensor, size: int) -> torch.Tensor:
    """bool [P, size, size]: the pixels whose places lie in the other picture."""
    points = places @ _pixels(size)
    return (points.abs() <= 1).all(dim=1).reshape(len(places), size, size)


class _Pair:
    """P pairs of pictures at one size, evened, with the gradients that a descent needs."""

    def __init__(self, a: torch.Tensor, b: torch.Tensor, slopes: torch.Tensor) -> None:
        self.a, self.b, self.slopes, self.size = a, b, slopes, b.shape[-1]

    @classmethod
    def of(cls, a: torch.Tensor, b: torch.Tensor, size: int) -> "_Pair":
        a, b = (_evened(reduced(picture, size), WINDOWS[size]) for picture in (a, b))
        across = functional.pad(a[:, :, 2:] - a[:, :, :-2], (1, 1)) * (size / 4)
        down = functional.pad(a[:, 2:] - a[:, :-2], (0, 0, 1, 1)) * (size / 4)
        x, y, one = _pixels(size)
        slopes = [slope.flatten(1) * factor for slope in (across, down) for factor in (x, y, one)]
        return cls(a.flatten(1), b[:, None], torch.stack(slopes, dim=2))

    def of_rows(self, rows: torch.Tensor) -> "_Pair":
        return _Pair(self.a[rows], self.b[rows], self.slopes[rows])

    def descended(self, places: torch.Tensor) -> torch.Tensor:
        """The places after some steps of Gauss and Newton."""
        for _ in range(STEPS):
            off = self._seen(places) - self.a
            weight = inside(places, self.size).flatten(1) / (1 + (off / OUTLIER) ** 2)
            weighed = (self.slopes * weight[:, :, None]).transpose(1, 2)
            curvature = weighed @ self.slopes
            mean = curvature.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None]
            curvature = curvature + torch.eye(6) * (1e-3 * mean + 1e-3)
            step = torch.linalg.solve(curvature, weighed @ off[:, :, None])[:, :, 0]
            change = _square(step.clamp(-LARGEST_STEP, LARGEST_STEP).reshape(-1, 2, 3))
            change[:, :2, :2] += torch.eye(2)
            places = (_square(places) @ torch.linalg.inv(change))[:, :2]
        return places

    def agreement(self, places: torch.Tensor) -> torch.Tensor:
        """Normalised correlation of the pixels that both have, float32 [P]."""
        mask = inside(places, self.size).flatten(1).float()
        count = mask.sum(dim=1).clamp(min=1)
        a, b = (
            (values - ((values * mask).sum(dim=1) / count)[:, None]) * mask
            for values in (self.a, self._seen(places))
        )
        power = (a * a).sum(dim=1) * (b * b).sum(dim=1)
        found = (a * b).sum(dim=1) / power.clamp(min=1e-6).sqrt()
        scale = torch.linalg.det(places[:, :, :2]).abs()
        wrong = (count < LEAST_OVERLAP * self.size**2) | (scale > LARGEST_SCALE)
        return torch.where(wrong | (scale < 1 / LARGEST_SCALE), -1.0, found)

    def _seen(self, places: torch.Tensor) -> torch.Tensor:
        return sampled(self.b, places, self.size).flatten(1)


def reduced(pictures: torch.Tensor, size: int) -> torch.Tensor:
    """Pictures [P, S, S] at `size` pixels a side, by means; S is a multiple of it."""
    return functional.avg_pool2d(pictures[:, None], pictures.shape[-1] // size)[:, 0]


def _evened(pictures: torch.Tensor, window: int) -> torch.Tensor:
    """Pictures [P, H, W] less their local means, over their local deviations."""
    padded = functional.pad(pictures[:, None], (window // 2,) * 4, mode="replicate")
    mean, square = (_boxed(values, window) for values in (padded, padded * padded))
    deviation = (square - mean * mean).clamp(min=0) + LEAST_CONTRAST**2
    return (pictures[:, None] - mean)[:, 0] / deviation[:, 0].sqrt()


def _boxed(pictures: torch.Tensor, window: int) -> torch.Tensor:
    rows = functional.avg_pool2d(pictures, (window, 1), 1)
    return functional.avg_pool2d(rows, (1, window), 1)


def _turned(places: torch.Tensor, degrees: float) -> torch.Tensor:
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = torch.tensor([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    return places @ turn


def _square(places: torch.Tensor) -> torch.Tensor:
    """Maps [P, 2, 3] as matrices [P, 3, 3]."""
    return torch.cat([places, torch.tensor([0.0, 0.0, 1.0]).expand(len(places), 1, 3)], dim=1)


@lru_cache
def _pixels(size: int) -> torch.Tensor:
    """float32 [3, size²]: x, y and 1 of each pixel's middle, from -1 to 1."""
    middle = (torch.arange(size) + 0.5) * (2 / size) - 1
    y, x = torch.meshgrid(middle, middle, indexing="ij")
    return torch.stack([x.flatten(), y.flatten(), torch.ones(size * size)])
