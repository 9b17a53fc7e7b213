"""A service as tests play it: answers by the fields of the address that an engine asks for."""

import json
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import pytest

from kd3_pipeline.crawl.engines.engine import Engine, Query, Result, ResultPage
from kd3_pipeline.errors import UserError

LONG = "http://0.test/" + "x" * 2000
Fields = dict[str, str]


def body(answer: object) -> bytes:
    return answer if isinstance(answer, bytes) else json.dumps(answer).encode()


def fields(address: str) -> Fields:
    found = parse_qs(urlsplit(address).query, keep_blank_values=True, strict_parsing=True)
    return {name: values[0] for name, values in found.items()}


def asked(engine: Engine, text: str = "cat", start: int | None = None, **more) -> Fields:
    """Fields of the address of one page."""
    return fields(engine.address(Query(text, **more), engine.first if start is None else start))


def read(engine: Engine, answer: object, start: int | None = None, **more) -> ResultPage:
    """One answer as the engine reads it."""
    query = Query("cat", **more)
    return engine.read(body(answer), query, engine.first if start is None else start)


def walk(
    engine: Engine, answer: Callable[[Fields], object], text: str = "cat", pages: int = 60, **more
) -> tuple[list[Result], list[Fields]]:
    """All results of a query, and what was asked, by the engine's own word of where to go on."""
    query, start = Query(text, **more), engine.first
    found, sent = [], []
    for _ in range(pages):
        sent.append(fields(engine.address(query, start)))
        page = engine.read(body(answer(sent[-1])), query, start)
        found += page.results
        if page.next is None:
            return found, sent
        assert page.next > start, "a search would never end"
        start = page.next
    raise AssertionError(f"more than {pages} pages")


def refuses_licences(engine: Engine, licences: str, *unknown: str) -> None:
    for one in (*unknown, "nonsense"):
        with pytest.raises(UserError, match=f"it can: any, {licences}$") as caught:
            engine.address(Query("cat", licence=one), engine.first)
        assert one in str(caught.value)
