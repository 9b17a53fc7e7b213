"""Flickr's REST API: flickr.photos.search, one call a page.

https://www.flickr.com/services/api/flickr.photos.search.html
"""

import os
from typing import Any
from urllib.parse import quote

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
from kd3_pipeline.crawl.http import first_line
from kd3_pipeline.errors import UserError

ADDRESS = "https://api.flickr.com/services/rest/"
KEY = "FLICKR_API_KEY"
PAGE_RESULTS = 100
MOST_RESULTS = 4000  # of a query; Flickr repeats itself beyond
# the longer side is 240, 320, 500, 640, 800 or 1,024 pixels; then the original. Left out are those
# that are cut to a square.
SIZES = ("s", "n", "m", "z", "c", "l", "o")
SORTS = {"sort-interesting": "interestingness-desc", "sort-newest": "date-posted-desc"}
# "service unavailable", "operation failed", "search unavailable"; and two without a name, which
# come with "not currently available" when there were too many requests
PASSING = {105, 106, 10, 0, 201}
KEY_CODES = {96, 97, 98, 99, 100}
_HELP = "https://www.flickrhelp.com/hc/en-us/articles"
_CC, _PUBLIC_DOMAIN = (
    "https://creativecommons.org/licenses",
    "https://creativecommons.org/publicdomain",
)
NAMES = {  # flickr.photos.licenses.getInfo
    "0": (
        "All Rights Reserved",
        f"{_HELP}/10710266545556-Using-Flickr-images-shared-by-other-members",
    ),
    "1": ("CC BY-NC-SA 2.0", f"{_CC}/by-nc-sa/2.0/"),
    "2": ("CC BY-NC 2.0", f"{_CC}/by-nc/2.0/"),
    "3": ("CC BY-NC-ND 2.0", f"{_CC}/by-nc-nd/2.0/"),
    "4": ("CC BY 2.0", f"{_CC}/by/2.0/"),
    "5": ("CC BY-SA 2.0", f"{_CC}/by-sa/2.0/"),
    "6": ("CC BY-ND 2.0", f"{_CC}/by-nd/2.0/"),
    "7": ("No known copyright restrictions", "https://www.flickr.com/commons/usage/"),
    "8": ("United States Government Work", "https://www.usa.gov/government-copyright"),
    "9": ("CC0 1.0", f"{_PUBLIC_DOMAIN}/zero/1.0/"),
    "10": ("Public Domain Mark 1.0", f"{_PUBLIC_DOMAIN}/mark/1.0/"),
    "11": ("CC BY 4.0", f"{_CC}/by/4.0/"),
    "12": ("CC BY-SA 4.0", f"{_CC}/by-sa/4.0/"),
    "13": ("CC BY-ND 4.0", f"{_CC}/by-nd/4.0/"),
    "14": ("CC BY-NC 4.0", f"{_CC}/by-nc/4.0/"),
    "15": ("CC BY-NC-SA 4.0", f"{_CC}/by-nc-sa/4.0/"),
    "16": ("CC BY-NC-ND 4.0", f"{_CC}/by-nc-nd/4.0/"),
}
LICENCES = {
    "creative-commons": "1,2,3,4,5,6,9,11,12,13,14,15,16",
    "commercial": "4,5,6,9,10,11,12,13",
    "modify": "1,2,4,5,9,10,11,12,14,15",
    "public-domain": "9,10",
}


class Flickr(Engine):
    """Flickr, with the key that the environment variable FLICKR_API_KEY holds.

    Raises:
        UserError: there is no key.
    """

    name, host = "flickr", "api.flickr.com"
    first = 1
    sized = True
    variants = tuple(SORTS)
    budget = Budget(
        page_results=PAGE_RESULTS,
        query_results=MOST_RESULTS,
        per_minute=60,
        key=KEY,
        source="https://www.flickr.com/services/developer/api/: 3,600 calls an hour for a key;"
        " flickr.photos.search: 4,000 results of a query",
    )

    def __init__(self, base: str = ADDRESS) -> None:
        key = os.environ.get(KEY, "").strip()
        if not key:
            raise UserError(
                f"engine 'flickr' needs a key in the environment variable {KEY}",
                "https://www.flickr.com/services/apps/create/ gives one",
            )
        self.base = base
        self.secrets = {"api_key": key}

    def address(self, query: Query, start: int) -> str:
        codes = filter_of(self.name, LICENCES, query.licence)
        return address(
            self.base,
            method="flickr.photos.search",
            format="json",
            nojsoncallback=1,
            text=query.text,
            sort=SORTS.get(query.variant, "relevance"),
            media="photos",
            safe_search=1,
            extras=",".join(["license", "owner_name", *(f"url_{size}" for size in SIZES)]),
            per_page=PAGE_RESULTS,
            page=start,
            **({"license": codes} if codes else {}),
        )

    def read(self, page: bytes, query: Query, start: int) -> ResultPage:
        answer = json_object(page)
        if answer.get("stat") != "ok":
            raise _meaning(answer) or Unreadable("it is a failure without a name")
        photos = answer.get("photos")
        if not isinstance(photos, dict) or not isinstance(photos.get("photo"), list):
            raise Unreadable("it has no list of photos")
        shown, last = number(photos.get("page")), number(photos.get("pages"))
        if shown is not None and (shown < start or (last is not None and shown > last)):
            return ResultPage([], None)  # Flickr gives the last page again
        found = (_result(photo, query.side) for photo in objects(photos["photo"]))
        most = self.pages_for(MOST_RESULTS)
        more = bool(photos["photo"]) and start < (most if last is None else min(last, most))
        return ResultPage([one for one in found if one.url], start + 1 if more else None)

    def refusal(self, status: int, body: bytes) -> NotNow | Refused | NoMore | None:
        # it is not always one of the API, but a page in words
        meaning = _meaning(json_or_nothing(body) or {"message": first_line(body)})
        # of a page that is no answer of the API only "not now" is believed
        if isinstance(meaning, NotNow) or status in (400, 401, 403):
            return meaning
        return None


def _meaning(answer: dict[str, Any]) -> NotNow | Refused | None:
    """What an answer that is not "ok" says, None if it says nothing."""
    code, message = number(answer.get("code")), text(answer.get("message"))
    if code is None and not message:
        return None
    said = message + ("" if code is None else f" (code {code})")
    if code in PASSING or "not currently available" in message or "unavailable" in message:
        return NotNow(said)
    return Refused(f"{said}; {KEY} holds its key" if code in KEY_CODES else said)


def _result(photo: dict[str, Any], side: int) -> Result:
    owner, name = (quote(text(photo.get(key)), "@", errors="replace") for key in ("owner", "id"))
    licence, licence_url = NAMES.get(str(photo.get("license")), ("", ""))
    sizes = {size: found for size in SIZES if (found := link(photo.get(f"url_{size}")))}
    original = next(reversed(sizes.values()), "")
    url = next((sizes[size] for size in sizes if 0 < side <= _shorter(photo, size)), original)
    return Result(
        url=url,
        page_url=link(f"https://www.flickr.com/photos/{owner}/{name}") if owner and name else "",
        title=text(photo.get("title")),
        thumbnail=sizes.get("m", ""),
        licence=licence,
        licence_url=licence_url,
        creator=text(photo.get("ownername")),
        original=original if original != url else "",
    )


def _shorter(photo: dict[str, Any], size: str) -> int:
    """The shorter side of a size, 0 where it is not stated."""
    return min(number(photo.get(f"{key}_{size}")) or 0 for key in ("width", "height"))
