"""Map of the embedded images: near together what the teacher sees as alike."""

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from kd3_pipeline.embeddings import FEATURES, Embeddings
from kd3_pipeline.errors import UserError
from kd3_pipeline.report.sheet import Sheet, make_sheet
from kd3_pipeline.selections import read_selection
from kd3_pipeline.templates import clip, counted

FEWEST = 12  # images of which a map says anything
MOST_NAMED = 20  # classes with a key of their own
WIDTH, HEIGHT, RADIUS = 1200, 800, 4.5  # of the drawing and of a dot
OPENS = 50  # percent from the left or the top, past which a picture opens to the other side
NAME = 28  # letters of a class beside a picture
# Of middling lightness: each stands out from a white page and from a black one (3 to 1 or more).
LUMINANCE = 0.17
COLOURS = (
    *("#2f7fd0", "#d0661c", "#1f9460", "#9a5bd0", "#d84a55"),
    *("#1b93a0", "#8a8420", "#cf4fa0", "#a0703f", "#6f7f95"),
)


@dataclass(frozen=True)
class Point:
    """An image on the map: its place in percent of the drawing, its tile, and what is said of it.

    `sides` says to which side its picture opens, so that it stays on the map.
    """

    left: str
    top: str
    tile: tuple[int, int]
    told: str
    sides: str


@dataclass(frozen=True)
class Map:
    """The drawing, and what it shows; `keys` are (colour, class) pairs.

    `points` are in the order in which the keyboard goes through them: class by class, from left to
    right.
    """

    svg: Markup
    points: tuple[Point, ...]
    sheet: Sheet
    shown: int
    total: int
    classes: int
    keys: tuple[tuple[str, str], ...]


