"""Choosing the images that the page shows, the same ones for the same seed."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pyarrow.compute as pc
import pyarrow.dataset as ds

from pipeline.report.flow import Images
from pipeline.report.inputs import read_columns
from pipeline.report.thumbnails import Thumbnail, read_thumbnails


@dataclass(frozen=True)
class Tile:
    """One image with what is known of it; `thumbnail` is None when it cannot be decoded."""

    thumbnail: Thumbnail | None
    title: str
    link: str
    host: str
    asked: str
    predicted: str
    times: int


@dataclass(frozen=True)
class Pair:
    """A dropped image and the one it duplicates; the distance is in bits of the hash."""

    dropped: Tile
    original: Tile
    distance: int | None


@dataclass(frozen=True)
class Gallery:
    """Tiles or pairs, a sample of `total`."""

    key: str
    heading: str
    note: str
    total: int
    tiles: tuple[Tile, ...] = ()
    pairs: tuple[Pair, ...] = ()


def web_link(*urls: str | None) -> tuple[str, str]:
    """The first http or https address among `urls`, and its host; ('', '') without one."""
    for url in urls:
        if not url or len(url) > 2000 or not re.fullmatch(r"https?://[^\s\x00-\x20\"<>\\]+", url):
            continue
        try:
            host = urlsplit(url).hostname
        except ValueError:
            continue
        if host:
            return url, host
    return "", ""


def spread(
    labels: np.ndarray, among: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw `count` positions out of `among`, as evenly over the labels as they allow.

    Returns:
        int64 positions, one of each label in turn.
    """
    shuffled = rng.permutation(among)
    order = shuffled[np.argsort(labels[shuffled], kind="stable")]
    _, first, sizes = np.unique(labels[order], return_index=True, return_counts=True)
    rank = np.arange(len(order)) - np.repeat(first, sizes)
    return order[np.argsort(rank, kind="stable")[:count]]


def extremes(
    times: np.ndarray, among: np.ndarray, count: int, rng: np.random.Generator, sign: int
) -> np.ndarray:
    """The positions with most (sign -1) or fewest (sign 1) times; ties are drawn by lot."""
    shuffled = rng.permutation(among)
    return shuffled[np.argsort(sign * times[shuffled], kind="stable")[:count]]


def _origins(manifest: Path, ids: list[str]) -> dict[str, dict]:
    columns = ["id", "title", "page_url", "url", "outcome"]
    rows = read_columns(manifest, "crawl", columns, ds.field("id").isin(ids)).to_pylist()
    origins: dict[str, dict] = {}
    for row in rows:
        # Several addresses may lead to the same bytes; the one that was stored speaks for them.
        if row["id"] not in origins or row["outcome"] == "stored":
            origins[row["id"]] = row
    return origins


def build_galleries(
    crawl: Path,
    images: Images,
    names: dict[int, str],
    class_names: tuple[str, ...],
    *,
    thumbnails: int,
    seed: int,
    progress: Callable[[int], object] | None = None,
) -> list[Gallery]:
    """Choose, read and describe the images of the four galleries.

    Args:
        names: label -> class asked for.
        class_names: index -> class the networks know.
        thumbnails: images (or pairs) a gallery.
        progress: called with 1 as each gallery is done.
    """
    table = images.table
    rng = [np.random.default_rng([seed, gallery]) for gallery in range(4)]
    kept = np.flatnonzero(images.kept)
    chosen_kept = spread(images.labels, kept, thumbnails, rng[0])

    partner = pc.index_in(
        table.column("duplicate_of"), value_set=table.column("id").combine_chunks()
    )
    partner = pc.fill_null(partner, -1).to_numpy().astype(np.int64)
    twins = np.flatnonzero(~images.kept & (partner >= 0))
    distances = pc.fill_null(table.column("distance"), -1).to_numpy()
    chosen_twins = rng[1].permutation(twins)[:thumbnails]
    chosen_twins = chosen_twins[np.argsort(-distances[chosen_twins], kind="stable")]

    used = np.flatnonzero(images.times >= 0)
    selected = np.flatnonzero(images.times > 0)
    never = len(used) - len(selected)
    uniform = len(used) == 0 or bool((images.times[used] == images.times[used[0]]).all())
    nothing = np.zeros(0, np.int64)
    often = nothing if uniform else extremes(images.times, selected, thumbnails, rng[2], -1)
    rarely = nothing if uniform else extremes(images.times, used, thumbnails, rng[3], 1)

    positions = np.unique(
        np.concatenate([chosen_kept, chosen_twins, partner[chosen_twins], often, rarely])
    )
    rows = table.select(["id", "shard", "row"]).take(positions).to_pylist()
    pictures = read_thumbnails(crawl, {row["id"]: (row["shard"], row["row"]) for row in rows})
    origins = _origins(crawl / "manifest.parquet", [row["id"] for row in rows])
    ids = dict(zip(positions.tolist(), (row["id"] for row in rows), strict=True))

    def tile(position: int) -> Tile:
        origin = origins.get(ids[position], {})
        link, host = web_link(origin.get("page_url"), origin.get("url"))
        label, predicted = int(images.labels[position]), int(images.predicted[position])
        known = 0 <= predicted < len(class_names)
        return Tile(
            thumbnail=pictures[ids[position]],
            title=origin.get("title") or "",
            link=link,
            host=host,
            asked=names.get(label, f"class {label}"),
            predicted=class_names[predicted] if known else "",
            times=int(images.times[position]),
        )

    def done(gallery: Gallery) -> Gallery:
        if progress:
            progress(1)
        return gallery

    def gallery(key: str, heading: str, note: str, total: int, chosen: np.ndarray) -> Gallery:
        tiles = tuple(tile(position) for position in chosen.tolist())
        return done(Gallery(key, heading, note, total, tiles))

    same = "Every image was used equally often, so there is no more and less to show."
    pairs = tuple(
        Pair(tile(a), tile(int(partner[a])), int(distances[a]) if distances[a] >= 0 else None)
        for a in chosen_twins.tolist()
    )
    return [
        gallery(
            "kept",
            "Crawled and kept",
            "Drawn at random, evenly over the classes asked for.",
            len(kept),
            chosen_kept,
        ),
        done(
            Gallery(
                "near-duplicates",
                "Dropped near-duplicates",
                "Left the image that was dropped, right the one it repeats. "
                "The most distant pairs come first: they are the ones to doubt.",
                len(twins),
                pairs=pairs,
            )
        ),
        gallery(
            "often",
            "Most often selected",
            same if uniform else "Kept by the selection in the most epochs; ties drawn by lot.",
            len(selected),
            often,
        ),
        gallery(
            "rarely",
            "Rarely or never selected",
            same if uniform else f"{never:,} of {len(used):,} images were never selected.",
            len(used),
            rarely,
        ),
    ]
