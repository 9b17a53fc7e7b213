"""Step of `pipeline neighbours`: the crawled images nearest to one, as lines or as a page."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from kd3_pipeline.console import Console, printable
from kd3_pipeline.embed.neighbours import Neighbours, nearest
from kd3_pipeline.embeddings import Embeddings
from kd3_pipeline.errors import UserError
from kd3_pipeline.memory import allow
from kd3_pipeline.paramfile import read_params
from kd3_pipeline.report.neighbours.page import build_neighbours_page
from kd3_pipeline.report.thumbnails import encode_thumbnail, read_thumbnails
from kd3_pipeline.store import write_text
from kd3_pipeline.verdicts import read_verdicts
from kd3_stages import paths
from kd3_stages.steps.consent import consented


def run(image: str, k: int, html: Path | None, as_json: bool) -> None:
    """Prints the `k` images nearest to one, and writes them as a page to `html`."""
    params = read_params(paths.PARAMS)
    consented(params)
    allow(params.crawl.picture_memory)
    section = params.embed
    embeddings = Embeddings.open(paths.EMBED)
    found = nearest(image, k, section.fit, section.size, embeddings, paths.TEACHER, paths.MANIFEST)
    console = Console(as_json=as_json)
    if html:
        try:
            write_text(html, _sheet(found))
        except OSError as error:
            raise UserError(f"{html} cannot be written: {error.strerror or error}") from None
        console.note(f"contact sheet: {html}")
    values = {"image": found.image, "predicted": found.predicted, "neighbours": found.rows}
    console.result(_lines(found), values)


def _lines(found: Neighbours) -> str:
    lines = [
        "  ".join(
            [
                f"{row['cosine']:.3f}",
                row["id"][:16],
                f"{row['class'] or 'no class'}, seen as {row['predicted']}",
                row["licence"] or "licence not stated",
                row["url"],
            ]
        )
        for row in found.rows
    ]
    return "\n".join(map(printable, lines))


def _sheet(found: Neighbours) -> str:
    """The neighbours as a page of HTML.

    Raises:
        UserError: data/crawl or data/dedup is not that of data/embed.
    """
    wanted = {row["id"] for row in found.rows}
    asked = Path(found.image)
    if not asked.is_file():
        wanted.add(found.image)
    stored = read_verdicts(paths.DEDUP, ["id", "shard", "row"])
    places = stored.filter(pc.is_in(stored["id"], pa.array(sorted(wanted), pa.string())))
    where = {place["id"]: (place["shard"], place["row"]) for place in places.to_pylist()}
    pictures = read_thumbnails(paths.CRAWL, where)
    pictures["query"] = (
        encode_thumbnail(asked.read_bytes()) if asked.is_file() else pictures.get(found.image)
    )
    name = asked.name if asked.is_file() else found.image[:16]
    return build_neighbours_page(name, found.predicted, found.rows, pictures)
