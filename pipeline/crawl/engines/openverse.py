"""Openverse's API: https://api.openverse.org/v1/

Its terms forbid to scrape its catalogue, so it is asked only when named, and for little.
"""

import os
from collections.abc import Iterator
from typing import Any

from pipeline.crawl.engines.engine import (
    Engine,
    Result,
    Unreadable,
    address,
    filter_of,
    json_object,
    link,
    objects,
    text,
)

ADDRESS = "https://api.openverse.org/v1/images/"
TOKEN = "OPENVERSE_TOKEN"
PAGE_RESULTS = 20  # the most without a token
MOST_PAGES = 20  # of a search, a limit of the API
LICENCES = {
    "creative-commons": "license_type=all-cc",
    "commercial": "license_type=commercial",
    "modify": "license_type=modification",
    "public-domain": "license=cc0,pdm",
}


class Openverse(Engine):
    """Openverse; the environment variable OPENVERSE_TOKEN may hold an access token."""

    name, host = "openverse", "api.openverse.org"
    page_gap = 1.0  # seconds; its limit without a token
    note = (
        "Openverse's terms forbid to scrape its catalogue: ask for few images, and with a token of"
        f" your own in {TOKEN}"
    )

    def __init__(self, base: str = ADDRESS) -> None:
        self.base = base
        token = os.environ.get(TOKEN, "").strip()
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def pages(self, query: str, wanted: int, licence: str) -> Iterator[str]:
        field, _, value = filter_of(self.name, LICENCES, licence).partition("=")
        for page in range(1, 1 + min(-(-wanted // PAGE_RESULTS), MOST_PAGES)):
            fields = {"q": query, "page": page, "page_size": PAGE_RESULTS}
            yield address(self.base, **fields, **({field: value} if field else {}))

    def results(self, page: bytes) -> list[Result]:
        answer = json_object(page)
        if not isinstance(answer.get("results"), list):
            raise Unreadable(f"it says: {text(answer.get('detail')) or 'no list of results'}")
        found = (_result(one) for one in objects(answer["results"]))
        return [result for result in found if result.url]


def _result(one: dict[str, Any]) -> Result:
    return Result(
        url=link(one.get("url")),
        page_url=link(one.get("foreign_landing_url")),
        title=text(one.get("title")),
        thumbnail=link(one.get("thumbnail")),
        licence=_licence(text(one.get("license")), text(one.get("license_version"))),
        licence_url=link(one.get("license_url")),
        creator=text(one.get("creator")),
    )


def _licence(code: str, version: str) -> str:
    names = {"": "", "cc0": "CC0", "pdm": "Public Domain Mark"}
    return f"{names.get(code, f'CC {code.upper()}')} {version}".strip()
