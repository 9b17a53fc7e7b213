"""Wikimedia Commons by the API of MediaWiki: https://www.mediawiki.org/wiki/API:Imageinfo"""

from typing import Any

from bs4 import BeautifulSoup
from bs4.exceptions import ParserRejectedMarkup

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
    later_start,
    link,
    number,
    objects,
    text,
)
from kd3_pipeline.crawl.http import first_line

ADDRESS = "https://commons.wikimedia.org/w/api.php"
PAGE_RESULTS = 50
MOST_RESULTS = 10_000  # of a query, a limit of the search
# pixels, that Wikimedia makes: https://www.mediawiki.org/wiki/Common_thumbnail_sizes
WIDTHS = (20, 40, 60, 120, 250, 330, 500, 960, 1280, 1920, 3840)
THUMBNAIL_WIDTH = 500  # where no size is asked for
SHAPE = 2  # width to height up to which a thumbnail is large enough for the side asked for
# codes of refusals for the moment: of the API, of CirrusSearch, of the database behind them
PASSING = {
    *("ratelimited", "maxlag", "readonly", "internal_api_error", "timeout", "unknownerror"),
    *("cirrussearch-too-busy-error", "cirrussearch-regex-too-busy-error"),
    "cirrussearch-backend-error",
}
PASSING_KINDS = ("internal_api_error_", "cirrussearch-too-busy-for-you-")
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
    sized = True
    budget = Budget(
        page_results=PAGE_RESULTS,
        query_results=MOST_RESULTS,
        per_minute=200,
        contact=True,
        per_minute_unnamed=10,
        source="https://www.mediawiki.org/wiki/Wikimedia_APIs/Rate_limits (2026), one request"
        " after the other: https://www.mediawiki.org/wiki/API:Etiquette",
    )

    def __init__(self, base: str = ADDRESS) -> None:
        self.base = base

    def address(self, query: Query, start: int) -> str:
        words = [query.text, "filetype:bitmap", filter_of(self.name, LICENCES, query.licence)]
        return address(
            self.base,
            action="query",
            format="json",
            formatversion=2,
            generator="search",
            gsrsearch=" ".join(filter(None, words)),
            gsrnamespace=6,
            gsrlimit=PAGE_RESULTS,
            gsroffset=start,
            prop="imageinfo",
            iiprop="url|size|mime|extmetadata",
            iiextmetadatafilter="LicenseShortName|LicenseUrl|Artist",
            iiurlwidth=_width(query.side),
        )

    def read(self, page: bytes, query: Query, start: int) -> ResultPage:
        answer = json_object(page)
        if "error" in answer:
            raise _meaning(answer["error"]) or Unreadable("it is an error without a name")
        offset = _dict(answer.get("continue")).get("gsroffset")
        stated = later_start(offset, start, MOST_RESULTS)
        if "query" not in answer:
            # a page without results, seen to come in passing for queries that have some
            if "batchcomplete" in answer or "continue" in answer:
                return ResultPage([], stated)
            raise Unreadable("it is no answer to a query")
        pages = _dict(answer["query"]).get("pages")
        if not isinstance(pages, list):
            raise Unreadable("it has no list of pages")
        found = [_result(one, query.side) for one in sorted(objects(pages), key=_index)]
        step = start + PAGE_RESULTS if len(pages) >= PAGE_RESULTS else start
        following = stated or later_start(step, start, MOST_RESULTS)
        return ResultPage([result for result in found if result.url], following)

    def refusal(self, status: int, body: bytes) -> NotNow | Refused | NoMore | None:
        if (meaning := _meaning(json_or_nothing(body).get("error"))) is not None:
            return meaning
        if status == 403:
            said = first_line(body) or "it answered 403"
            return Refused(
                f"{said.rstrip('.')} (set crawl.contact: a robot has to say whose it is)"
            )
        return None


def _meaning(error: object) -> NotNow | Refused | NoMore | None:
    """What an error of the API says, None if it is none."""
    code, info = (text(_dict(error).get(key)) for key in ("code", "info"))
    if not code and not info:
        return None
    said = f"{info} ({code})" if info and code else info or code
    if code == "cirrussearch-offset-too-large":
        return NoMore(said)
    if code in PASSING or code.startswith(PASSING_KINDS) or "again later" in info:
        return NotNow(said)
    return Refused(said)


def _width(side: int) -> int:
    """The standard width of a thumbnail whose shorter side is `side` in most shapes."""
    wanted = SHAPE * side or THUMBNAIL_WIDTH
    return next((width for width in WIDTHS if width >= wanted), WIDTHS[-1])


def _index(page: dict[str, Any]) -> int:
    index = page.get("index")  # the list is not in the order of the results
    return index if isinstance(index, int) else 1 << 30


def _result(page: dict[str, Any], side: int) -> Result:
    info = next(iter(objects(page.get("imageinfo"))), {})
    metadata = _dict(info.get("extmetadata"))
    mime, thumbnail = text(info.get("mime")), link(info.get("thumburl"))
    original = link(info.get("url")) if mime.startswith("image/") else ""
    url = original if mime in DECODABLE else ""
    sides = [number(info.get(key)) or 0 for key in ("thumbwidth", "thumbheight")]
    if original and thumbnail and (not url or 0 < side <= min(sides)):
        url = thumbnail  # of a TIFF, say, it is a JPEG
    return Result(
        url=url,
        page_url=link(info.get("descriptionurl")),
        title=text(page.get("title")).removeprefix("File:"),
        thumbnail=thumbnail,
        licence=_plain(metadata, "LicenseShortName"),
        licence_url=link(_plain(metadata, "LicenseUrl")),
        creator=_plain(metadata, "Artist"),
        original=original if url != original else "",
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
