"""Removal of images from data/crawl, after which reports/crawl.json tells what is left."""

import json
from typing import Any

import pyarrow as pa

from kd3_pipeline.console import Console
from kd3_pipeline.crawl.journal import Journal
from kd3_pipeline.crawl.pack import summary
from kd3_pipeline.crawl.removal.drop import Dropped, Removals, drop
from kd3_pipeline.crawl.shortfall import HALF
from kd3_pipeline.manifest import class_names
from kd3_pipeline.store import write_json
from kd3_stages import paths


def remove_images(
    journal: Journal, removals: Removals, dropped: Dropped, console: Console, title: str
) -> None:
    """Drops images from data/crawl, with progress, and counts anew in reports/crawl.json.

    Args:
        title: the command, for progress and as the reason of classes that lose some.
    """
    with console.progress(f"{title}: writing") as advance:
        drop(paths.CRAWL, journal, removals, dropped, advance)
    if dropped.manifest is not None:
        _count_anew(dropped.manifest, title)


def _count_anew(manifest: pa.Table, by: str) -> None:
    """Counts in reports/crawl.json what the manifest says now; what else is there stays.

    Args:
        by: the command that dropped images, named as the reason of classes that lost some.
    """
    path = paths.summary("crawl")
    try:
        before = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        before = {}
    old = {one["name"]: one for one in before.get("classes", [])}
    names = list(old)
    if not names:
        known = class_names(paths.MANIFEST)
        names = [known.get(label, "") for label in range(max(known, default=-1) + 1)]
    now = summary(manifest, names)
    now["classes"] = [_with_loss(old.get(one["name"], {}), one, by) for one in now["classes"]]
    for key, chosen in (("empty", _is_empty), ("short", _is_short)):
        if key in before:
            now[key] = [one["name"] for one in now["classes"] if chosen(one)]
    write_json(path, before | now)


def _with_loss(old: dict[str, Any], now: dict[str, Any], by: str) -> dict[str, Any]:
    """A class as it is now, with what is known of it from before."""
    one = old | now
    lost = old.get("stored", 0) - now["stored"]
    if lost > 0 and (one.get("wanted") or 0) > now["stored"]:
        said = f"{lost:,} dropped by `pipeline {by}`"
        one["why"] = "; ".join(filter(None, [old.get("why", ""), said]))
    return one


def _is_empty(one: dict[str, Any]) -> bool:
    return not one["stored"]


def _is_short(one: dict[str, Any]) -> bool:
    return one.get("wanted") is not None and one["stored"] < HALF * one["wanted"]
