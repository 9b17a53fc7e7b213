"""Tables of results as Markdown, in pages, between marks: no figure is written by hand.

A page has `<!-- table: PAIR LENGTH-UNIT -->` and `<!-- end of table -->` where a table belongs.
"""

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy.stats import t

from benchmarks.cifar10.rows import Row
from kd3_pipeline.store import write_text

MARKED = re.compile(
    r"(<!-- table: (?P<pair>\S+) (?P<length>\d+)-(?P<unit>steps|seconds) -->\n).*?"
    r"(?=<!-- end of table -->)",
    re.DOTALL,
)
BEFORE = "kd3-before"
PLAIN, REFINED = "plain", "refined"  # the bases of single ideas
REFERENCE = ("originals", BEFORE)  # pool and method that all others are beside
NONE = "No row of this table has been run yet.\n"
HEAD = (
    *("images", "method", "test accuracy by seed", "mean", "beside `kd3` on the originals"),
    *(
        "beside `kd3` as it was",
        "beside `plain`",
        "beside `refined`",
        "held-out agreement",
        "steps",
        "seconds",
        "parameters",
        "leaked",
    ),
)
Result = dict[str, Any]
Runs = dict[int, Result]  # by seed


def render(path: Path, rows: Iterable[Row], done: Mapping[str, Result]) -> bool:
    """Writes the tables of a page anew; returns whether anything has changed."""
    old = path.read_text("utf-8")
    new = rendered(old, rows, done)
    if new != old:
        write_text(path, new)
    return new != old


def rendered(text: str, rows: Iterable[Row], done: Mapping[str, Result]) -> str:
    """The text of a page with its tables written anew.

    Args:
        done: results by the key of their row; those that no row has any more are in no table.
    """
    known = list(rows)

    def put(found: re.Match[str]) -> str:
        wanted = (found["pair"], int(found["length"]), found["unit"])
        same = [row for row in known if (row.pair, row.length, row.unit) == wanted]
        return found[1] + table(same, done)

    return MARKED.sub(put, text)


def table(rows: Iterable[Row], done: Mapping[str, Result]) -> str:
    """Markdown of the results of rows of one pair and length, a line for each pool and method.

    Means have 95% intervals by Student's t; differences are paired by seed.
    """
    groups: dict[tuple[str, str], Runs] = {}
    for row in rows:
        if row.key in done:
            groups.setdefault((row.pool, row.method), {})[row.seed] = done[row.key]
    if not groups:
        return NONE
    lines = [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    for (pool, method), runs in groups.items():
        reference = {} if (pool, method) == REFERENCE else groups.get(REFERENCE, {})
        compared = method != BEFORE and pool != REFERENCE[0]
        before = groups.get((pool, BEFORE), {}) if compared else {}
        plain = groups.get((pool, PLAIN), {}) if method != PLAIN else {}
        refined = groups.get((pool, REFINED), {}) if method not in (PLAIN, REFINED) else {}
        cells = [
            f"{pool}, {_range(runs, 'images')}",
            method,
            ", ".join(f"{_percent(one):.2f}" for one in runs.values()),
            interval([_percent(one) for one in runs.values()]),
            difference(runs, reference),
            difference(runs, before),
            difference(runs, plain),
            difference(runs, refined),
            _mean(runs, "agreement", "{:.3f}"),
            _range(runs, "steps"),
            _mean(runs, "seconds", "{:,.0f}"),
            _range(runs, "parameters"),
            _range(runs, "leaked"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    made = _made_with([one for runs in groups.values() for one in runs.values()])
    return "\n".join([*lines, "", made]) + "\n"


def difference(runs: Runs, others: Runs) -> str:
    """Mean difference in points over the seeds that both have, with its interval."""
    both = [seed for seed in runs if seed in others]
    return interval([_percent(runs[seed]) - _percent(others[seed]) for seed in both], sign="+")


def interval(values: Sequence[float], sign: str = "") -> str:
    """Mean and 95% interval by Student's t; of one value no interval, of none nothing.

    mean ± t(0.975, n − 1) s / √n
    """
    if not values:
        return ""
    mean = f"{statistics.mean(values):{sign}.2f}"
    if len(values) < 2:
        return mean
    half = t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean} ± {half:.2f}"


def _percent(result: Result) -> float:
    return 100 * float(result["ran"]["accuracy"])


def _mean(runs: Runs, name: str, form: str) -> str:
    known = [one["ran"][name] for one in runs.values() if one["ran"][name] is not None]
    return form.format(statistics.mean(known)) if known else ""


def _range(runs: Runs, name: str) -> str:
    found = sorted({one["ran"][name] for one in runs.values()})
    return f"{found[0]:,}" if len(found) == 1 else f"{found[0]:,} to {found[-1]:,}"


def _made_with(results: Sequence[Result]) -> str:
    """Where and by which commits results were made."""
    places: dict[str, set[str]] = {}
    for one in results:
        on = one["on"]
        place = f"{on['processor']}, {on['threads']} threads, torch {on['torch']}"
        places.setdefault(place, set()).add(on["commit"][:7] + "+" * on["commit"].endswith("+"))
    told = [f"{place}; commit {', '.join(sorted(found))}" for place, found in places.items()]
    tested = sorted({f"{one['ran']['test_images']:,}" for one in results})
    again = f"{results[0]['pair']}.POOL.METHOD"
    return (
        f"{'; '.join(told)}; {' and '.join(tested)} test images. To run a line again:"
        f" `make table ONLY={again} AGAIN=1`."
    )
