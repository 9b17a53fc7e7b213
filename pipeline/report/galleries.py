"""The images that the page shows, with what is known of each."""

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipeline.report.inputs import read_columns
from pipeline.report.selection import disagreements, extremes, spread, turns
from pipeline.report.stored import Images
from pipeline.report.thumbnails import encode_thumbnail, read_thumbnails
from pipeline.report.tiles import Gallery, Mistake, Pair, Tile, web_link

AGREES, DIFFERS, UNUSED = "seen as asked", "seen as another class", "not used"
SAME = "Every image was used equally often, so there is no more and less to show."


def _manifest_rows(manifest: Path, ids: list[str]) -> dict[str, dict]:
    wanted = pa.array(ids, pa.string())
    columns = ["id", "title", "page_url", "url", "outcome"]
    rows = read_columns(manifest, "crawl", columns, ds.field("id").isin(wanted)).to_pylist()
    found: dict[str, dict] = {}
    for row in rows:
        # Several addresses may lead to the same bytes; the one that was stored speaks for them.
        if row["id"] not in found or row["outcome"] == "stored":
            found[row["id"]] = row
    return found


def build_galleries(
    crawl: Path,
    leaks: Path,
    images: Images,
    names: dict[int, str],
    class_names: tuple[str, ...],
    *,
    thumbnails: int,
    seed: int,
) -> Iterator[Gallery]:
    """Choose, read and describe the images of the seven galleries of the crawl.

    Args:
        leaks: Parquet file of the test images that were found; it may be missing.
        names: label -> class asked for.
        class_names: index -> class the networks know.
        thumbnails: images (or pairs) a gallery.
    """
    table = images.table
    rng = [np.random.default_rng([seed, gallery]) for gallery in range(7)]
    ids = table.column("id")

    def tiles(positions: Iterable[np.ndarray]) -> Callable[..., Tile]:
        wanted = np.unique(np.concatenate([np.zeros(0, np.int64), *positions]))
        rows = table.select(["id", "shard", "row"]).take(wanted).to_pylist()
        pictures = read_thumbnails(crawl, {row["id"]: (row["shard"], row["row"]) for row in rows})
        origins = _manifest_rows(crawl / "manifest.parquet", [row["id"] for row in rows])

        def tile(position: int, outcome: str | None = None) -> Tile:
            image_id = ids[position].as_py()
            origin = origins.get(image_id, {})
            link, host = web_link(origin.get("page_url"), origin.get("url"))
            label, predicted = int(images.labels[position]), int(images.predicted[position])
            seen = class_names[predicted] if 0 <= predicted < len(class_names) else ""
            asked = names.get(label, f"class {label}")
            usual = UNUSED if not seen else AGREES if seen == asked else DIFFERS
            return Tile(
                thumbnail=pictures[image_id],
                title=origin.get("title") or "",
                link=link,
                host=host,
                asked=asked,
                predicted=seen,
                times=int(images.times[position]),
                confidence=float(images.confidence[position]) if seen else None,
                outcome=usual if outcome is None else outcome,
            )

        return tile

    def gallery(key: str, heading: str, note: str, total: int, chosen: np.ndarray) -> Gallery:
        tile = tiles([chosen])
        return Gallery(key, heading, note, total, tuple(map(tile, chosen.tolist())))

    kept = np.flatnonzero(images.kept)
    yield gallery(
        "kept",
        "Crawled and kept",
        "Drawn at random, evenly over the classes asked for.",
        len(kept),
        spread(images.labels, kept, thumbnails, rng[0]),
    )

    partner = pc.index_in(table.column("duplicate_of"), value_set=ids.combine_chunks())
    partner = pc.fill_null(partner, -1).to_numpy().astype(np.int64)
    leaked = pc.fill_null(pc.equal(table.column("reason"), "leaked"), False).to_numpy()
    twins = np.flatnonzero(~images.kept & ~leaked & (partner >= 0))
    distances = pc.fill_null(table.column("distance"), -1).to_numpy()
    alike = table.column("similarity").to_pylist()
    chosen = rng[1].permutation(twins)[:thumbnails]
    chosen = chosen[np.argsort(-distances[chosen], kind="stable")]
    tile = tiles([chosen, partner[chosen]])
    yield Gallery(
        "near-duplicates",
        "Dropped near-duplicates",
        "Left the image that was dropped, right the one it repeats. "
        "The most distant pairs come first: they are the ones to doubt.",
        len(twins),
        tuple(
            Pair(
                tile(a),
                tile(int(partner[a])),
                int(distances[a]) if distances[a] >= 0 else None,
                alike[a],
                outcome="one class"
                if images.labels[a] == images.labels[partner[a]]
                else "two classes",
            )
            for a in chosen.tolist()
        ),
        "pair",
    )

    chosen = rng[2].permutation(np.flatnonzero(leaked))[:thumbnails]
    yield _leaks(leaks, images, chosen, int(leaked.sum()), tiles([chosen]))

    changes = turns(images)
    share = math.ceil(thumbnails / max(1, 2 * len(changes)))
    shown = [
        (rng[3].permutation(positions)[:share], f"{what} in epoch {epoch}")
        for epoch, taken, left in changes
        for positions, what in ((taken, "new"), (left, "dropped"))
    ]
    tile = tiles([positions for positions, _ in shown])
    yield Gallery(
        "changes",
        "Newly selected, newly dropped",
        "What the selection took in, and what it let go of, compared with the epoch before: "
        "early, half-way and late. Drawn at random.",
        sum(len(taken) + len(left) for _, taken, left in changes),
        tuple(tile(at, what) for positions, what in shown for at in positions.tolist()),
    )

    used, selected = np.flatnonzero(images.times >= 0), np.flatnonzero(images.times > 0)
    uniform = len(used) == 0 or bool((images.times[used] == images.times[used[0]]).all())
    count = 0 if uniform else thumbnails
    yield gallery(
        "often",
        "Most often selected",
        SAME if uniform else "Kept by the selection in the most epochs; ties drawn by lot.",
        len(selected),
        extremes(images.times, selected, count, rng[4], -1),
    )
    never = len(used) - len(selected)
    yield gallery(
        "rarely",
        "Rarely or never selected",
        SAME if uniform else f"{never:,} of {len(used):,} images were never selected.",
        len(used),
        extremes(images.times, used, count, rng[5], 1),
    )

    apart = disagreements(images, names, class_names)
    half = thumbnails // 2
    most = extremes(images.confidence, apart, thumbnails - half, rng[6], -1)
    least = extremes(images.confidence, np.setdiff1d(apart, most), half, rng[6], 1)
    tile = tiles([most, least])
    yield Gallery(
        "disagreements",
        "Seen as another class than asked for",
        "By how sure the student is of it: wrong search results, or mistakes of the student.",
        len(apart),
        (
            *(tile(position, "surest") for position in most.tolist()),
            *(tile(position, "least sure") for position in least.tolist()),
        ),
    )


