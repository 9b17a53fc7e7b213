"""Tones and colours of one picture, fitted to those of another."""

import torch
from torch.nn import functional

from kd3_pipeline.dedup.alignment import reduced
from kd3_pipeline.dedup.levels import SIDE, luma
from kd3_pipeline.dedup.parts import CLIPPED, Views

COLOURS = 24  # pixels a side at which colours are compared
STEPS = 5  # of fits by reweighted least squares


def in_tones_of(a: torch.Tensor, b: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """a in b's tones: a smooth curve, brighter or darker towards the edges, by robust fit."""
    weight = reduced(mask, COLOURS)
    small_a, small_b = (
        (reduced(side * mask, COLOURS) / weight.clamp(min=0.25)).flatten(1) for side in (a, b)
    )
    weight = (weight > 0.5).float().flatten(1)
    terms = _terms(small_a, COLOURS)
    ridge = torch.diag(torch.tensor([1e-5, 1e-5, 3e-3] + [1e-3] * 10))
    trust = weight
    for _ in range(STEPS):
        weighed = (terms * trust[:, :, None]).transpose(1, 2) / weight.shape[1]
        factors = torch.linalg.solve(weighed @ terms + ridge, weighed @ small_b[:, :, None])
        off = (terms @ factors)[:, :, 0] - small_b
        trust = weight / (1 + (off / 0.06) ** 2) * torch.where(small_b > CLIPPED, 0.1, 1.0)
    toned = (_terms(a.flatten(1), SIDE) @ factors)[:, :, 0]
    return toned.clamp(0, 1).reshape(a.shape)


def _terms(grey: torch.Tensor, size: int) -> torch.Tensor:
    """float32 [P, N, 13] of grey levels [P, N]: their square, and both over the picture."""
    middle = (torch.arange(size) + 0.5) * (2 / size) - 1
    y, x = (
        side.flatten().expand_as(grey) for side in torch.meshgrid(middle, middle, indexing="ij")
    )
    place = [x, y, x * x, y * y, x * y]
    return torch.stack(
        [torch.ones_like(grey), grey, grey * grey, *place, *(grey * one for one in place)], dim=2
    )


def colour_distance(views: Views, mask: torch.Tensor) -> torch.Tensor:
    """The most that colours of some place differ, float32 [P], 0 to about 1.

    What happens to colours of a copy is left out: less or more of them, up to none, and a cast. So
    one picture's chroma is fitted by the other's, by one factor and a shift in proportion to the
    brightness, both ways, and the better fit counts.
    """
    weight = reduced(mask, COLOURS)
    sides = []
    for pictures in (views.a, views.b):
        means = functional.avg_pool2d(pictures * mask[:, None], SIDE // COLOURS)
        red, _, blue = (means / weight.clamp(min=0.25)[:, None]).unbind(dim=1)
        level = luma(means / weight.clamp(min=0.25)[:, None])
        sides.append(torch.stack([level, blue - level, red - level], dim=1).flatten(2))
    flat = (weight > 0.5).float().flatten(1)
    a, b = sides
    return torch.minimum(_chroma_distance(a, b, flat), _chroma_distance(b, a, flat))


def _chroma_distance(a: torch.Tensor, b: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    level, blue, red = a.unbind(dim=1)
    none = torch.zeros_like(level)
    terms = torch.cat(
        [
            torch.stack([blue, level, none], dim=2),
            torch.stack([red, none, level], dim=2),
        ],
        dim=1,
    )
    wanted, trust = torch.cat([b[:, 1], b[:, 2]], dim=1), weight
    count = weight.shape[1]
    for _ in range(STEPS):
        weighed = (terms * torch.cat([trust, trust], dim=1)[:, :, None]).transpose(1, 2) / count
        square = weighed @ terms + 1e-4 * torch.eye(3)
        factors = torch.linalg.solve(square, weighed @ wanted[:, :, None])
        # a negative factor would make opposite colours one: there is none rather
        terms[:, :, 0] *= (factors[:, :1, 0] > 0).float()
        off = (terms @ factors)[:, :, 0] - wanted
        away = (off[:, :count] ** 2 + off[:, count:] ** 2).sqrt()
        trust = weight / (1 + (away / 0.03) ** 2)
    places = (-1, 1, COLOURS, COLOURS)
    total, seen = (
        functional.avg_pool2d(side.reshape(places), 3, 1)[:, 0] for side in (away * weight, weight)
    )
    return torch.where(seen > 0.5, total / seen.clamp(min=0.5), 0.0).amax(dim=(1, 2))
