"""Second look at two pictures that may be one: aligned, then compared part by part.

A correlation of whole pictures hardly sees that a road sign has another number or a shirt another
print. Here the worst of some 120 overlapping parts decides, after a close alignment, so that what
differs in one place only is enough to tell two pictures apart. A text or a mark laid over one of
two photographs is told from another subject by its colours, of which it has two at most, and by
its edges, which the other one lacks there. On drawings and plain grounds a mark is a subject.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

from kd3_pipeline.dedup.alignment import aligned, inside, reduced, sampled

SIDE = 96  # pixels of a close-up
FINE = 192  # pixels of a closer one
PART = 8  # pixels of a part, of which a window of 2 x 2 is compared at a time
COLOURS = 24  # pixels a side at which colours are compared
AT_ONCE = 128  # pairs: 100 MB
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in Pillow
CONTRAST = 0.22  # standard deviation to which both pictures are brought
LEAST_CONTRAST = 0.08  # of a picture that is brought to it
FLAT = 0.05  # standard deviation, after that, up to which a part shows nothing
SEEN = 0.5  # of a window, that both pictures must have
CLIPPED, BRIGHT = 0.97, 0.55  # levels of a pixel that was too bright for one picture only
MOST_CLIPPED = 0.3  # of a picture: where it is more, its ground is white
LEAST_SHOWN = 4  # windows that show something, fewer of which tell nothing
AGREES = 0.6  # of the aligned pictures: unlike photographs reach 0.6
TEXTURED = 0.5  # of a picture's pixels: fewer have a plain ground, on which a mark is a subject
RANGE = 8 / 255  # of a pixel and its neighbours, from which it is no plain ground
MOSTLY = 0.85  # agreement of the median part, from which a mark over the picture is looked for
OFF = 20 / 255  # levels by which a pixel of a mark is off, at least
OFF_CHANNEL = 40 / 255  # the same of a channel: colours are stored less exactly
OFF_PLAIN = 14 / 255  # levels by which a pixel is off, at usual contrast, on a plain ground
OFF_COST = 1.25  # similarity that it costs when all pixels of a part are off
BLURRED = 1.4  # ratio of sharpness, from which one picture is a blurred copy if it is one
NEAR = 0.07  # distance in RGB of a pixel of a mark from one of its colours
EXTREME = 8  # pixels of which a colour of a mark is the mean
OF_MARK = 0.85  # of the pixels that are off, which have the colours of a mark
COMMONEST = 0.48  # share of the pixels; more have no photograph's grey levels
SEEN_THROUGH = 0.8  # correlation of a translucent mark with what is beneath it
MARK_COST = 0.06  # similarity: a mark may cover a subject
LARGEST_MARK = 0.4  # of the picture
FOREIGN = 0.2  # of the pixels that are off, where the other picture has more of an edge
COLOUR_PLAIN, COLOUR = 3.5, 1.2  # similarity that a distance of colours of 1 costs
STEPS = 5  # of fits by reweighted least squares


@dataclass(frozen=True)
class _Views:
    """P pairs of pictures, b seen at the places of a's pixels."""

    a: torch.Tensor  # float32 [P, 3, SIDE, SIDE], 0 to 1
    b: torch.Tensor
    mask: torch.Tensor  # float32 [P, SIDE, SIDE], 1 where both are seen

    def of_rows(self, rows: torch.Tensor) -> "_Views":
        return _Views(self.a[rows], self.b[rows], self.mask[rows])

    def swapped(self) -> "_Views":
        return _Views(self.b, self.a, self.mask)


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
                _luma(first) * 255, _luma(second) * 255, _from_middle(torch.tensor(places[block]))
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
            parts, _ = _parts(one, other, views.mask)
            found[block] = torch.where(blurred, 1.0, parts.amin(dim=(1, 2))).numpy()
    return found