def project(features: np.ndarray, seed: int) -> np.ndarray | None:
    """Place rows of features (float32 [N, D]) on a plane: PCA, then t-SNE (van der Maaten, 2008).

    Returns:
        float32 [N, 2] between 0 and 1; None where all rows are alike, or fewer than 12.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    features = features - features.mean(axis=0)
    if len(features) < FEWEST or features.shape[1] < 2 or not features.any():
        return None
    count = min(50, *features.shape)
    # One thread: sums in another order would give another map for the same files and seed.
    with threadpool_limits(1):
        small = PCA(count, svd_solver="full", random_state=seed).fit_transform(features)
        small /= small[:, 0].std()
        tsne = TSNE(
            perplexity=min(30, (len(small) - 1) / 3),
            init=small[:, :2] * 1e-4,
            max_iter=500,
            random_state=seed,
        )
        points = tsne.fit_transform(small)
    points -= points.min(axis=0)
    return points / np.maximum(points.max(axis=0), 1e-9)


def colours(classes: int) -> list[str]:
    """A colour for each class; of many classes only those far apart are told apart."""
    if classes <= len(COLOURS):
        return list(COLOURS[:classes])
    return [_of_hue(index / classes) for index in range(classes)]


def _of_hue(hue: float) -> str:
    """The darkest colour of a hue that is light enough for a dark page."""
    for lightness in range(30, 90, 2):
        rgb = colorsys.hls_to_rgb(hue, lightness / 100, 0.6)
        linear = [((part + 0.055) / 1.055) ** 2.4 for part in rgb]  # sRGB, but near black
        if np.dot(linear, (0.2126, 0.7152, 0.0722)) > LUMINANCE:
            break
    return "#" + "".join(f"{round(255 * part):02x}" for part in rgb)


def placed(points: np.ndarray) -> np.ndarray:
    """Where points between 0 and 1 lie on the drawing, float [N, 2]."""
    return RADIUS + 1 + points * (np.array([WIDTH, HEIGHT]) - 2 * RADIUS - 2)


def draw(points: np.ndarray, seen: np.ndarray, filled: np.ndarray, dyes: list[str]) -> Markup:
    """Draw dots, and rings on top of them because they hide less: two paths a class.

    Args:
        points: float [N, 2] between 0 and 1.
        seen: int64 [N], the class of each point.
        filled: bool [N], whether it is a dot.
        dyes: a colour for each class.
    """
    places = placed(points)
    r = RADIUS - 0.75  # half of the line is outside
    shapes = (
        (filled, 2 * RADIUS, lambda x, y: f"M{x:.1f} {y:.1f}h0"),  # a round end of a line
        (
            ~filled,
            1.5,
            lambda x, y: f"M{x - r:.1f} {y:.1f}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0",
        ),
    )
    paths = Markup("").join(
        Markup('<path stroke="{}" stroke-width="{}" d="{}"/>').format(
            dyes[index], width, "".join(shape(x, y) for x, y in places[chosen].tolist())
        )
        for among, width, shape in shapes
        for index in np.unique(seen[among]).tolist()
        for chosen in [among & (seen == index)]
    )
    told = (
        f"Map of {len(points):,} images seen as {len(np.unique(seen)):,} classes; "
        f"{int(filled.sum()):,} of them, drawn as dots, were trained on at least once, "
        "the others, drawn as rings, never"
    )
    return Markup('<svg viewBox="0 0 {} {}" role="img"><title>{}</title>{}</svg>').format(
        WIDTH, HEIGHT, told, paths
    )


def read_map(
    embeddings: Embeddings,
    selection: Path,
    class_names: tuple[str, ...],
    asked: Mapping[int, str],
    most: int,
    seed: int,
) -> Map | None:
    """Draw a sample of the images that distillation used, each with its picture.

    Args:
        asked: label -> class that images were found for.
        most: images at most.

    Returns:
        The map; None where `most` or the images are too few for one.

    Raises:
        UserError: a file is missing or malformed, or the two are of different runs.
    """
    columns = ["row", "predicted", "times_kept", "confidence"]
    used = read_selection(selection, columns)
    row, predicted, times, sure = (used[name].to_numpy() for name in columns)
    features = embeddings.features
    if most < FEWEST:
        return None
    classes, rows = len(class_names), len(features)
    if not (0 <= predicted.min(initial=0) <= predicted.max(initial=0) < classes) or not (
        0 <= row.min(initial=0) <= row.max(initial=-1) < rows
    ):
        raise UserError(
            f"{selection} has images or classes that {embeddings.folder} and the networks do not",
            "the files are of different runs: run `dvc repro distill`",
        )
    drawn = np.sort(np.random.default_rng(seed).permutation(len(row))[:most])
    sample = features[row[drawn]].astype(np.float32)
    if not np.isfinite(sample).all():
        path = embeddings.folder / FEATURES
        raise UserError(f"{path} holds values that are not finite", "run `dvc repro embed`")
    if features.dtype != np.float16:  # the squares of such may be beyond float32
        sample /= np.abs(sample).max(initial=1e-30)
    points = project(sample, seed)
    if points is None:
        return None
    dyes = colours(len(class_names))
    seen, filled = predicted[drawn], times[drawn] > 0
    present = np.unique(seen).tolist()
    order = np.lexsort((points[:, 0], seen))
    sheet = make_sheet(embeddings.pixels, row[drawn][order])
    labels = embeddings.labels[row[drawn]].tolist()
    about = zip(labels, seen.tolist(), sure[drawn].tolist(), times[drawn].tolist(), strict=True)
    told = [
        f"{clip(asked.get(label, 'no class'), NAME)}; seen as {clip(class_names[at], NAME)},"
        f" {confidence:.0%}; "
        + (f"trained on in {counted(kept, 'epoch')}" if kept > 0 else "never trained on")
        for label, at, confidence, kept in about
    ]
    return Map(
        svg=draw(points, seen, filled, dyes),
        points=_points(points, order, sheet, told),
        sheet=sheet,
        shown=len(drawn),
        total=len(row),
        classes=len(present),
        keys=tuple((dyes[index], class_names[index]) for index in present)
        if len(present) <= MOST_NAMED
        else (),
    )


def _points(
    points: np.ndarray, order: np.ndarray, sheet: Sheet, told: Sequence[str]
) -> tuple[Point, ...]:
    """The images in the order of the keyboard; the sheet has its tiles in that order."""
    places = 100 * placed(points) / (WIDTH, HEIGHT)
    return tuple(
        Point(
            f"{places[at, 0]:.2f}",
            f"{places[at, 1]:.2f}",
            sheet.place(tile),
            told[at],
            " ".join(
                side for side, there in zip(("w", "n"), places[at] > OPENS, strict=True) if there
            ),
        )
        for tile, at in enumerate(order.tolist())
    )
