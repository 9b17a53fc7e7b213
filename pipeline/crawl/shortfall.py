"""Wanted, got, and why: what a crawl says of classes that have fewer images than were asked for."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kd3_pipeline.console import printable, text_table
from kd3_pipeline.crawl.gather import Gathered
from kd3_pipeline.crawl.search_account import ClassAccount, SearchAccount
from kd3_pipeline.crawl.wording import clock, counted, iso
from kd3_pipeline.manifest import DUPLICATE, NOT_NEEDED, NOT_NOW, STORED, host_of

HALF = 0.5  # of the images wanted; with fewer, a class is called short
MOST_ROWS = 20  # classes in a table; with more, those that are full are one row
MOST_TOLD = 20  # classes of which it is said why; with more, those that lack most
MOST_DETAILED = 5  # classes of which the queries are told one by one
MOST_REASONS, MOST_HOSTS = 3, 2  # named in a sentence
GOOD = {STORED, NOT_NOW, NOT_NEEDED}  # outcomes that are no failure


def add_shortfall(summary: dict[str, Any], table: pa.Table, gathered: Gathered) -> None:
    """Adds to the summary of a crawl what was wanted of each class, and why there is less.

    Args:
        table: the manifest.
    """
    account, wanted = gathered.account, gathered.wanted
    summary["later"] = {
        **gathered.later,
        "pages": account.waiting if account is not None else 0,
        "again_at": iso(account.again_at) if account is not None else None,
    }
    summary["refused"] = printable(account.refused) if account is not None else ""
    waiting = _hosts_by_class(table.filter(pc.field("outcome") == NOT_NOW))
    for index, one in enumerate(summary["classes"]):
        one["wanted"] = wanted[index] if wanted else None
        searched = account.classes[index] if account is not None else None
        one["results"] = searched.results if searched else sum(one["outcomes"].values())
        full = one["wanted"] is None or one["stored"] >= one["wanted"]
        said = [
            _put_off(waiting.get(one["name"], Counter()), gathered.later["hosts"]),
            _found(one["results"], account, searched),
            *_useless(one["outcomes"]),
        ]
        one["why"] = "" if full else printable("; ".join(filter(None, said)))
        one["queries"] = [] if searched is None else _queries(searched)
    summary["empty"] = [one["name"] for one in summary["classes"] if not one["stored"]]
    summary["short"] = [
        one["name"]
        for one in summary["classes"]
        if one["wanted"] is not None and one["stored"] < HALF * one["wanted"]
    ]


def shortfall_lines(summary: Mapping[str, Any]) -> list[str]:
    """Wanted, got and why of the classes that are not full, in lines for a person."""
    classes = _short(summary, MOST_TOLD)
    lines = []
    for one in classes[:MOST_TOLD]:
        name = printable(one["name"])
        lines.append(f"{name}: {one['stored']:,} of {one['wanted']:,} images: {one['why']}")
        if len(classes) <= MOST_DETAILED:
            lines += _query_lines(one["queries"])
    if len(classes) > MOST_TOLD:
        lines.append(f"… and {len(classes) - MOST_TOLD:,} more classes")
    if len(classes) > MOST_DETAILED:
        lines.append("reports/crawl.json has every class and query")
    return lines


def class_table(summary: Mapping[str, Any]) -> str:
    """Counts by class and outcome as text; of many classes, the full ones in one row."""
    kinds = [STORED, *(kind for kind in summary["outcomes"] if kind != STORED)]
    classes = summary["classes"]
    wanted = any(one.get("wanted") is not None for one in classes)
    rows = [["class", *(["wanted"] if wanted else []), *kinds]]
    shown, rest = classes, []
    if len(classes) > MOST_ROWS and wanted:
        shown = _short(summary, MOST_ROWS)
        shown, cut = shown[:MOST_ROWS], shown[MOST_ROWS:]
        full = [one for one in classes if not one["why"]]
        rest = [(f"{len(cut):,} more", cut), (f"{len(full):,} full classes", full)]
    entries = [(one["name"], [one]) for one in shown] + [entry for entry in rest if entry[1]]
    for name, group in entries:
        counts = sum((Counter(one["outcomes"]) for one in group), Counter[str]())
        asked = [f"{sum(one['wanted'] for one in group):,}"] if wanted else []
        rows.append([printable(name), *asked, *(f"{counts[kind]:,}" for kind in kinds)])
    total = [f"{sum(one['wanted'] for one in classes):,}"] if wanted else []
    named = sum((Counter(one["outcomes"]) for one in classes), Counter[str]())
    if nameless := Counter(summary["outcomes"]) - named:
        rows.append(["none", *[""] * len(total), *(f"{nameless[kind]:,}" for kind in kinds)])
    rows.append(["all", *total, *(f"{summary['outcomes'].get(kind, 0):,}" for kind in kinds)])
    return text_table(rows)


def later_line(summary: Mapping[str, Any]) -> str:
    """What was put off, and when to run the command again; "" if nothing was."""
    later = summary["later"]
    kinds = [
        (later["images"], "image", "images"),
        (later["pages"], "page of results", "pages of results"),
    ]
    if summary.get("refused"):
        kinds = kinds[:1]  # running it again will not help with the others
    parts = [counted(*kind) for kind in kinds if kind[0]]
    if not parts:
        return ""
    when = when_again(later)
    hosts = ", ".join(f"{printable(host)} {one['images']:,}" for host, one in _most(later["hosts"]))
    where = f" ({hosts})" if hosts else ""
    return (
        f"put off: {' and '.join(parts)}{where}: run the same command again {when}; it asks only"
        " for what is left"
    )


def when_again(later: Mapping[str, Any]) -> str:
    """When what was put off may be asked for, as far as the engine and the hosts said so."""
    said = [one.get("again_at") for one in (later, *later.get("hosts", {}).values())]
    times = [time for time in said if time]
    return f"after {_clock(max(times, key=datetime.fromisoformat))}" if times else "in some minutes"


def warning(summary: Mapping[str, Any]) -> str:
    """What nobody may miss about classes with less than half of their images; "" without such."""
    short = [one for one in summary["classes"] if one["name"] in set(summary["short"])]
    if not short:
        return ""
    named = ", ".join(
        f"{printable(one['name'])} {one['stored']:,} of {one['wanted']:,}" for one in short[:10]
    )
    more = f", and {len(short) - 10:,} more" if len(short) > 10 else ""
    classes = f"{len(short):,} of {len(summary['classes']):,} classes"
    return f"{classes} have less than half of the images wanted: {named}{more}"


def _short(summary: Mapping[str, Any], most: int) -> list[Any]:
    """The classes that are not full, in order; where that is too long, those that lack most first.

    Args:
        most: how many are shown.
    """
    classes = [one for one in summary["classes"] if one["why"]]
    if len(classes) > most:
        classes.sort(key=lambda one: one["stored"] / one["wanted"])
    return classes


def _put_off(images: Counter[str], hosts: Mapping[str, Any]) -> str:
    if not images:
        return ""
    named = []
    for host, _ in images.most_common(MOST_HOSTS):
        again_at = hosts.get(host, {}).get("again_at")
        named.append(host + (f" until {_clock(again_at)}" if again_at else ""))
    more = len(images) - MOST_HOSTS
    others = f" and {counted(more, 'more host')}" if more > 0 else ""
    count = images.total()
    return f"{counted(count, 'image')} put off by {', '.join(named)}{others}"


def _found(results: int, account: SearchAccount | None, searched: ClassAccount | None) -> str:
    if account is not None and searched is not None:
        return account.why(searched)
    return f"{counted(results, 'address', 'addresses')} listed for it"


def _useless(outcomes: Mapping[str, int]) -> list[str]:
    kinds = Counter({kind: n for kind, n in outcomes.items() if kind not in GOOD})
    said = []
    if copies := kinds.pop(DUPLICATE, 0):
        said.append(f"{copies:,} gave an image that the crawl had")
    if kinds:
        counts = [f"{n:,} {kind}" for kind, n in kinds.most_common(MOST_REASONS)]
        reasons = ", ".join(counts if len(kinds) > 1 else kinds)
        said.append(f"{kinds.total():,} gave none ({reasons})")
    return said


def _queries(searched: ClassAccount) -> list[dict[str, Any]]:
    return [
        {
            "query": query.query,
            "variant": query.variant,
            "results": query.results,
            "new": query.brought,
            "ended": printable(query.ended) or "enough were found",
        }
        for query in searched.queries
    ]


def _query_lines(queries: Sequence[Mapping[str, Any]]) -> list[str]:
    """The class's own queries one by one, and its variations together."""
    own = [one for one in queries if not one["variant"]]
    lines = [
        f"  '{printable(one['query'])}': {one['results']:,} results; {one['ended']}" for one in own
    ]
    varied = [one for one in queries if one["variant"]]
    if varied:
        useful = [one for one in varied if one["new"]]
        named = ", ".join(f"{one['variant']} {one['new']:,}" for one in useful[:MOST_REASONS])
        more = ", …" if len(useful) > MOST_REASONS else ""
        count = sum(one["new"] for one in varied)
        lines.append(
            f"  its {counted(len(varied), 'variation')}: {count:,} new results"
            + (f" ({named}{more})" if useful else "")
        )
    return lines


def _hosts_by_class(later: pa.Table) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    for name, url in zip(later["class"].to_pylist(), later["url"].to_pylist(), strict=True):
        found.setdefault(name, Counter())[host_of(url)] += 1
    return found


def _most(hosts: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    return list(hosts.items())[:MOST_REASONS]


def _clock(moment: str) -> str:
    return clock(datetime.fromisoformat(moment).timestamp())
