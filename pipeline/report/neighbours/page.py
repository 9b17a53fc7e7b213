"""One self-contained HTML contact sheet of the images nearest to one."""

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipeline.report.galleries import web_link
from pipeline.report.thumbnails import Thumbnail


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
    environment = Environment(
        loader=PackageLoader("pipeline.report", package_path=""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    environment.filters |= {"clip": _clip, "web": _web}
    return environment.get_template("neighbours/page.html.j2").render(
        query=query, predicted=predicted, rows=rows, thumbnails=thumbnails
    )


def _web(url: str) -> tuple[str, str] | None:
    """An address that may be linked, and its host."""
    address, host = web_link(url)
    return (address, host) if address else None


def _clip(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def _printable(value: object) -> object:
    """Without control characters, nor those that turn the direction of what follows."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return "".join(letter for letter in value if letter.isprintable())
    return value
