"""Galleries of the page: each chooses some images and says what is known of them."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kd3_pipeline.embeddings import MOMENT_WEIGHT
from kd3_pipeline.report.catalogue import Catalogue
from kd3_pipeline.report.crops import crops
from kd3_pipeline.report.flow import predicted
from kd3_pipeline.report.refined import refined_images
from kd3_pipeline.report.sampling import disagreements, extremes, nearest, spread, turns
from kd3_pipeline.report.thumbnails import encode_thumbnail
from kd3_pipeline.report.tiles import Gallery, Mistake, Pair, Tile
from kd3_pipeline.store import read_table
from kd3_pipeline.verdicts import unfit

SAME = "Every image was used equally often, so there is no more and less to show."
Builder = Callable[[Catalogue, np.random.Generator], Gallery]


def build_galleries(catalogue: Catalogue, seed: int) -> Iterator[Gallery]:
    """The galleries of the crawl in the order of the page, each with random numbers of its own."""
    for number, build in enumerate(GALLERIES):
        yield build(catalogue, np.random.default_rng([seed, number]))


def kept(catalogue: Catalogue, rng: np.random.Generator) -> Gallery:
    """Images that dedup kept."""
    images = catalogue.images
    left = np.flatnonzero(images.kept)
    chosen = spread(images.labels, left, catalogue.most, rng)
    return Gallery(
        "kept",
        "Crawled and kept",
        "Drawn at random, evenly over the classes asked for.",
        len(left),
        _tiles(catalogue, chosen),
    )


def near_duplicates(catalogue: Catalogue, rng: np.random.Generator) -> Gallery:
    """Pairs of which dedup dropped one image, the most distant first."""
    images = catalogue.images
    partner = _partners(catalogue, "duplicate_of")
    twins = np.flatnonzero(~images.kept & ~images.leaked & (partner >= 0))
    return Gallery(
        "near-duplicates",
        "Dropped near-duplicates",
        "Left the image that was dropped, right the one it repeats. "
        "The most distant pairs come first: they are the ones to doubt.",
        len(twins),
        _pairs(catalogue, twins, partner, rng),
        "pair",
    )


def look_alikes(catalogue: Catalogue, rng: np.random.Generator) -> Gallery:
    """Pairs of two classes that look alike and both stay, the most distant first."""
    partner = _partners(catalogue, "looks_like")
    alike = np.flatnonzero(partner >= 0)
    return Gallery(
        "look-alikes",
        "Alike, of two classes",
        "Both stay: they were found for different classes, and it is not sure that they are one "
        "picture. The most distant pairs come first.",
        len(alike),
        _pairs(catalogue, alike, partner, rng),
        "pair",
    )


def _partners(catalogue: Catalogue, column: str) -> np.ndarray:
    """Positions of the images that a column names, int64 [N], -1 for none."""
    table = catalogue.images.table
    if column not in table.column_names:
        return np.full(table.num_rows, -1, np.int64)
    partner = pc.index_in(table[column], value_set=table["id"].combine_chunks())
    return pc.fill_null(partner, -1).to_numpy().astype(np.int64)


def _pairs(
    catalogue: Catalogue, among: np.ndarray, partner: np.ndarray, rng: np.random.Generator
) -> tuple[Pair, ...]:
    """Some of the images beside their partners, the most distant first."""
    images, table = catalogue.images, catalogue.images.table
    distances = pc.fill_null(table["distance"], -1).to_numpy()
    chosen = rng.permutation(among)[: catalogue.most]
    chosen = chosen[np.argsort(-distances[chosen], kind="stable")]
    tile_of = catalogue.tiles(chosen, partner[chosen])

    def pair(at: int) -> Pair:
        other = int(partner[at])
        return Pair(
            tile_of(at),
            tile_of(other),
            int(distances[at]) if distances[at] >= 0 else None,
            table["similarity"][at].as_py(),
            outcome="one class" if images.labels[at] == images.labels[other] else "two classes",
            both_stay=bool(images.kept[at]),
        )

    return tuple(map(pair, chosen.tolist()))


def unfit_images(catalogue: Catalogue, rng: np.random.Generator) -> Gallery:
    """Images that dedup dropped for what they show: next to nothing, or an issue of dedup.drop."""
    reasons = catalogue.images.table["reason"]
    named = [reason for reason in reasons.unique().to_pylist() if unfit(reason or "")]
    gone = np.flatnonzero(pc.is_in(reasons, value_set=pa.array(named, pa.string())).to_numpy())
    chosen = rng.permutation(gone)[: catalogue.most]
    tile_of = catalogue.tiles(chosen)
    return Gallery(
        "unfit",
        "Dropped for what they show",
        "Images that show next to nothing, or have an issue that dedup.drop names. Drawn at "
        "random: look for good ones among them.",
        len(gone),
        tuple(tile_of(at, reasons[at].as_py().replace("_", " ")) for at in chosen.tolist()),
    )


def issues(catalogue: Catalogue, rng: np.random.Generator) -> Gallery:
    """Images that were kept though dedup found an issue, by its name."""
    images, table = catalogue.images, catalogue.images.table
    known = "issues" in table.column_names
    count = pc.list_value_length(table["issues"]) if known else pa.nulls(table.num_rows, pa.int32())
    found = np.flatnonzero(images.kept & (pc.fill_null(count, 0).to_numpy() > 0))
    chosen = rng.permutation(found)[: catalogue.most]
    tile_of = catalogue.tiles(chosen)
    return Gallery(
        "issues",
        "Kept with an issue",
        "Drawn at random. What is named in dedup.drop is dropped instead.",
        len(found),
        tuple(
            tile_of(at, ", ".join(table["issues"][at].as_py()).replace("_", " "))
            for at in chosen.tolist()
        ),
        empty="There are none." if known else "Nobody looked: the dedup file is of an earlier run.",
    )


def leaks(catalogue: Catalogue, rng: np.random.Generator) -> Gallery:
    """Images that show a test image beside it, the least alike first."""
    heading = "Test images in the crawl"
    if not catalogue.leaks.exists():
        return _unlooked("leaks", heading, "dedup.leaks is off")
    leaked = np.flatnonzero(catalogue.images.leaked)
    chosen = rng.permutation(leaked)[: catalogue.most]
    tile_of = catalogue.tiles(chosen)
    columns = ["id", "test_image", "similarity", "picture"]
    rows = read_table(catalogue.leaks, columns, "run `dvc repro dedup`").to_pylist()
    direct = {row["id"]: row["similarity"] for row in rows}
    pictures = {row["test_image"]: row["picture"] for row in rows}
    table = catalogue.images.table.select(["id", "test_image"]).take(chosen).to_pylist()
    pairs = [
        Pair(
            tile_of(at),
            None,
            None,
            direct.get(row["id"]),
            encode_thumbnail(pictures.get(row["test_image"])),
            row["test_image"],
            "shows it" if row["id"] in direct else "looks like one that does",
        )
        for at, row in zip(chosen.tolist(), table, strict=True)
    ]
    pairs.sort(key=lambda pair: (pair.similarity is None, pair.similarity or 0.0))
    return Gallery(
        "leaks",
        heading,
        "Left the web image, which was dropped, right the test image. The least alike come first.",
        len(leaked),
        tuple(pairs),
        "pair",
    )


def changes(catalogue: Catalogue, rng: np.random.Generator) -> Gallery:
    """Images that the selection took in and let go of in three epochs."""
    turned = turns(catalogue.images)
    share = math.ceil(catalogue.most / max(1, 2 * len(turned)))
    shown = [
        (rng.permutation(positions)[:share], f"{what} in epoch {epoch}")
        for epoch, taken, left in turned
        for positions, what in ((taken, "new"), (left, "dropped"))
    ]
    tile_of = catalogue.tiles(*(positions for positions, _ in shown))
    return Gallery(
        "changes",
        "Newly selected, newly dropped",
        "What the selection took in, and what it let go of, compared with the epoch before: "
        "early, half-way and late. Drawn at random.",
        sum(len(taken) + len(left) for _, taken, left in turned),
        tuple(tile_of(at, what) for positions, what in shown for at in positions.tolist()),
    )


def often(catalogue: Catalogue, rng: np.random.Generator) -> Gallery:
    """Images selected in the most epochs."""
    images = catalogue.images
    selected = np.flatnonzero(images.times > 0)
    count = 0 if images.uniform else catalogue.most
    return Gallery(
        "often",
        "Most often selected",
        SAME if images.uniform else "Kept by the selection in the most epochs; ties drawn by lot.",
        len(selected),
        _tiles(catalogue, extremes(images.times, selected, count, rng, -1)),
    )


def rarely(catalogue: Catalogue, rng: np.random.Generator) -> Gallery:
    """Images selected in the fewest epochs, or in none."""
    images = catalogue.images
    used, never = np.flatnonzero(images.times >= 0), int((images.times == 0).sum())
    count = 0 if images.uniform else catalogue.most
    note = f"{never:,} of {len(used):,} images were never selected."
    return Gallery(
        "rarely",
        "Rarely or never selected",
        SAME if images.uniform else note,
        len(used),
        _tiles(catalogue, extremes(images.times, used, count, rng, 1)),
    )


def seen_otherwise(catalogue: Catalogue, rng: np.random.Generator) -> Gallery:
    """Images that the student sees as another class than they were found for."""
    images = catalogue.images
    apart = disagreements(images, catalogue.asked, catalogue.class_names)
    half = catalogue.most // 2
    surest = extremes(images.confidence, apart, catalogue.most - half, rng, -1)
    others = np.setdiff1d(apart, surest)
    least = extremes(images.confidence, others, half, rng, 1)
    tile_of = catalogue.tiles(surest, least)
    return Gallery(
        "disagreements",
        "Seen as another class than asked for",
        "By how sure the student is of it: wrong search results, or mistakes of the student.",
        len(apart),
        (
            *(tile_of(at, "surest") for at in surest.tolist()),
            *(tile_of(at, "least sure") for at in least.tolist()),
        ),
    )


def off_topic(catalogue: Catalogue, rng: np.random.Generator) -> Gallery:
    """Images that are least like any class in the teacher's eyes."""
    key, heading = "off-topic", "Off topic"
    found = catalogue.embedded("off_topic")
    if found is None:
        return _unlooked(key, heading, "embed.off_topic is off")
    positions, scores = found
    chosen = extremes(scores, np.arange(len(scores)), catalogue.most, rng, -1)
    tile_of = catalogue.tiles(positions[chosen])
    return Gallery(
        key,
        heading,
        "What the teacher finds least like any of its classes, the worst first. The score orders "
        "the images of one crawl from 0 to 1, and is no probability: look whether it is right.",
        len(scores),
        tuple(
            tile_of(int(positions[at]), remark=f"off topic {scores[at]:.3f}")
            for at in chosen.tolist()
        ),
    )


