"""Flickr's REST API: flickr.photos.search, one call a page.

https://www.flickr.com/services/api/flickr.photos.search.html
"""

import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

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
from pipeline.errors import UserError

ADDRESS = "https://api.flickr.com/services/rest/"
KEY = "FLICKR_API_KEY"
PAGE_RESULTS = 100
MOST_RESULTS = 4000  # of a query; Flickr repeats itself beyond
SIZES = ("url_l", "url_o", "url_c", "url_m")  # 1,024 pixels, else the original, 800, 500
_CC, _PUBLIC_DOMAIN = (
    "https://creativecommons.org/licenses",
    "https://creativecommons.org/publicdomain",
)
NAMES = {  # flickr.photos.licenses.getInfo
    "0": ("All Rights Reserved", ""),
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
    page_gap = 1.0  # seconds; a key has 3,600 calls an hour

    def __init__(self, base: str = ADDRESS) -> None:
        key = os.environ.get(KEY, "").strip()
        if not key:
            raise UserError(
                f"engine 'flickr' needs a key in the environment variable {KEY}",
                "https://www.flickr.com/services/apps/create/ gives one",
            )
        self.base = base
        self.secrets = {"api_key": key}

    def pages(self, query: str, wanted: int, licence: str) -> Iterator[str]:
        codes = filter_of(self.name, LICENCES, licence)
        for page in range(1, 1 + -(-min(wanted, MOST_RESULTS) // PAGE_RESULTS)):
            yield address(
                self.base,
                method="flickr.photos.search",
                format="json",
                nojsoncallback=1,
                text=query,
                sort="relevance",
                media="photos",
                safe_search=1,
                extras="license,owner_name,url_o,url_l,url_c,url_m",
                per_page=PAGE_RESULTS,
                page=page,
                **({"license": codes} if codes else {}),
            )

    def results(self, page: bytes) -> list[Result]:
        answer = json_object(page)
        if answer.get("stat") != "ok":
            raise Unreadable(f"it says: {text(answer.get('message')) or 'no reason'}")
        photos = answer.get("photos")
        if not isinstance(photos, dict) or not isinstance(photos.get("photo"), list):
            raise Unreadable("it has no list of photos")
        number, last = photos.get("page"), photos.get("pages")
        if isinstance(number, int) and isinstance(last, int) and number > last:
            return []  # Flickr gives the last page again
        found = (_result(photo) for photo in objects(photos["photo"]))
        return [result for result in found if result.url]


def _result(photo: dict[str, Any]) -> Result:
    owner, number = (quote(text(photo.get(key)), "@", errors="replace") for key in ("owner", "id"))
    licence, licence_url = NAMES.get(str(photo.get("license")), ("", ""))
    return Result(
        url=next(filter(None, (link(photo.get(size)) for size in SIZES)), ""),
        page_url=f"https://www.flickr.com/photos/{owner}/{number}" if owner and number else "",
        title=text(photo.get("title")),
        thumbnail=link(photo.get("url_m")),
        licence=licence,
        licence_url=licence_url,
        creator=text(photo.get("ownername")),
    )
