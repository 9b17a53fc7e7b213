"""Bing's image search, read from the HTML that its own pages load; it has no interface for this."""

import json
import re
from typing import Any
from urllib.parse import parse_qs, quote_plus, urlsplit

from icrawler.builtin.bing import BingFeeder
from icrawler.utils import Signal
from lxml import etree

from kd3_pipeline.crawl.engines.engine import (
    MOST_CHARACTERS,
    Budget,
    Engine,
    NotNow,
    Query,
    Result,
    ResultPage,
    Unreadable,
    filter_of,
    later_start,
    link,
    text,
)

ADDRESS = "https://www.bing.com/images/async"
PAGE_RESULTS = 35  # that a page is asked for, and holds
MOST_RESULTS = 1000  # of a query; Bing repeats itself beyond
# Left to itself, Bing filters by the market and by what it takes the client for, and lets some
# sexual images through. A training set wants none, and the same results from everywhere.
SAFE = "strict"
MARKET = "en-US"  # else it is that of the crawler's IP address, and so are the results
MARKS = (b"dgControl", b"imgpt", b"iusc", b"mmComponent_images")  # of a page of image results
LICENCES = {  # ours: icrawler's
    "creative-commons": "creativecommons",
    "commercial": "commercial",
    "modify": "noncommercial,modify",
    "public-domain": "publicdomain",
}
# icrawler's filters: those first that keep to photos and cut a query's results in few large parts
VARIANTS = (
    "type-photo",
    *("size-large", "layout-wide", "date-pastyear"),
    *("size-medium", "layout-tall", "layout-square"),
    *("color-green", "color-blue", "color-white", "color-black", "color-brown", "color-red"),
    *("color-gray", "color-yellow", "color-orange", "color-teal", "color-purple", "color-pink"),
    *("date-pastmonth", "size-extralarge", "color-blackandwhite", "color-color"),
    *("date-pastweek", "date-pastday", "size-small"),
    *("type-transparent", "type-clipart", "type-linedrawing", "type-animated"),
)
DEMO = Budget(page_results=20, query_results=MOST_RESULTS, source="the demo's own engine")
_ASKED = re.compile(r'RawRequestURL\s{0,9}=\s{0,9}("(?:[^"\\]|\\.){0,4000}")')


class Bing(Engine):
    """Bing, or the demo's engine, whose pages have the same form.

    The filters are those of icrawler's feeder, which does not encode the query and goes on by 20
    where a page holds 35; its parser knows `.jpg` addresses only.
    """

    variants: tuple[str, ...] = VARIANTS
    budget = Budget(
        page_results=PAGE_RESULTS,
        query_results=MOST_RESULTS,
        source="Bing states none; icrawler stops at 1,000 results of a query, users report 100 to"
        " 700",
    )

    def __init__(self, name: str = "bing", base: str = ADDRESS, page_gap: float = 1.0) -> None:
        self.name, self.base, self.page_gap = name, base, page_gap
        self.host = urlsplit(base).netloc
        if name == "demo":  # which has no filters, and fewer results on a page
            self.variants, self.budget = (), DEMO

    def address(self, query: Query, start: int) -> str:
        options = {}
        if query.variant:
            kind, _, value = query.variant.partition("-")
            options[kind] = value
        if code := filter_of(self.name, LICENCES, query.licence):
            options["license"] = code
        # a "+" is not encoded in what icrawler makes of them, since Bing's own pages do not
        filters = BingFeeder(1, Signal(), None).get_filter().apply(options)
        fields = f"&adlt={SAFE}&mkt={MARKET}&setlang={MARKET}"
        if filters:
            fields += f"&qft={filters}"
        words = quote_plus(query.text, errors="replace")
        return f"{self.base}?q={words}&first={start}&count={PAGE_RESULTS}{fields}"

    def read(self, page: bytes, query: Query, start: int) -> ResultPage:
        if not page.strip():
            raise NotNow("its page is empty")
        seen = _Links.of(page)
        found = [one for record in seen.records if (one := _result(record)) is not None]
        # the layout that Bing gives clients that it does not take for a browser
        found = found or [
            Result(**{name: text(value) for name, value in one.items()})
            for one in seen.plain
            if one["url"]
        ]
        count = len(seen.records) or len(seen.plain)
        if not found and count:
            raise Unreadable(f"none of its {count} results can be read")
        if not found and not any(mark in page for mark in MARKS):
            raise Unreadable("it has neither results nor the marks of a page of results")
        following = _fields(seen.following)
        return ResultPage(
            found,
            _next(seen.following, following, start, count),
            following.get("q") or _fields(_asked(seen.scripts)).get("q", ""),
        )


