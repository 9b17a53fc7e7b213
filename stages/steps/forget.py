"""Step of `pipeline forget`: images out of the crawl, and what was made of them."""

import datetime
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from kd3_pipeline.console import Console, printable
from kd3_pipeline.crawl.blocklist import read_blocklist
from kd3_pipeline.crawl.journal import Journal
from kd3_pipeline.crawl.removal.drop import Dropped, Removals, planned
from kd3_pipeline.crawl.removal.targets import Wanted, blocked, find, removals_of
from kd3_pipeline.crawl.wording import counted
from kd3_pipeline.errors import UserError
from kd3_pipeline.manifest import BLOCKED, FORGOTTEN
from kd3_pipeline.params import Crawl
from kd3_stages import paths
from kd3_stages.steps.lineage import Lineage, lineage_of
from kd3_stages.steps.removal import remove_images

FEW = 6  # addresses shown
MOST_LETTERS = 200  # of a reason


def run(
    section: Crawl, console: Console, what: list[str], blocklist: bool, why: str, dry_run: bool
) -> None:
    """Drops what is named, or what the blocklist refuses, and says what follows.

    Raises:
        UserError: nothing is named, nothing is known of it, or the blocklist cannot be read.
        ExternalError: the disk will not have it.
    """
    if not what and not blocklist:
        raise UserError("forget: name an address, a host or an id", "or give --blocklist")
    if blocklist and not section.blocklist:
        raise UserError("forget --blocklist: crawl.blocklist names no file", "set it")
    with Journal(paths.CACHE / "crawl") as journal:
        with console.progress("forget: looking") as advance:
            listed = Wanted()
            if blocklist:
                rules = read_blocklist(Path(section.blocklist))
                listed = blocked(rules, paths.CRAWL, journal, advance)
            wanted = find(what, paths.MANIFEST, journal)
            reason = printable(why)[:MOST_LETTERS] or "asked for"
            said = f"{datetime.date.today().isoformat()}: {reason}"
            removals = {
                **removals_of(listed, paths.MANIFEST, journal, BLOCKED, ""),
                **removals_of(wanted, paths.MANIFEST, journal, FORGOTTEN, said),
            }
            dropped = planned(paths.CRAWL, journal, removals)
            # pictures of files that an earlier crawl read have no address on record
            dropped = replace(dropped, ids=dropped.ids | listed.ids.keys())
        follows = lineage_of(dropped.ids, dropped.rows > 0)
        if not dry_run:
            remove_images(journal, removals, dropped, console, "forget")
    console.result(
        "\n".join(_told(dropped, removals, wanted.already, follows, dry_run)),
        {
            "images": len(dropped.ids),
            "ids": sorted(dropped.ids),
            "bytes": dropped.bytes,
            "candidates": dropped.rows,
            "addresses": sorted(url for url, one in removals.items() if one.outcome == FORGOTTEN),
            "already": sorted(wanted.already),
            "dry_run": dry_run,
            **follows.values(),
        },
    )


def _told(
    dropped: Dropped,
    removals: Removals,
    already: Collection[str],
    follows: Lineage,
    dry_run: bool,
) -> list[str]:
    size = f"{dropped.bytes / 1e6:,.1f} MB"
    would = "would be " * dry_run
    lines = [
        f"forget: {counted(len(dropped.ids), 'image')} ({size}) {would}dropped,"
        f" {counted(dropped.rows, 'candidate')} {would}marked → {paths.CRAWL}"
    ]
    named = [url for url, one in sorted(removals.items()) if one.outcome == FORGOTTEN]
    lines += [f"    {printable(url)}" for url in named[:FEW]]
    if len(named) > FEW:
        more = counted(len(named) - FEW, "more address", "more addresses")
        lines.append(f"    … and {more}")
    if already:
        lines.append(f"  {len(already):,} dropped before")
    return [*lines, *follows.lines()]