def redundant(catalogue: Catalogue, rng: np.random.Generator) -> Gallery:
    """Images that say what others say already, each beside the one that it is most like."""
    key, heading = "redundant", "Redundant"
    found = catalogue.embedded("redundant")
    if found is None:
        return _unlooked(key, heading, "embed.redundant is 0")
    positions, marks = found
    seen = predicted(catalogue.embeddings)
    marked = np.flatnonzero(marks)
    chosen = spread(seen, marked, catalogue.most, rng)
    partner, cosine = nearest(catalogue.embeddings.features, seen, chosen)
    order = np.argsort(-cosine, kind="stable")
    tile_of = catalogue.tiles(positions[chosen], positions[partner])
    return Gallery(
        key,
        heading,
        "Left an image that embed.redundant marks, right the one that it is most like in the "
        "teacher’s eyes. Both stay; distill.skip_redundant does not train on the left one. The "
        "most alike come first.",
        len(marked),
        tuple(
            Pair(
                tile_of(int(positions[chosen[at]])),
                tile_of(int(positions[partner[at]])),
                None,
                None,
                both_stay=True,
                measure=f"cosine {cosine[at]:.3f}",
            )
            for at in order.tolist()
        ),
        "pair",
    )


def moment_weights(catalogue: Catalogue, rng: np.random.Generator) -> Gallery:
    """Images that moment weights raise most, and those that they lower most."""
    key, heading = "moment-weights", "Raised and lowered by moment weights"
    found = catalogue.embedded(MOMENT_WEIGHT)
    if found is None:
        return _unlooked(key, heading, "embed.moments is off")
    positions, weights = found
    everything, half = np.arange(len(weights)), catalogue.most // 2
    raised = extremes(weights, everything, catalogue.most - half, rng, -1)
    lowered = extremes(weights, np.setdiff1d(everything, raised), half, rng, 1)
    tile_of = catalogue.tiles(positions[raised], positions[lowered])

    def tile(at: int, what: str) -> Tile:
        return tile_of(int(positions[at]), what, f"weight {weights[at]:.3g}")

    return Gallery(
        key,
        heading,
        "How often an image is drawn (distill.sampling), beside 1 for the mean one, so that all "
        "together have the moments that the teacher’s batch norms remember. It is the look that "
        "they see, more than the class: look whether the raised ones look like your data.",
        len(weights),
        (
            *(tile(at, "raised") for at in raised.tolist()),
            *(tile(at, "lowered") for at in lowered.tolist()),
        ),
    )


