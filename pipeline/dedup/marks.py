"""Marks: a text or a logo that lies over one of two photographs."""

import torch

from kd3_pipeline.dedup.levels import (
    dilated,
    levels_beyond,
    mean_over,
    squared_gradient,
    surroundings,
    window_means,
)
from kd3_pipeline.dedup.parts import Views, compare_parts
from kd3_pipeline.dedup.tones import STEPS, in_tones_of

OFF = 20 / 255  # levels by which a pixel of a mark is off, at least
OFF_CHANNEL = 40 / 255  # the same of a channel: colours are stored less exactly
NEAR = 0.07  # distance in RGB of a pixel of a mark from one of its colours
EXTREME = 8  # pixels of which a colour of a mark is the mean
OF_MARK = 0.85  # of the pixels that are off, which have the colours of a mark
SEEN_THROUGH = 0.8  # correlation of a translucent mark with what is beneath it
MARK_COST = 0.06  # similarity: a mark may cover a subject
LARGEST_MARK = 0.4  # of the picture
FOREIGN = 0.2  # of the pixels that are off, where the other picture has more of an edge


def beneath_marks(
    views: Views, a: torch.Tensor, b: torch.Tensor, may_be_marked: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The worst part of pairs without the marks on b, and in b's tones.

    Returns:
        float32 [P], -1 where what is off is no mark; and the mark, float32 [P, SIDE, SIDE].
    """
    likely = in_tones_of(a, b, views.mask)
    beneath = (views.a * (likely / a.clamp(min=0.02))[:, None].clamp(0.3, 3)).clamp(0, 1)
    away = [levels_beyond(likely, b) / OFF]
    away += [levels_beyond(beneath[:, one], views.b[:, one]) / OFF_CHANNEL for one in range(3)]
    off = (torch.stack(away).amax(dim=0) > 1).float()
    off = off * views.mask * may_be_marked[:, None, None]
    opaque, translucent = _explained(beneath, likely, views, b, off)
    mark = off * dilated(torch.maximum(opaque, translucent) * off, 1)
    rim = (dilated(off, 1) - 1 + dilated(1 - off, 1)).clamp(min=0) * views.mask
    own, foreign = (window_means(squared_gradient(side) * rim) for side in (views.b, views.a))
    weight = window_means(off)
    wrong = ((foreign > own) * weight).sum(dim=(1, 2)) > FOREIGN * weight.sum(dim=(1, 2))
    wrong |= mean_over(mark, views.mask) > LARGEST_MARK
    wrong |= (mean_over(mark, off) < OF_MARK) & (off.sum(dim=(1, 2)) > 0)
    parts, _ = compare_parts(likely, b, views.mask * (1 - dilated(mark, 3)))
    return torch.where(wrong, -1.0, parts.amin(dim=(1, 2)) - MARK_COST), mark


def _explained(
    beneath: torch.Tensor,
    likely: torch.Tensor,
    views: Views,
    grey: torch.Tensor,
    off: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which pixels of b may be a's under one of two colours, and which under a see-through one.

    Args:
        beneath: a's colours in b's tones, [P, 3, SIDE, SIDE].
        likely, grey: the same in grey, and b in grey: [P, SIDE, SIDE].
        off: which pixels are off.

    Returns:
        Two masks, float32 [P, SIDE, SIDE]: covered, and seen through.
    """
    change = torch.where(off > 0, grey - likely, 0.0).flatten(1)
    pixels = views.b.flatten(2)
    nearest = torch.full_like(grey, torch.inf)
    for sign in (1, -1):  # the colour that brightens most, and the one that darkens most
        order = (sign * change).topk(EXTREME, dim=1).indices
        colour = pixels.gather(2, order[:, None].expand(-1, 3, -1)).mean(dim=2)[:, :, None, None]
        way = colour - beneath
        share = ((views.b - beneath) * way).sum(dim=1) / (way**2).sum(dim=1).clamp(min=1e-3)
        mixed = beneath + share.clamp(0, 1)[:, None] * way  # edges of strokes are mixed
        nearest = torch.minimum(nearest, (views.b - mixed).norm(dim=1))
    covered = (nearest < NEAR).float()

    flat_likely, flat_grey, weight = (side.flatten(1) for side in (likely, grey, off))
    trust = weight
    for _ in range(STEPS):
        slope, away, _ = _line(flat_likely, flat_grey, trust)
        trust = weight / (1 + (away / 0.06) ** 2)
    # what is beneath shows through, in detail: two things of even brightness lie on a line, too
    detail_a, detail_b = ((side - surroundings(side, off)).flatten(1) for side in (likely, grey))
    _, _, correlation = _line(detail_a, detail_b, weight)
    seen = (slope > 0.3) & (slope < 0.95) & (correlation > SEEN_THROUGH)
    return covered, ((away < 0.07) & seen).float().reshape(off.shape)


def _line(
    x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weighted fit of a line to points [P, N]: its slope, how far off they are, correlation."""
    total = weight.sum(dim=1, keepdim=True).clamp(min=1e-3)
    x, y = (side - (side * weight).sum(dim=1, keepdim=True) / total for side in (x, y))
    shared, of_x, of_y = (
        (weight * product).sum(dim=1, keepdim=True) + 1e-3 for product in (x * y, x * x, y * y)
    )
    slope = shared / of_x
    return slope, (slope * x - y).abs(), shared / (of_x * of_y).sqrt()
