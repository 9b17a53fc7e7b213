"""Second look at two pictures that may be one: aligned, then compared part by part.

A correlation of whole pictures hardly sees that a road sign has another number or a shirt another
print. Here the worst of some 120 overlapping parts decides, after a close alignment, so that what
differs in one place only is enough to tell two pictures apart. A text or a mark laid over one of
two photographs is told from another subject by its colours, of which it has two at most, and by
its edges, which the other one lacks there. On drawings and plain grounds a mark is a subject.
"""

from typing import NamedTuple

import numpy as np
import torch

from kd3_pipeline.dedup.alignment import aligned, inside, reduced, sampled
from kd3_pipeline.dedup.levels import (
    SIDE,
    deviation,
    dilated,
    extremes,
    levels_beyond,
    luma,
    mean_over,
    softened,
    surroundings,
    window_means,
)
from kd3_pipeline.dedup.marks import beneath_marks
from kd3_pipeline.dedup.parts import CONTRAST, LEAST_CONTRAST, SEEN, Views, compare_parts, unclipped
from kd3_pipeline.dedup.tones import colour_distance, in_tones_of

FINE = 192  # pixels of a closer look; SIDE of the first
AT_ONCE = 128  # pairs: 100 MB
AGREES = 0.6  # of the aligned pictures: unlike photographs reach 0.6
TEXTURED = 0.5  # of a picture's pixels: fewer have a plain ground, on which a mark is a subject
RANGE = 8 / 255  # of a pixel and its neighbours, from which it is no plain ground
MOSTLY = 0.85  # agreement of the median part, from which a mark over the picture is looked for
OFF_PLAIN = 14 / 255  # levels by which a pixel is off, at usual contrast, on a plain ground
OFF_COST = 1.25  # similarity that it costs when all pixels of a part are off
BLURRED = 1.4  # ratio of sharpness, from which one picture is a blurred copy if it is one
COMMONEST = 0.48  # share of the pixels; more have no photograph's grey levels
COLOUR_PLAIN, COLOUR = 3.5, 1.2  # similarity that a distance of colours of 1 costs


class Look(NamedTuple):
    """What a second look at P pairs of pictures tells."""

    similarity: np.ndarray  # float32 [P] in -1..1: how well the worst part agrees
    maps: np.ndarray  # float32 [P, 2, 3], from a's pixels to b's, both from -1 to 1
    plain: np.ndarray  # bool [P]: much of a picture is plain ground
    texture: np.ndarray  # float32 [P]: share of the pixels that are on none


def look(
    a: np.ndarray,
    trim_a: np.ndarray,
    b: np.ndarray,
    trim_b: np.ndarray,
    places: np.ndarray,
    small: np.ndarray,
) -> Look:
    """How well the worst part of P pairs of pictures agrees, at the best alignment.

    Copies reach 0.7 and mostly 0.9; where a part differs, 0.5 is rarely reached.

    Args:
        a, b: uint8 [P, SIDE, SIDE, 3], whole pictures squashed to a square, sRGB.
        trim_a, trim_b: float [P, 4], left, top, right and bottom of the parts without a border,
            as shares of width and height.
        places: float [P, 2, 3], where the alignment starts, as `verify.alignment` gives it.
        small: bool [P], that one of them was blown up: its details are compression's.
    """
    total = len(a)
    found = Look(
        np.empty(total, np.float32),
        np.empty((total, 2, 3), np.float32),
        np.empty(total, bool),
        np.empty(total, np.float32),
    )
    for start in range(0, total, AT_ONCE):
        block = slice(start, start + AT_ONCE)
        with torch.inference_mode():
            first, second = _pictures(a[block], b[block])
            maps, agreement = aligned(
                luma(first) * 255, luma(second) * 255, _from_middle(torch.tensor(places[block]))
            )
            views = _views(first, trim_a[block], second, trim_b[block], maps)
            similarity, plain, texture = _compared(views, torch.tensor(small[block]))
            well = agreement >= AGREES
            similarity = torch.where(well, similarity, agreement.clamp(max=0.5))
            for whole, part in zip(found, (similarity, maps, plain, texture), strict=True):
                whole[block] = part.numpy()
    return found