GALLERIES: tuple[Builder, ...] = (
    kept,
    near_duplicates,
    look_alikes,
    unfit_images,
    issues,
    leaks,
    off_topic,
    redundant,
    moment_weights,
    crops,
    changes,
    often,
    rarely,
    seen_otherwise,
    refined_images,
)


def read_mistakes(path: Path, most: int) -> Gallery | None:
    """The test images that the student gets wrong, surest first; None where the file is missing."""
    if not path.exists():
        return None
    names = ["actual", "student", "teacher", "student_confidence", "teacher_confidence"]
    rows = read_table(path, ["image", *names], "run `dvc repro evaluate`")
    items = tuple(
        Mistake(
            encode_thumbnail((row.pop("image") or {}).get("bytes")),
            **row,
            outcome="teacher right" if row["teacher"] == row["actual"] else "teacher wrong too",
        )
        for row in rows.slice(0, most).to_pylist()
    )
    note = "The pixels are those that the network saw. The surest mistakes come first."
    return Gallery("mistakes", "Mistakes", note, rows.num_rows, items, "mistake")


def _unlooked(key: str, heading: str, why: str) -> Gallery:
    """A gallery of what no stage has looked for."""
    return Gallery(key, heading, "", 0, empty=f"Nobody looked: {why}.")


def _tiles(catalogue: Catalogue, chosen: np.ndarray) -> tuple[Tile, ...]:
    return tuple(map(catalogue.tiles(chosen), chosen.tolist()))
