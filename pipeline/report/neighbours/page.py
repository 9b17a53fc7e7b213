"""Contact sheet of the images nearest to one: a self-contained HTML page."""

from collections.abc import Mapping, Sequence
from typing import Any

from kd3_pipeline.report.thumbnails import Thumbnail
from kd3_pipeline.report.tiles import web_link
from kd3_pipeline.templates import environment


def build_neighbours_page(
    query: str,
    predicted: str,
    rows: Sequence[Mapping[str, Any]],
    thumbnails: Mapping[str, Thumbnail | None],
) -> str:
    """Build the page. Text may come from the web: it is shown as it is, and never obeyed.

    Args:
        query: name of the image asked about.
        predicted: what the teacher sees in it.
        rows: neighbours, nearest first: id, cosine, class, predicted, title, url, page_url,
            licence and licence_url.
        thumbnails: by id; that of the image asked about is "query". None cannot be decoded.
    """
    page = environment("kd3_pipeline.report", web=_web).get_template("neighbours/page.html.j2")
    return page.render(query=query, predicted=predicted, rows=rows, thumbnails=thumbnails)


def _web(url: str) -> tuple[str, str] | None:
    """An address that may be linked, and its host."""
    address, host = web_link(url)
    return (address, host) if address else None
