"""Crops of `pipeline embed`: what they will cost and what they have brought, told; their files."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from kd3_pipeline.console import Console
from kd3_pipeline.embed.batches import KeptImage, Reading
from kd3_pipeline.embed.cropfigures import crop_figures, cropped, least_side
from kd3_pipeline.embeddings import CROP_FILES, CROP_STORES, Embeddings
from kd3_pipeline.params import Embed
from kd3_stages import paths


def plan_crops(section: Embed, kept: Sequence[KeptImage], load: Reading, console: Console) -> None:
    """Says before the pass what crops will cost.

    Raises:
        UserError: no image is large enough for one.
    """
    images, total = cropped(kept, paths.CRAWL, load.stored), len(kept)
    each, which = 3 * load.stored**2, "as pixels" if section.store == "raw" else "before JPEG"
    console.note(
        f"crops: {images:,} of {total:,} images have a shorter side of {least_side(load.stored)}"
        f" pixels or more; the teacher sees up to {load.views} views of each, and {section.crops}"
        f" of every image are kept: {total * each * section.crops / 1e9:.2g} GB {which} in place"
        f" of {total * each / 1e9:.2g}"
    )


def crop_files(section: Embed) -> tuple[str, ...]:
    """Names of the files that crops leave beside those of whole images; none without crops."""
    return (*CROP_STORES[section.store], *CROP_FILES) if section.crops > 1 else ()


def tell_crops(section: Embed, embeddings: Embeddings, console: Console) -> dict[str, Any]:
    """Says what crops have brought, and returns their figures."""
    found = crop_figures(embeddings, crop_files(section))
    console.note(
        f"crops: in {found.crops:,} of {found.images:,} images the teacher sees what it sees in the"
        f" whole; its mean confidence in them is {found.crop_confidence:.2f}, in the whole images"
        f" {found.whole_confidence:.2f}; {found.bytes / 1e9:.2g} GB"
    )
    return asdict(found)
