"""Wikimedia Commons by the API of MediaWiki: https://www.mediawiki.org/wiki/API:Imageinfo"""

from collections.abc import Iterator
from typing import Any

from bs4 import BeautifulSoup
from bs4.exceptions import ParserRejectedMarkup

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

ADDRESS = "https://commons.wikimedia.org/w/api.php"
PAGE_RESULTS = 50
MOST_RESULTS = 10_000  # of a query, a limit of the search
THUMBNAIL_WIDTH = 500  # pixels; one of the widths that Wikimedia keeps ready
DECODABLE = {"image/jpeg", "image/png", "image/gif", "image/webp"}
LICENCES = {  # words of the search
    # Commons takes no file that may not be sold or changed: Commons:Licensing
    "commercial": "",
    "modify": "",
    "public-domain": "haslicense:unrestricted",
}


class Commons(Engine):
    """Wikimedia Commons. No key; its rules ask for a user agent with an address."""

    name, host = "commons", "commons.wikimedia.org"

    def __init__(self, base: str = ADDRESS) -> None:
        self.base = base

    def pages(self, query: str, wanted: int, licence: str) -> Iterator[str]:
        words = [query, "filetype:bitmap", filter_of(self.name, LICENCES, licence)]
        for offset in range(0, min(wanted, MOST_RESULTS), PAGE_RESULTS):
            yield address(
                self.base,
                action="query",
                format="json",
                formatversion=2,
                generator="search",
                gsrsearch=" ".join(filter(None, words)),
                gsrnamespace=6,
                gsrlimit=PAGE_RESULTS,
                gsroffset=offset,
                prop="imageinfo",
                iiprop="url|size|mime|extmetadata",
                iiextmetadatafilter="LicenseShortName|LicenseUrl|Artist",
                iiurlwidth=THUMBNAIL_WIDTH,
            )

    def results(self, page: bytes) -> list[Result]:
        answer = json_object(page)
        if "error" in answer:
            raise Unreadable(f"it says: {text(_dict(answer['error']).get('info')) or 'no reason'}")
        if "query" not in answer:
            if "batchcomplete" in answer:
                return []
            raise Unreadable("it is no answer to a query")
        pages = _dict(answer["query"]).get("pages")
        if not isinstance(pages, list):
            raise Unreadable("it has no list of pages")
        found = [_result(one) for one in sorted(objects(pages), key=_index)]
        return [result for result in found if result.url]


def _index(page: dict[str, Any]) -> int:
    index = page.get("index")  # the list is not in the order of the results
    return index if isinstance(index, int) else 1 << 30


def _result(page: dict[str, Any]) -> Result:
    info = next(iter(objects(page.get("imageinfo"))), {})
    metadata = _dict(info.get("extmetadata"))
    mime, thumbnail = text(info.get("mime")), link(info.get("thumburl"))
    url = link(info.get("url")) if mime in DECODABLE else ""
    if mime.startswith("image/"):
        url = url or thumbnail  # of a TIFF, say, the thumbnail is a JPEG
    return Result(
        url=url,
        page_url=link(info.get("descriptionurl")),
        title=text(page.get("title")).removeprefix("File:"),
        thumbnail=thumbnail,
        licence=_plain(metadata, "LicenseShortName"),
        licence_url=link(_plain(metadata, "LicenseUrl")),
        creator=_plain(metadata, "Artist"),
    )


def _plain(metadata: dict[str, Any], name: str) -> str:
    """A value of the metadata, which is HTML, as plain text."""
    value = text(_dict(metadata.get(name)).get("value"))
    try:
        words = (
            BeautifulSoup(value, "lxml").get_text(" ") if "<" in value or "&" in value else value
        )
    except (ParserRejectedMarkup, RecursionError):
        return ""
    return text(" ".join(words.split()))


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
