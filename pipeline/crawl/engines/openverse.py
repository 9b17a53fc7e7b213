"""Openverse's API: https://api.openverse.org/v1/

Its terms forbid to scrape its catalogue, so it is asked only when named, and for little.
"""

import os
import re
from typing import Any

from kd3_pipeline.crawl.engines.engine import (
    Budget,
    Engine,
    NoMore,
    NotNow,
    Query,
    Refused,
    Result,
    ResultPage,
    Unreadable,
    address,
    filter_of,
    json_object,
    json_or_nothing,
    link,
    number,
    objects,
    text,
)

ADDRESS = "https://api.openverse.org/v1/images/"
TOKEN = "OPENVERSE_TOKEN"
PAGE_RESULTS = 20  # the most without a token
LICENCES = {
    "creative-commons": "license_type=all-cc",
    "commercial": "license_type=commercial",
    "modify": "license_type=modification",
    "public-domain": "license=cc0,pdm",
}
ANONYMOUS = Budget(
    page_results=PAGE_RESULTS,
    query_results=240,
    per_minute=20,
    per_day=200,
    key=TOKEN,
    source="its header x-ratelimit-limit-anon_*, and what it answers to the 13th page",
)
REGISTERED = Budget(
    page_results=PAGE_RESULTS,
    query_results=400,  # 20 pages: make.wordpress.org/openverse, 2022-08-11
    per_minute=100,
    per_day=10_000,
    key=TOKEN,
    source="its source, github.com/WordPress/openverse, api/conf/settings/rest_framework.py",
)


class Openverse(Engine):
    """Openverse; the environment variable OPENVERSE_TOKEN may hold an access token.

    Its thumbnails are not used: each is made by a request to the API, and would bring the
    catalogue's own server what the hosts of the images can answer.
    """

    name, host = "openverse", "api.openverse.org"
    first = 1
    note = (
        "Openverse's terms forbid to scrape its catalogue: ask for few images, and with a token of"
        f" your own in {TOKEN}"
    )

    def __init__(self, base: str = ADDRESS) -> None:
        self.base = base
        token = os.environ.get(TOKEN, "").strip()
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.budget = REGISTERED if token else ANONYMOUS
        self.page_gap = 60 / self.budget.per_minute

    def address(self, query: Query, start: int) -> str:
        field, _, value = filter_of(self.name, LICENCES, query.licence).partition("=")
        fields = {"q": query.text, "page": start, "page_size": PAGE_RESULTS}
        return address(self.base, **fields, **({field: value} if field else {}))

    def read(self, page: bytes, query: Query, start: int) -> ResultPage:
        answer = json_object(page)
        if not isinstance(answer.get("results"), list):
            detail = text(answer.get("detail"))
            raise _meaning(detail) or Unreadable(f"it says: {detail or 'no list of results'}")
        found = (_result(one) for one in objects(answer["results"]))
        last = self.pages_for(self.budget.query_results)
        if (count := number(answer.get("page_count"))) is not None:
            last = min(last, count)
        return ResultPage(
            [result for result in found if result.url],
            start + 1 if answer["results"] and start < last else None,
        )

    def refusal(self, status: int, body: bytes) -> NotNow | Refused | NoMore | None:
        detail = text(json_or_nothing(body).get("detail"))
        if (meaning := _meaning(detail)) is not None:
            return meaning
        if not detail or status not in (400, 401, 403):
            return None
        return Refused(detail + (f" (a token in {TOKEN} lasts for hours)" if status == 401 else ""))


def _meaning(detail: str) -> NotNow | NoMore | None:
    """What an answer's `detail` says, whatever its status."""
    if "throttled" in detail:
        wait = re.search(r"available in ([0-9]{1,6}) second", detail)
        return NotNow(detail, float(wait[1]) if wait else None)
    # of the anonymous a query's 13th page, of others one too deep; a page after the last
    if re.search(r"exceed a total of|Deep pagination|Invalid page", detail):
        return NoMore(detail)
    return None


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
    return text(f"{names.get(code, f'CC {code.upper()}')} {version}")
