"""Base of the search engines, and what their parsers have in common."""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from urllib.parse import urlencode

from kd3_pipeline.errors import UserError

MOST_CHARACTERS = 2000  # of an address, which is left out when longer, or of a text, which is cut


@dataclass(frozen=True, slots=True)
class Result:
    """One search result, as the engine gave it. All text is hostile.

    `url` may be a smaller picture of the engine's, large enough for the query's `side`; then
    `original` is the address of the full one.
    """

    url: str
    page_url: str = ""
    title: str = ""
    thumbnail: str = ""
    licence: str = ""
    licence_url: str = ""
    creator: str = ""
    original: str = ""


@dataclass(frozen=True, slots=True)
class Query:
    """What an engine is asked.

    Attributes:
        text: the words.
        licence: a licence filter of `params.yaml`, "any" for none.
        variant: one of the engine's `variants`, "" for none.
        side: pixels of the shorter side that a picture needs at least; 0 asks for the original.
    """

    text: str
    licence: str = "any"
    variant: str = ""
    side: int = 0


@dataclass(frozen=True, slots=True)
class ResultPage:
    """One page of results, in order.

    Attributes:
        next: where the next page begins (a number of `address`), None if the page says that it is
            the last one.
        query: the words that the page says it answers, "" if it does not say.
    """

    results: list[Result]
    next: int | None
    query: str = ""


@dataclass(frozen=True, slots=True)
class Budget:
    """What an engine gives a client, as it states it or as it was seen to behave.

    Attributes:
        page_results: results of one page.
        query_results: results of one query, at most.
        per_minute: requests; 0 if nothing is stated.
        per_day: requests; 0 if nothing is stated.
        contact: whether it refuses robots that name no way to reach their owner, or gives them
            less: `per_minute_unnamed` requests, 0 if that is not stated.
        key: environment variable of a key or token, "" if it has none.
        source: where it says so.
    """

    page_results: int
    query_results: int
    per_minute: float = 0.0
    per_day: int = 0
    contact: bool = False
    per_minute_unnamed: float = 0.0
    key: str = ""
    source: str = ""


class Unreadable(Exception):
    """A page is none that this engine's parser knows: a captcha, an error, or a new layout."""


class NotNow(Exception):
    """A refusal for now: the same question may be answered later.

    `pause` is in seconds, None where none is named.
    """

    def __init__(self, reason: str, pause: float | None = None) -> None:
        super().__init__(reason)
        self.pause = pause


class Refused(Exception):
    """A refusal for good, such as of a wrong key: asking again will not help."""


class NoMore(Exception):
    """The engine's limit for this query is reached, by what it says: an end, and no failure."""


class Engine(ABC):
    """Base of search engines: the addresses of their result pages, and how to read them.

    A new engine is a subclass in a file of this package, and a line in pipeline/registry.py.
    """

    name: str  # in params.yaml and in the manifest
    host: str  # for messages
    budget: Budget
    page_gap = 1.0  # seconds between two pages, by the budget
    first = 0  # where the first page begins
    variants: tuple[str, ...] = ()  # names of its filters, the most useful first, as `type-photo`
    sized = False  # whether what `read` gives depends on the query's side
    note = ""  # what its users have to know, such as its terms
    headers: Mapping[str, str] = MappingProxyType({})  # sent with every page
    secrets: Mapping[str, str] = MappingProxyType({})  # added to the address asked for, never kept

    @abstractmethod
    def address(self, query: Query, start: int) -> str:
        """Address of the result page that begins at `start` (`first`, or a page's `next`).

        Raises:
            UserError: the engine cannot filter by this licence.
        """

    @abstractmethod
    def read(self, page: bytes, query: Query, start: int) -> ResultPage:
        """The results of the page that `address` gave. Malformed ones are left out.

        Any bytes are survived.

        Raises:
            Unreadable: the page is no result page of this engine.
            NotNow, Refused, NoMore: it is an answer of the kind, though its HTTP status is 200.
        """

    def refusal(self, status: int, body: bytes) -> NotNow | Refused | NoMore | None:
        """What an answer that is not 200 means to this engine; None for what HTTP says it does."""
        return None

    def pages_for(self, wanted: int) -> int:
        """Result pages that so many results of one query take, within its limit for a query."""
        return -(-min(wanted, self.budget.query_results) // self.budget.page_results)

    def results(self, page: bytes) -> list[Result]:
        """The results of one page, for looking at it; raises as `read`."""
        return self.read(page, Query(""), self.first).results


def address(base: str, **fields: object) -> str:
    """`base` with a query string of `fields`."""
    return f"{base}?{urlencode(fields, errors='replace')}"


def forecast(engine: Engine, wanted: Iterable[int]) -> str:
    """How many pages some queries take at most, how fast they are asked for, and how long it takes.

    Variations of queries that are exhausted come on top; nobody knows before which those are.

    Args:
        wanted: results of each query.
    """
    pages, budget, gap = sum(map(engine.pages_for, wanted)), engine.budget, engine.page_gap
    pace = [f"one in {gap:g} s" if gap != 1 else "one a second"] if gap else []
    pace += [f"{budget.per_day:,} a day"] if budget.per_day else []
    days = -(-pages // budget.per_day) if budget.per_day else 1
    lasts = f"{days} days" if days > 1 else f"about {_duration(pages * gap)}"
    asked = f"up to {pages:,} pages of results for the queries themselves"
    return f"{engine.name}: {', '.join([asked, *pace])}: {lasts}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def filter_of(engine: str, filters: Mapping[str, str], licence: str) -> str:
    """The engine's own code for a licence filter, "" for any.

    Raises:
        UserError: it has none.
    """
    if licence == "any":
        return ""
    if licence not in filters:
        known = ", ".join(["any", *filters])
        raise UserError(f"crawl.licence: {engine} cannot filter by '{licence}'", f"it can: {known}")
    return filters[licence]


def json_object(page: bytes) -> dict[str, Any]:
    """A page that is one JSON object.

    Raises:
        Unreadable: it is none.
        NotNow: it is empty.
    """
    if not page.strip():
        raise NotNow("its page is empty")
    try:
        found = json.loads(page)
    except (ValueError, RecursionError):
        raise Unreadable("it is no JSON") from None
    if not isinstance(found, dict):
        raise Unreadable("it is no JSON object")
    return found


def json_or_nothing(body: bytes) -> dict[str, Any]:
    """The JSON object that an answer's body is, an empty one if it is none."""
    try:
        return json_object(body)
    except (Unreadable, NotNow):
        return {}


def objects(value: object) -> list[dict[str, Any]]:
    """The JSON objects of a list; none where there is no list."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def number(value: object) -> int | None:
    """A whole number that is not negative, given as one or as a text; None if it is none."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value < 10**9 else None


def later_start(value: object, start: int, most: int) -> int | None:
    """Where a page says that the next one begins, None unless after `start` and before `most`."""
    found = number(value)
    return found if found is not None and start < found < most else None


def link(value: object) -> str:
    """An address as the engine gave it, "" if it is none or too long."""
    found = value.strip() if isinstance(value, str) else ""
    return found if len(found) <= MOST_CHARACTERS else ""


def text(value: object) -> str:
    """A text of at most `MOST_CHARACTERS`, "" if it is none."""
    return value.strip()[:MOST_CHARACTERS] if isinstance(value, str) else ""