def look_closer(
    a: np.ndarray, trim_a: np.ndarray, b: np.ndarray, trim_b: np.ndarray, maps: np.ndarray
) -> np.ndarray:
    """How well the worst part agrees in detail, float32 [P]; 1 where one lacks it all.

    For what has a plain ground, where a text or a number is all that differs.

    Args:
        a, b: uint8 [P, FINE, FINE, 3].
        maps: as `look` found them.
    """
    found = np.empty(len(a), np.float32)
    for start in range(0, len(a), AT_ONCE // 4):
        block = slice(start, start + AT_ONCE // 4)
        with torch.inference_mode():
            pictures = _pictures(a[block], b[block])
            at = torch.tensor(maps[block])
            views = _views(pictures[0], trim_a[block], pictures[1], trim_b[block], at)
            one, other, blurred = _equally_sharp(views)
            parts, _ = compare_parts(one, other, views.mask)
            found[block] = torch.where(blurred, 1.0, parts.amin(dim=(1, 2))).numpy()
    return found


def _compared(views: Views, small: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Similarity, whether one of the pictures is on plain ground, and how little of it is not."""
    a, b, _ = _equally_sharp(views)
    texture = torch.minimum(_texture(a, views.mask), _texture(b, views.mask))
    textured = (texture >= TEXTURED) & (_commonest(views) < COMMONEST)
    parts, seen = compare_parts(a, b, views.mask)
    worst = parts.amin(dim=(1, 2))
    rows = torch.nonzero(small & textured)[:, 0]
    if len(rows):
        coarse = [reduced(side[rows], SIDE // 2) for side in (a, b, views.mask)]
        parts_of_small, _ = compare_parts(coarse[0], coarse[1], coarse[2].floor())
        worst[rows] = parts_of_small.amin(dim=(1, 2))
    middle = torch.where(seen, parts, torch.nan).flatten(1).nanmedian(dim=1).values
    mask = views.mask.clone()
    for swapped in (False, True):
        rows = torch.nonzero((worst < MOSTLY) & (middle >= MOSTLY))[:, 0]
        if len(rows):
            chosen, one, other = views.of_rows(rows), a[rows], b[rows]
            if swapped:
                chosen, one, other = chosen.swapped(), other, one
            beneath, mark = beneath_marks(chosen, one, other, textured[rows])
            better = torch.nonzero(beneath > worst[rows])[:, 0]
            worst[rows[better]] = beneath[better]
            mask[rows[better]] = chosen.mask[better] * (1 - dilated(mark[better], 3))
    cost = torch.where(textured, COLOUR, COLOUR_PLAIN)
    similarity = torch.minimum(worst, 1 - cost * colour_distance(views, mask))
    plain = torch.nonzero(~textured)[:, 0]
    if len(plain):
        off = _off(a[plain], b[plain], views.mask[plain])
        similarity[plain] = torch.minimum(similarity[plain], 1 - OFF_COST * off)
    return similarity, ~textured, texture


def _pictures(*sides: np.ndarray) -> list[torch.Tensor]:
    """float32 [P, 3, S, S], 0 to 1, from uint8 [P, S, S, 3]."""
    return [torch.tensor(side).permute(0, 3, 1, 2).float() / 255 for side in sides]


def _views(
    a: torch.Tensor, trim_a: np.ndarray, b: torch.Tensor, trim_b: np.ndarray, maps: torch.Tensor
) -> Views:
    size = a.shape[-1]
    borders = _within(torch.tensor(trim_b), size)[:, None]
    mask = (sampled(borders, maps, size)[:, 0] > 0.99) & inside(maps, size)
    mask = mask.float() * _within(torch.tensor(trim_a), size)
    mask[:, :2] = mask[:, -2:] = mask[:, :, :2] = mask[:, :, -2:] = 0
    return Views(a, sampled(b, maps, size), 1 - dilated(1 - mask, 2))


def _from_middle(places: torch.Tensor) -> torch.Tensor:
    """Places in shares of width and height as places from -1 to 1."""
    shift = 2 * places[:, :, 2] + places[:, :, :2].sum(dim=2) - 1
    return torch.cat([places[:, :, :2], shift[:, :, None]], dim=2).float()


def _within(boxes: torch.Tensor, size: int) -> torch.Tensor:
    """float32 [P, size, size]: 1 for pixels in boxes, float [P, 4] in shares."""
    middle = (torch.arange(size) + 0.5) / size
    across = (middle > boxes[:, :1]) & (middle < boxes[:, 2:3])
    down = (middle > boxes[:, 1:2]) & (middle < boxes[:, 3:])
    return (down[:, :, None] & across[:, None, :]).float()


def _equally_sharp(views: Views) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Luminance [P, S, S] of both, blurred where one is less sharp, and whether it is: bool [P]."""
    fine = [softened(luma(side), 0.1) for side in (views.a, views.b)]
    soft = [softened(side, 0.25) for side in fine]
    softer = [softened(softened(side, 0.25), 0.25) for side in soft]
    sharpness = [
        deviation(one - other, views.mask) / deviation(other - last, views.mask).clamp(min=4e-3)
        for one, other, last in zip(fine, soft, softer, strict=True)
    ]
    ratio = (sharpness[0] / sharpness[1].clamp(min=1e-3)).clamp(min=1e-3)
    blurred = torch.maximum(ratio, 1 / ratio) > BLURRED
    a, b = (
        torch.where(blurred[:, None, None], other, one)
        for one, other in zip(fine, soft, strict=True)
    )
    return a, b, blurred


def _texture(grey: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Share of the pixels that are not on plain ground, float32 [P]."""
    lowest, highest = extremes(grey)
    return mean_over((highest - lowest > RANGE).float(), mask)


def _commonest(views: Views) -> torch.Tensor:
    """Share of the pixels that have one of the three commonest of 32 grey levels, float32 [P].

    Photographs have less than a half, mostly a quarter; drawings, maps and labels more.
    """
    shares = []
    for side in (views.a, views.b):
        level = (luma(side[:, :, ::2, ::2]) * 32).long().clamp(0, 31).flatten(1)
        seen = views.mask[:, ::2, ::2].flatten(1)
        count = torch.zeros(len(level), 32).scatter_add_(1, level, seen)
        shares.append(count.topk(3, dim=1).values.sum(dim=1) / count.sum(dim=1).clamp(min=1))
    return torch.maximum(*shares)


def _off(a: torch.Tensor, b: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The largest share of a part's pixels that are off, a in b's tones, float32 [P]."""
    scale = CONTRAST / deviation(b, mask).clamp(min=LEAST_CONTRAST)
    likely = in_tones_of(a, b, mask)
    mask = unclipped(a, b, mask)
    likely = likely - surroundings(likely - b, mask)
    away = levels_beyond(likely, b) * scale.clamp(1, 2.5)[:, None, None]
    off, seen = window_means((away > OFF_PLAIN).float() * mask), window_means(mask)
    return torch.where(seen >= SEEN, off / seen.clamp(min=SEEN), 0.0).amax(dim=(1, 2))
