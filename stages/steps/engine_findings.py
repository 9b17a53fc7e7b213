"""What `pipeline doctor --engine` found, as lines for a person and as one JSON object."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from kd3_pipeline.console import printable
from kd3_pipeline.crawl.engines.engine import Engine, Result
from kd3_pipeline.params import Crawl

FEW = 3  # addresses shown
MOST_LICENCES = 8  # shown


@dataclass
class Findings:
    """What the pages of one engine show; `problems` are (what, what to do)."""

    address: str = ""
    status: int = 0
    size: int = 0
    results: list[Result] = field(default_factory=list)
    second: dict[str, Any] = field(default_factory=dict)
    canary: dict[str, Any] = field(default_factory=dict)
    problems: list[tuple[str, str]] = field(default_factory=list)


def lines(engine: Engine, section: Crawl, query: str, found: Findings) -> list[str]:
    """What is said to a person."""
    said = f"{engine.name}: '{query}': HTTP {found.status}, {found.size:,} bytes"
    licences = _licences(found.results)
    shown, more = ", ".join(licences[:MOST_LICENCES]), len(licences) - MOST_LICENCES
    budget, pace = engine.budget, f"a page every {engine.page_gap:g} s"
    return [
        f"{said}, {len(found.results)} results",
        *(f"  {printable(one.url)}" for one in found.results[:FEW]),
        f"  licences: {printable(shown) or 'none told'}"
        + (f" and {more} more" if more > 0 else ""),
        f"  second page: {_second(found.second)}",
        f"  canary: {_canary(found.canary)}",
        f"  budget: {budget.page_results:,} results a page, {budget.query_results:,} a query;"
        f" {limits(engine)}" + (f" ({budget.source})" if budget.source else ""),
        f"  pace: {pace if engine.page_gap else 'no pause between pages'}",
        f"  contact: {_contact(engine, section)}",
        f"  key: {_key(engine)}",
    ]


def _second(second: dict[str, Any]) -> str:
    if not second:
        return "not read"
    if not second["asked"]:
        return "none, by what the first one says"
    if "ended" in second:
        return f"none: {second['ended']}"
    return f"{second['results']} results, {second['new']} of them new"


def _canary(canary: dict[str, Any]) -> str:
    if not canary:
        return "not asked"
    first, second = canary["queries"]
    if canary["alarm"]:
        return f"failed: {canary['alarm']}"
    return f"passed: '{first}' and '{second}' bring different images"


def limits(engine: Engine) -> str:
    """How often an engine may be asked, as it states it."""
    budget = engine.budget
    rates = [
        f"{count:,g} requests a {unit}"
        for count, unit in ((budget.per_minute, "minute"), (budget.per_day, "day"))
        if count
    ]
    return f"its limits: {', '.join(rates)}" if rates else "it states no limits"


def _contact(engine: Engine, section: Crawl) -> str:
    needed = "needed" if engine.budget.contact else "not needed"
    given = "set" if section.contact else "not set, so that site owners cannot reach you"
    return f"{needed}; crawl.contact is {given}"


def _key(engine: Engine) -> str:
    if not engine.budget.key:
        return "none needed"
    return f"{engine.budget.key} is {'set' if _key_set(engine) else 'not set'}"


def _key_set(engine: Engine) -> bool:
    return bool(os.environ.get(engine.budget.key, "").strip())


def _licences(results: Sequence[Result]) -> list[str]:
    return sorted({one.licence for one in results if one.licence})


def values(engine: Engine, section: Crawl, query: str, found: Findings) -> dict[str, Any]:
    """The same as one JSON object."""
    budget = engine.budget
    return {
        "ok": not found.problems,
        "engine": engine.name,
        "query": query,
        "address": found.address,
        "status": found.status,
        "bytes": found.size,
        "results": len(found.results),
        "urls": [one.url for one in found.results[:FEW]],
        "licences": _licences(found.results),
        "second_page": found.second,
        "canary": found.canary,
        "budget": asdict(budget),
        "pace": engine.page_gap,
        "contact": {"needed": budget.contact, "set": bool(section.contact)},
        "key": {"name": budget.key, "set": _key_set(engine)},
        "problems": [{"what": what, "hint": hint} for what, hint in found.problems],
    }
