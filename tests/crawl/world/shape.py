"""What a search service is asked and answers, whatever its pages look like."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from kd3_pipeline.crawl.engines.engine import Engine

SERVICE, IMAGES = "search.test", "images.test"  # names of the two hosts
BASE = f"http://{SERVICE}/x"


@dataclass(frozen=True)
class Question:
    """A request for a page of results, as a service understands it.

    Attributes:
        query: the words, without a service's own filters.
        filters: these filters, "" without any.
        start: number of the first result that is wanted, from 0.
        number: requests so far, this one included.
        times: requests for this page so far, this one included.
        seconds: since the service began.
    """

    query: str
    filters: str
    start: int
    number: int = 0
    times: int = 0
    seconds: float = 0.0
    headers: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """An answer over HTTP."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class Shape(ABC):
    """The form of one service's questions and answers."""

    name: str
    page_results: int

    @abstractmethod
    def engine(self) -> Engine:
        """The project's engine that asks this service."""

    @abstractmethod
    def question(self, fields: Mapping[str, str]) -> Question:
        """What the fields of an address ask for."""

    @abstractmethod
    def page(self, asked: Question, urls: Sequence[str], total: int, start: int) -> Answer:
        """Results from number `start` on, of `total`."""

    @abstractmethod
    def busy(self) -> Answer:
        """ "Not now", with status 200."""

    @abstractmethod
    def odd(self) -> Answer:
        """A body that is neither results nor an error, with status 200."""

    def nothing(self, asked: Question) -> Answer:
        """A page of no results."""
        return self.page(asked, [], 0, asked.start)

    def limited(self, seconds: int, told: bool) -> Answer:
        """Too many requests; `told` names the pause in a header."""
        headers = {"Retry-After": str(seconds)} if told else {}
        return Answer(b"Too many requests\n", 429, headers)


def as_json(value: object, status: int = 200) -> Answer:
    """An answer in JSON."""
    headers = {"Content-Type": "application/json; charset=utf-8"}
    return Answer(json.dumps(value).encode(), status, headers)


def picture_url(query: str, filters: str, number: int) -> str:
    """Address of a picture at the image host, another one for every query, filter and number."""
    folder = quote(f"{query} {filters}".strip().replace(" ", "_"), safe="")
    return f"http://{IMAGES}/{folder}/{number}.jpg"
