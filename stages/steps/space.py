"""Room on the disk that a run will take, by estimate."""

import os
import shutil
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from kd3_pipeline.imagesource.kinds import is_parquet, is_tar
from kd3_pipeline.params import Params
from kd3_stages.steps.findings import Finding

# Bytes. Of an original on the web it is a guess, which the finding says. 399 demo drawings
# had 3,829 on average; a JPEG has 0.29 by the pixel (benchmarks/RESULTS.md, "Pixel stores").
WEB_IMAGE, DRAWING, PER_PIXEL = 300_000, 3_800, 0.3
LARGER = 2.0  # an engine's smaller picture has up to so many times the side that was asked for
LEAST = 1e9  # for models, DVC's files and what is written beside before it is renamed
MOST_LISTED = 20_000  # files of a folder that are looked at: the rest are taken to be as large


@dataclass(frozen=True)
class Need:
    """Images that a crawl can bring, and bytes of one; 0 where it cannot be told."""

    images: int = 0
    each: float = 0.0
    guessed: bool = False

    @classmethod
    def of_drawings(cls, images: int) -> "Need":
        """The demo's."""
        return cls(images, DRAWING)

    @classmethod
    def of_web(cls, images: int, side: int) -> "Need":
        """Of a web search, for pictures of so many pixels a side; 0: originals."""
        each = min(WEB_IMAGE, PER_PIXEL * (LARGER * side) ** 2) if side else WEB_IMAGE
        return cls(images, each, guessed=True)

    @classmethod
    def of_files(cls, source: Path, sample: int) -> "Need":
        """Of files that are here: tables by their rows, archives by what they can hold, and any
        other file for one picture."""
        files, looked, held, size, guessed = 0, 0, 0, 0, False
        walked = os.walk(source) if source.is_dir() else [(str(source.parent), [], [source.name])]
        for folder, _, names in walked:
            files += len(names)
            for name in names[: max(0, MOST_LISTED - looked)]:
                looked += 1
                path = os.path.join(folder, name)
                bytes_ = os.path.getsize(path) if os.path.isfile(path) else 0
                count = pictures_in(Path(path), bytes_)
                guessed |= count is None
                held += max(1, round(bytes_ / WEB_IMAGE)) if count is None else count
                size += bytes_ if count != 0 else 0
        there = round(held * files / looked) if looked else 0
        return cls(min(sample or there, there), size / held if held else 0.0, guessed)


def pictures_in(path: Path, size: int) -> int | None:
    """How many pictures a file holds; None of an archive, of which that shows only on reading."""
    if is_tar(path.name, b""):
        return None
    if not is_parquet(path.name, b"") or not size:
        return 1
    try:
        about = pq.read_metadata(path)
    except (OSError, pa.ArrowInvalid):
        return 0  # the crawl says what is wrong with it
    binary = any(
        pa.types.is_binary(one.type) or pa.types.is_struct(one.type)
        for one in about.schema.to_arrow_schema()
    )
    return int(about.num_rows) if binary else 0  # else it says something of files beside it


def disk_finding(params: Params, need: Need, to_run: Set[str]) -> Finding:
    """Whether what the stages to run will write has room where the project is.

    Pixels are counted as they are stored, crops and refined ones too; features and logits are few
    beside them.
    """
    free = shutil.disk_usage(Path.cwd()).free
    crawled = need.images * need.each if "crawl" in to_run else 0.0
    side = params.embed.size or params.teacher.input_size
    pixel = 3.0 if params.embed.store == "raw" else PER_PIXEL
    views = params.embed.crops
    refined = 3.0 if params.embed.refine else 0.0  # never as JPEG
    if params.embed.refine_images and need.images:
        refined *= min(1.0, params.embed.refine_images / need.images)
    stored = need.images * views * side**2 * (pixel + refined) if "embed" in to_run else 0.0
    needed = LEAST + crawled + stored if to_run else 0.0
    parts = []
    if crawled:
        by = f", taken as {_size(need.each)} each" if need.guessed else ""
        parts.append(f"{_size(crawled)} for up to {need.images:,} images{by}")
    if stored:
        how = params.embed.store + (", and refined" if refined else "")
        each = f", {views} views each" if views > 1 else ""
        parts.append(f"{_size(stored)} for their pixels ({how}, {side}×{side}{each})")
    unknown = to_run and not need.images
    text = f"{_size(free)} free"
    if parts:
        text = f"about {_size(needed)} needed: {', '.join(parts)}, and {_size(LEAST)} for the rest"
        text += f"; {_size(free)} free"
    elif unknown:
        text += "; how many images there will be cannot be told"
    values = {"needed": round(needed), "free": free}
    if needed <= free:
        return Finding("room", text, values=values)
    advice = ": take fewer images, store pixels as JPEG (embed.store), or make room"
    return Finding("room", text + advice, False, 3, values, loud=True, measured=True)


def _size(count: float) -> str:
    for unit, of in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= of:
            return f"{count / of:,.1f} {unit}"
    return f"{count / 1e3:,.1f} kB"