class _Links:
    """What a page links to, gathered while lxml walks it; no tree is made, of any depth.

    Attributes:
        records: attributes `m` of the results.
        plain: results of the layout without scripts.
        following: address of the next page, None where the page does not speak of one.
        scripts: their text.
    """

    def __init__(self) -> None:
        self.records: list[str] = []
        self.plain: list[dict[str, str]] = []
        self.following: str | None = None
        self.scripts: list[str] = []
        self._within = ""  # the kind of text that is read: a script or a title

    @classmethod
    def of(cls, page: bytes) -> "_Links":
        """Raises Unreadable if it is no HTML at all."""
        # as bytes without zeros: lxml ends at one, and refuses a text that states its encoding
        body = page.decode("utf-8", "ignore").replace("\0", "").encode()
        found = cls()
        parser = etree.HTMLParser(target=found, encoding="utf-8")
        try:
            parser.feed(body)
            parser.close()
        except etree.LxmlError as error:
            raise Unreadable(f"it is no HTML: {error}") from None
        return found

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if self.following is None and "data-nexturl" in attributes:
            self.following = attributes["data-nexturl"]
        kinds = attributes.get("class", "").split()
        if tag == "a" and "iusc" in kinds:
            self.records.append(attributes.get("m", ""))
        elif tag == "a" and "thumb" in kinds:
            texts = dict.fromkeys(("page_url", "title", "thumbnail"), "")
            self.plain.append(texts | {"url": _web(attributes.get("href"))})
        elif tag == "script":
            self._within = tag
        elif not self.plain:
            return
        elif tag == "a" and "tit" in kinds:
            self.plain[-1]["page_url"] = link(attributes.get("href"))
        elif tag == "img":
            self.plain[-1]["thumbnail"] = self.plain[-1]["thumbnail"] or link(attributes.get("src"))
        elif tag == "div":
            self._within = "title" if "des" in kinds else ""

    def data(self, words: str) -> None:
        if self._within == "script":
            self.scripts.append(words)
        elif self._within:
            self.plain[-1]["title"] = (self.plain[-1]["title"] + words)[:MOST_CHARACTERS]

    def end(self, tag: str) -> None:
        if tag in ("div", "script"):
            self._within = ""

    def close(self) -> None:
        pass


def _result(attribute: str) -> Result | None:
    try:
        record = json.loads(attribute)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not link(record.get("murl")):
        return None
    return Result(
        url=link(record["murl"]),
        page_url=link(record.get("purl")),
        title=text(record.get("t")),
        thumbnail=link(record.get("turl")),
        licence=text(record.get("lic")),  # the demo's engine tells it; no page of Bing's does
    )


def _web(value: Any) -> str:
    """The address of a plain link, "" unless it leads to the web."""
    found = link(value)
    return found if found.lower().startswith(("http://", "https://")) else ""


def _next(following: str | None, fields: dict[str, str], start: int, count: int) -> int | None:
    """Where the next page begins. Of the page's own word only a number is believed."""
    if following is not None and not following.strip():
        return None
    step = start + count
    stated = later_start(fields.get("first"), start, MOST_RESULTS)
    # neither result by result through what is known, nor past pages that nobody has seen
    if stated and not start + count // 2 <= stated <= start + 2 * max(count, PAGE_RESULTS):
        stated = None
    return stated or (step if start < step < MOST_RESULTS else None)


def _fields(address: str | None) -> dict[str, str]:
    """The first value of each field of an address."""
    try:
        found = parse_qs(urlsplit(address or "").query, max_num_fields=100)
    except ValueError:
        return {}
    return {name: text(values[0]) for name, values in found.items()}


def _asked(scripts: list[str]) -> str:
    """The address that a page says it answers, "" if it does not say."""
    match = next(filter(None, map(_ASKED.search, scripts)), None)
    try:
        return text(json.loads(match[1])) if match else ""
    except ValueError:
        return ""