def _leaks(
    path: Path, images: Images, chosen: np.ndarray, total: int, tile: Callable[..., Tile]
) -> Gallery:
    heading = "Test images in the crawl"
    if not path.exists():
        return Gallery("leaks", heading, "", 0, empty="Nobody looked: dedup.leaks is off.")
    rows = read_columns(path, "dedup", ["id", "test_image", "similarity", "picture"]).to_pylist()
    found = {row["id"]: row for row in rows}
    pictures = {row["test_image"]: row["picture"] for row in rows}
    table = images.table.select(["id", "test_image"]).take(chosen).to_pylist()
    pairs = []
    for position, row in zip(chosen.tolist(), table, strict=True):
        direct = found.get(row["id"])
        pairs.append(
            Pair(
                tile(position),
                None,
                None,
                direct["similarity"] if direct else None,
                encode_thumbnail(pictures.get(row["test_image"])),
                row["test_image"],
                "shows it" if direct else "looks like one that does",
            )
        )
    pairs.sort(key=lambda pair: (pair.similarity is None, pair.similarity or 0.0))
    note = (
        "Left the web image, which was dropped, right the test image. The least alike come first."
    )
    return Gallery("leaks", heading, note, total, tuple(pairs), "pair")


def read_mistakes(path: Path, thumbnails: int) -> Gallery | None:
    """The test images that the student gets wrong, surest first; None where the file is missing."""
    if not path.exists():
        return None
    names = ["actual", "student", "teacher", "student_confidence", "teacher_confidence"]
    rows = read_columns(path, "evaluate", ["image", *names])
    items = tuple(
        Mistake(
            encode_thumbnail((row.pop("image") or {}).get("bytes")),
            **row,
            outcome="teacher right" if row["teacher"] == row["actual"] else "teacher wrong too",
        )
        for row in rows.slice(0, thumbnails).to_pylist()
    )
    note = "The pixels are those that the network saw. The surest mistakes come first."
    return Gallery("mistakes", "Mistakes", note, rows.num_rows, items, "mistake")
