"""HTML of the demo web: the engine's result pages and the hosts' image pages, all escaped."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from kd3_pipeline.demo.shapes import CLASS_NAMES

_HEAD = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
    "<style>body{{font:16px sans-serif;margin:2em}}figure{{display:inline-block;width:9em;"
    "margin:.5em;vertical-align:top;overflow-wrap:anywhere}}img{{height:64px}}</style></head><body>"
)


@dataclass(frozen=True)
class Result:
    """One search result as the engine shows it; the names are those of Bing's JSON."""

    murl: str  # address of the image
    purl: str  # address of the page it stands on
    turl: str  # address of its thumbnail
    t: str  # title
    md5: str  # of the image's bytes, hex
    lic: str  # licence, empty when unknown


def async_page(results: Sequence[Result]) -> str:
    """Results in the form of Bing's async image page, for a crawler to parse."""
    return f'<div class="dgControl">{"".join(_async_result(result) for result in results)}</div>'


def search_page(query: str, results: Sequence[Result]) -> str:
    """Results for a person, with thumbnails."""
    figures = "".join(
        f'<figure><a href="{escape(result.murl)}"><img src="{escape(result.turl)}" alt=""></a>'
        f'<figcaption><a href="{escape(result.purl)}">{escape(result.t)}</a>'
        f" {escape(result.lic)}</figcaption></figure>"
        for result in results
    )
    title = escape(f"{query} – image search")
    return _HEAD.format(title=title) + _form(query) + (figures or "<p>No results.</p>")


def home_page() -> str:
    """The engine's front page: a search box and the classes that it knows."""
    links = " ".join(f'<a href="/search?q={name}">{name}</a>' for name in CLASS_NAMES)
    return _HEAD.format(title="Image search") + f"<h1>Image search</h1>{_form('')}<p>{links}</p>"


def image_page(title: str, image_path: str, licence: str) -> str:
    """The page that an image stands on."""
    return (
        _HEAD.format(title=escape(title)) + f"<h1>{escape(title)}</h1>"
        f'<img src="{escape(image_path)}" alt=""><p>{escape(licence or "Licence unknown")}</p>'
    )


def _form(query: str) -> str:
    return (
        f'<form action="/search"><input name="q" value="{escape(query)}" aria-label="Query">'
        " <button>Search</button></form>"
    )


def _async_result(result: Result) -> str:
    # Compact, as the engine writes it: parsers in the wild look for `murl":"`.
    fields = escape(json.dumps(vars(result), separators=(",", ":")))
    return (
        f'<div class="imgpt"><a class="iusc" href="{escape(result.purl)}" m="{fields}">'
        f'<img src="{escape(result.turl)}" alt=""></a></div>'
    )