def _compared(
    views: _Views, small: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Similarity, whether one of the pictures is on plain ground, and how little of it is not."""
    a, b, _ = _equally_sharp(views)
    texture = torch.minimum(_texture(a, views.mask), _texture(b, views.mask))
    textured = (texture >= TEXTURED) & (_commonest(views) < COMMONEST)
    parts, seen = _parts(a, b, views.mask)
    worst = parts.amin(dim=(1, 2))
    rows = torch.nonzero(small & textured)[:, 0]
    if len(rows):
        coarse = [reduced(side[rows], SIDE // 2) for side in (a, b, views.mask)]
        parts_of_small, _ = _parts(coarse[0], coarse[1], coarse[2].floor())
        worst[rows] = parts_of_small.amin(dim=(1, 2))
    middle = torch.where(seen, parts, torch.nan).flatten(1).nanmedian(dim=1).values
    mask = views.mask.clone()
    for swapped in (False, True):
        rows = torch.nonzero((worst < MOSTLY) & (middle >= MOSTLY))[:, 0]
        if len(rows):
            chosen, one, other = views.of_rows(rows), a[rows], b[rows]
            if swapped:
                chosen, one, other = chosen.swapped(), other, one
            beneath, mark = _beneath_marks(chosen, one, other, textured[rows])
            better = torch.nonzero(beneath > worst[rows])[:, 0]
            worst[rows[better]] = beneath[better]
            mask[rows[better]] = chosen.mask[better] * (1 - _grown(mark[better], 3))
    cost = torch.where(textured, COLOUR, COLOUR_PLAIN)
    similarity = torch.minimum(worst, 1 - cost * _colour_distance(views, mask))
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
) -> _Views:
    size = a.shape[-1]
    borders = _within(torch.tensor(trim_b), size)[:, None]
    mask = (sampled(borders, maps, size)[:, 0] > 0.99) & inside(maps, size)
    mask = mask.float() * _within(torch.tensor(trim_a), size)
    mask[:, :2] = mask[:, -2:] = mask[:, :, :2] = mask[:, :, -2:] = 0
    return _Views(a, sampled(b, maps, size), 1 - _grown(1 - mask, 2))


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


def _luma(pictures: torch.Tensor) -> torch.Tensor:
    red, green, blue = pictures.unbind(dim=1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def _equally_sharp(views: _Views) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Luminance [P, S, S] of both, blurred where one is less sharp, and whether it is: bool [P]."""
    fine = [_blurred(_luma(side), 0.1) for side in (views.a, views.b)]
    soft = [_blurred(side, 0.25) for side in fine]
    softer = [_blurred(_blurred(side, 0.25), 0.25) for side in soft]
    sharpness = [
        _deviation(one - other, views.mask) / _deviation(other - last, views.mask).clamp(min=4e-3)
        for one, other, last in zip(fine, soft, softer, strict=True)
    ]
    ratio = (sharpness[0] / sharpness[1].clamp(min=1e-3)).clamp(min=1e-3)
    blurred = torch.maximum(ratio, 1 / ratio) > BLURRED
    a, b = (
        torch.where(blurred[:, None, None], other, one)
        for one, other in zip(fine, soft, strict=True)
    )
    return a, b, blurred


def _blurred(grey: torch.Tensor, share: float) -> torch.Tensor:
    """Pictures [P, S, S], of each pixel of which `share` comes from either neighbour."""
    for axis in (1, 2):
        first, last = (grey.narrow(axis, place, 1) for place in (0, grey.shape[axis] - 1))
        padded = torch.cat([first, grey, last], dim=axis)
        size = grey.shape[axis]
        sides = padded.narrow(axis, 0, size) + padded.narrow(axis, 2, size)
        grey = (1 - 2 * share) * grey + share * sides
    return grey


def _texture(grey: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Share of the pixels that are not on plain ground, float32 [P]."""
    lowest, highest = _extremes(grey)
    return _share((highest - lowest > RANGE).float(), mask)


def _commonest(views: _Views) -> torch.Tensor:
    """Share of the pixels that have one of the three commonest of 32 grey levels, float32 [P].

    Photographs have less than a half, mostly a quarter; drawings, maps and labels more.
    """
    shares = []
    for side in (views.a, views.b):
        level = (_luma(side[:, :, ::2, ::2]) * 32).long().clamp(0, 31).flatten(1)
        seen = views.mask[:, ::2, ::2].flatten(1)
        count = torch.zeros(len(level), 32).scatter_add_(1, level, seen)
        shares.append(count.topk(3, dim=1).values.sum(dim=1) / count.sum(dim=1).clamp(min=1))
    return torch.maximum(*shares)


def _parts(
    a: torch.Tensor, b: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Correlation of each window, at the best shift by up to a pixel; 1 where both are flat.

    0 everywhere where hardly any window shows something.


    Args:
        a, b: float32 [P, SIDE, SIDE], luminance.

    Returns:
        float32 [P, 11, 11], and which windows show something (bool).
    """
    mask = _unclipped(a, b, mask)
    a, b = (_evened(grey, mask) for grey in (a, b))
    seen = _pooled(mask)
    count = seen.clamp(min=0.05)
    mean_b, of_b = _pooled(b * mask) / count, b * mask
    variance_b = (_pooled(b * of_b) / count - mean_b**2).clamp(min=0)
    best, largest = torch.full_like(seen, -1), variance_b
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            moved = torch.roll(a, (down, right), (1, 2))
            weighed = moved * mask
            mean_a = _pooled(weighed) / count
            variance_a = (_pooled(moved * weighed) / count - mean_a**2).clamp(min=0)
            if down == right == 0:
                largest = torch.maximum(largest, variance_a)
            shared = _pooled(moved * of_b) / count - mean_a * mean_b
            power = (variance_a + 1e-6) * (variance_b + 1e-6)
            best = torch.maximum(best, shared / power.sqrt())
    shown = (seen >= SEEN) & (largest > FLAT**2)
    tells = shown.sum(dim=(1, 2)) >= LEAST_SHOWN
    return torch.where(shown, best, 1.0) * tells[:, None, None], shown


def _unclipped(a: torch.Tensor, b: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mask without pixels that may have been too bright for one picture, if they are few."""
    clipped = torch.zeros_like(mask, dtype=torch.bool)
    for one, other in ((a, b), (b, a)):
        clipped |= (one > CLIPPED) & (other > BRIGHT) & (other < CLIPPED)
    few = _share(clipped.float(), mask) <= MOST_CLIPPED
    return mask * ~(clipped & few[:, None, None])


def _pooled(values: torch.Tensor) -> torch.Tensor:
    """Means of the windows, [P, 11, 11] of pictures of SIDE pixels."""
    parts = functional.avg_pool2d(values[:, None], PART)
    return functional.avg_pool2d(parts, 2, 1)[:, 0]


def _evened(grey: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """At the usual contrast, less the mean of the surroundings: vignettes are no subject."""
    contrast = CONTRAST / _deviation(grey, mask).clamp(min=LEAST_CONTRAST)
    grey = grey * contrast[:, None, None]
    return grey - _surroundings(grey, mask)


def _surroundings(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of the 20 x 20 pixels about each pixel, of those in the mask."""
    count, total = (
        functional.avg_pool2d(
            functional.pad(reduced(side, side.shape[-1] // 4), (2,) * 4)[:, None], 5, 1
        )
        for side in (mask, values * mask)
    )
    mean = total / count.clamp(min=0.02)
    return functional.interpolate(mean, scale_factor=4, mode="bilinear")[:, 0]


def _deviation(grey: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    count = mask.sum(dim=(1, 2)).clamp(min=1)
    mean = (grey * mask).sum(dim=(1, 2)) / count
    return (((grey - mean[:, None, None]) ** 2 * mask).sum(dim=(1, 2)) / count).sqrt()


def _beneath_marks(
    views: _Views, a: torch.Tensor, b: torch.Tensor, may_be_marked: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The worst part of pairs without the marks on b, and in b's tones.

    Returns:
        float32 [P], -1 where what is off is no mark; and the mark, float32 [P, SIDE, SIDE].
    """
    likely = _toned(a, b, views.mask)
    beneath = (views.a * (likely / a.clamp(min=0.02))[:, None].clamp(0.3, 3)).clamp(0, 1)
    away = [_away(likely, b) / OFF]
    away += [_away(beneath[:, one], views.b[:, one]) / OFF_CHANNEL for one in range(3)]
    off = (torch.stack(away).amax(dim=0) > 1).float()
    off = off * views.mask * may_be_marked[:, None, None]
    opaque, translucent = _explained(beneath, likely, views, b, off)
    mark = off * _grown(torch.maximum(opaque, translucent) * off, 1)
    rim = (_grown(off, 1) - 1 + _grown(1 - off, 1)).clamp(min=0) * views.mask
    own, foreign = (_pooled(_edges(side) * rim) for side in (views.b, views.a))
    weight = _pooled(off)
    wrong = ((foreign > own) * weight).sum(dim=(1, 2)) > FOREIGN * weight.sum(dim=(1, 2))
    wrong |= _share(mark, views.mask) > LARGEST_MARK
    wrong |= (_share(mark, off) < OF_MARK) & (off.sum(dim=(1, 2)) > 0)
    parts, _ = _parts(likely, b, views.mask * (1 - _grown(mark, 3)))
    return torch.where(wrong, -1.0, parts.amin(dim=(1, 2)) - MARK_COST), mark


def _edges(pictures: torch.Tensor) -> torch.Tensor:
    """Squared length of the gradient of pictures in colour, [P, S, S]."""
    across = functional.pad(pictures[:, :, :, 2:] - pictures[:, :, :, :-2], (1, 1))
    down = functional.pad(pictures[:, :, 2:] - pictures[:, :, :-2], (0, 0, 1, 1))
    return (across**2 + down**2).sum(dim=1)


def _off(a: torch.Tensor, b: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The largest share of a part's pixels that are off, a in b's tones, float32 [P]."""
    scale = CONTRAST / _deviation(b, mask).clamp(min=LEAST_CONTRAST)
    likely = _toned(a, b, mask)
    mask = _unclipped(a, b, mask)
    likely = likely - _surroundings(likely - b, mask)
    away = _away(likely, b) * scale.clamp(1, 2.5)[:, None, None]
    off, seen = _pooled((away > OFF_PLAIN).float() * mask), _pooled(mask)
    return torch.where(seen >= SEEN, off / seen.clamp(min=SEEN), 0.0).amax(dim=(1, 2))


def _away(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Levels by which pixels of one picture are beyond all near ones of the other."""
    (low_a, high_a), (low_b, high_b) = _extremes(a), _extremes(b)
    over, under = torch.maximum(b - high_a, a - high_b), torch.maximum(low_a - b, low_b - a)
    return torch.maximum(over, under).clamp(min=0)


def _share(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of values [P, S, S] over a mask, float32 [P]."""
    return (values * mask).sum(dim=(1, 2)) / mask.sum(dim=(1, 2)).clamp(min=1e-3)


def _toned(a: torch.Tensor, b: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
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


def _explained(
    beneath: torch.Tensor,
    likely: torch.Tensor,
    views: _Views,
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
    detail_a, detail_b = ((side - _surroundings(side, off)).flatten(1) for side in (likely, grey))
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


def _extremes(grey: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The lowest and the highest level of each pixel and its neighbours."""
    return -_grown(-grey, 1), _grown(grey, 1)


def _grown(values: torch.Tensor, pixels: int) -> torch.Tensor:
    """The largest of the values [P, H, W] within some pixels, in a square: row by row, which is
    several times as fast as max_pool2d."""
    for axis in (1, 2):
        size = values.shape[axis]
        grown = values.clone()
        for step in range(1, pixels + 1):
            near, far = grown.narrow(axis, 0, size - step), grown.narrow(axis, step, size - step)
            torch.maximum(near, values.narrow(axis, step, size - step), out=near)
            torch.maximum(far, values.narrow(axis, 0, size - step), out=far)
        values = grown
    return values


def _colour_distance(views: _Views, mask: torch.Tensor) -> torch.Tensor:
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
        level = _luma(means / weight.clamp(min=0.25)[:, None])
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
