"""Base of the search engines, and what their parsers have in common."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from urllib.parse import urlencode

from pipeline.errors import UserError

MOST_CHARACTERS = 2000  # of an address, which is left out when longer, or of a text, which is cut


@dataclass(frozen=True, slots=True)
class Result:
    """One search result, as the engine gave it. All text is hostile."""

    url: str
    page_url: str = ""
    title: str = ""
    thumbnail: str = ""
    licence: str = ""
    licence_url: str = ""
    creator: str = ""


class Unreadable(Exception):
    """A page is none that this engine's parser knows: a captcha, an error, or a new layout."""


class Engine(ABC):
    """Base of search engines: the addresses of their result pages, and how to read them.

    A new engine is a subclass in a file of this package, and a line in pipeline/registry.py.
    """

    name: str  # in params.yaml and in the manifest
    host: str  # for messages
    page_gap = 1.0  # seconds between two pages
    note = ""  # what its users have to know, such as its terms
    headers: Mapping[str, str] = MappingProxyType({})  # sent with every page
    secrets: Mapping[str, str] = MappingProxyType({})  # added to the address asked for, never kept

    @abstractmethod
    def pages(self, query: str, wanted: int, licence: str) -> Iterator[str]:
        """Addresses of the result pages of a query, in order, for `wanted` results or more.

        Raises:
            UserError: the engine cannot filter by this licence.
        """

    @abstractmethod
    def results(self, page: bytes) -> list[Result]:
        """The results of one page, none past the last. Malformed ones are left out.

        Any bytes are survived.

        Raises:
            Unreadable: the page is no result page of this engine.
        """


def address(base: str, **fields: object) -> str:
    """`base` with a query string of `fields`."""
    return f"{base}?{urlencode(fields, errors='replace')}"


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
    """
    try:
        found = json.loads(page)
    except (ValueError, RecursionError):
        raise Unreadable("it is no JSON" if page.strip() else "it is empty") from None
    if not isinstance(found, dict):
        raise Unreadable("it is no JSON object")
    return found


def objects(value: object) -> list[dict[str, Any]]:
    """The JSON objects of a list; none where there is no list."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def link(value: object) -> str:
    """An address as the engine gave it, "" if it is none or too long."""
    found = value.strip() if isinstance(value, str) else ""
    return found if len(found) <= MOST_CHARACTERS else ""


def text(value: object) -> str:
    """A text of at most `MOST_CHARACTERS`, "" if it is none."""
    return value.strip()[:MOST_CHARACTERS] if isinstance(value, str) else ""
