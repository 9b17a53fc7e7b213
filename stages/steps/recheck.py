"""Step of `pipeline recheck`: signals of all that is kept, asked anew, and what has closed goes."""

import datetime
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kd3_pipeline.classes import load_classes
from kd3_pipeline.console import Console, printable
from kd3_pipeline.crawl.guard import HostTable
from kd3_pipeline.crawl.journal import Journal
from kd3_pipeline.crawl.optouts.signals import kind_of
from kd3_pipeline.crawl.removal.drop import Dropped, planned
from kd3_pipeline.crawl.removal.recheck import (
    Finding,
    Kept,
    Log,
    kept_addresses,
    recheck,
    removals_of_closed,
)
from kd3_pipeline.crawl.wording import counted
from kd3_pipeline.errors import ExternalError
from kd3_pipeline.manifest import host_of
from kd3_pipeline.params import Crawl
from kd3_stages import paths, sources
from kd3_stages.steps.lineage import Lineage, lineage_of
from kd3_stages.steps.removal import remove_images

MOST_TOLD = 8  # hosts
FINDINGS = {  # in the order in which they are told
    "open": "open",
    "closed": "closed since",
    "gone": "gone from the web: kept",
    "unknown": "without an answer: kept, and asked by the next recheck",
}


def run(section: Crawl, console: Console, dry_run: bool) -> None:
    """Asks for all images that are kept, and drops those that have closed.

    Raises:
        UserError: there is no crawl.
        ExternalError: no host answers, or the disk will not have it.
    """
    every = kept_addresses(paths.MANIFEST)
    kept = [one for one in every if one.asked]
    with Log(_log_of(section)) as log:
        with (
            _hosts(section, console, every) as hosts,
            console.progress("recheck", sum(not log.known(one) for one in kept)) as advance,
        ):
            web = sources.web_of(section, console, hosts)
            # the demo's hosts are this process's own
            limits = {"host_gap": 0.0} if hosts else {}
            recheck(kept, section.model_copy(update=limits), web, log, advance)
        heard = [log.heard[one.url] for one in kept]
        if heard and all(one.state == "unknown" for one in heard):
            raise ExternalError(
                f"recheck: none of {len(heard):,} addresses answers: {printable(heard[0].detail)}",
                "see the network; the same command asks again",
            )
        with Journal(paths.CACHE / "crawl") as journal:
            removals = removals_of_closed(heard, datetime.date.today())
            dropped = planned(paths.CRAWL, journal, removals)
            follows = lineage_of(dropped.ids, dropped.rows > 0)
            if not dry_run:
                remove_images(journal, removals, dropped, console, "recheck")
                log.clear()
    nowhere = len(every) - len(kept)
    lines = _told(heard, nowhere, dropped, dry_run) + follows.lines()
    console.result("\n".join(lines), _values(heard, nowhere, dropped, follows, dry_run))


def _log_of(section: Crawl) -> Path:
    """Where is noted what was heard, for the same opt-outs."""
    obeyed = f"{section.opt_outs} {section.robots} {section.ai_agents}"
    return paths.CACHE / "recheck" / f"{hashlib.sha256(obeyed.encode()).hexdigest()[:16]}.jsonl"


@contextmanager
def _hosts(section: Crawl, console: Console, every: Sequence[Kept]) -> Iterator[HostTable]:
    """Names of hosts on loopback, while the demo's web is up; none for other crawls."""
    classes = load_classes(section.classes) if section.engine in ("auto", "demo") else None
    if classes is not None and every and sources.engine_name(section, classes) == "demo":
        with sources.engine_for(section, classes, console) as (_, hosts):
            yield hosts
    else:
        yield {}


def _told(heard: list[Finding], nowhere: int, dropped: Dropped, dry_run: bool) -> list[str]:
    counts = Counter[str](one.state for one in heard)
    lines = [f"recheck: {len(heard):,} addresses of {paths.CRAWL}"]
    lines += [f"  {counts[name]:,} {said}" for name, said in FINDINGS.items() if counts[name]]
    closed = Counter(kind_of(one.detail) for one in heard if one.state == "closed")
    if closed:
        kinds = ", ".join(f"{count:,} {printable(kind)}" for kind, count in closed.most_common())
        lines.append(f"    by {kinds}")
    lines += [
        f"    {printable(host) or 'no host'}: {count:,}, {printable(why)}"
        for host, count, why in _silent(heard)[:MOST_TOLD]
    ]
    if nowhere:
        lines.append(f"  {nowhere:,} come from files, with no address to ask")
    would = "would be " * dry_run
    lines.append(
        f"  {counted(len(dropped.ids), 'image')} ({dropped.bytes / 1e6:,.1f} MB) {would}dropped,"
        f" {counted(dropped.rows, 'candidate')} {would}marked"
    )
    return lines


def _silent(heard: list[Finding]) -> list[tuple[str, int, str]]:
    """Hosts without an answer, how many addresses each has, and the first reason."""
    counts, whys = Counter[str](), dict[str, str]()
    for one in heard:
        if one.state == "unknown":
            host = host_of(one.url)
            counts[host] += 1
            whys.setdefault(host, one.detail)
    return [(host, count, whys[host]) for host, count in counts.most_common()]


def _values(
    heard: list[Finding], nowhere: int, dropped: Dropped, follows: Lineage, dry_run: bool
) -> dict[str, Any]:
    counts = Counter[str](one.state for one in heard)
    return {
        **{name: counts[name] for name in FINDINGS},
        "without_address": nowhere,
        "closed_by": dict(Counter(kind_of(one.detail) for one in heard if one.state == "closed")),
        "images": len(dropped.ids),
        "ids": sorted(dropped.ids),
        "bytes": dropped.bytes,
        "candidates": dropped.rows,
        "dry_run": dry_run,
        **follows.values(),
    }
