"""Images that a person wants out of a crawl: by an address, a host, or an id."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from yarl import URL

from kd3_pipeline.console import Advance, no_progress, printable
from kd3_pipeline.crawl.blocklist import Blocklist, read_blocklist, wire_host
from kd3_pipeline.crawl.journal import Journal
from kd3_pipeline.crawl.removal.drop import (
    MAY_CHANGE,
    SHA256,
    Removal,
    Removals,
    drop,
    forgotten_ids,
    plain_address,
    planned,
)
from kd3_pipeline.crawl.removal.phash_cache import PhashCache
from kd3_pipeline.errors import UserError
from kd3_pipeline.manifest import BLOCKED, FORGOTTEN, Fetched, scan_manifest
from kd3_pipeline.store import open_parquet, read_shard, shard_paths

ID = re.compile(r"[0-9a-fA-F]{8,64}")
PLACES = ("url", "final_url", "original", "page_url")  # columns with addresses of an image
COLUMNS = (*PLACES, "id", "outcome", "detail")
MOST_TOLD = 4  # ids of an ambiguous prefix


@dataclass
class Wanted:
    """Images and addresses that targets name, each with the rule that found it.

    Attributes:
        ids: of images that are stored, or in the journal.
        urls: addresses that have given no image, and may: no later crawl asks them.
        already: ids or addresses that were dropped before.
    """

    ids: dict[str, str] = field(default_factory=dict)
    urls: dict[str, str] = field(default_factory=dict)
    already: set[str] = field(default_factory=set)


def find(targets: Sequence[str], manifest: Path, journal: Journal) -> Wanted:
    """What a person's words mean: an address as it is on record, an id, or a host.

    An address is that of an image, of where it was redirected from, of its original, or of the page
    that shows it; a host is one of these addresses' host, or above it.

    Args:
        manifest: of the crawl; may be missing.

    Raises:
        UserError: nothing is known of a target, or it could be several images.
    """
    wanted = Wanted()
    for target in targets:
        # candidates without a page have an empty address of it, which nobody means
        hit = bool(plain_address(target)) and _by_address(target, manifest, journal, wanted)
        if not hit and ID.fullmatch(target):
            hit = _by_id(target.lower(), manifest, journal, wanted)
        elif not hit and "/" not in target and (host := _named_host(target)):
            hit = _by_host(host, manifest, journal, wanted)
        if not hit:
            raise UserError(
                f"nothing in the crawl has the address, host or id '{printable(target)}'",
                f"ids (8 digits or more) and addresses are in {manifest}",
            )
    return wanted


def blocked(
    blocklist: Blocklist, crawl: Path, journal: Journal, advance: Advance = no_progress
) -> Wanted:
    """All that a blocklist refuses.

    Args:
        advance: called for each image of which the pixels are looked at: of all, where the list has
            perceptual hashes.

    Raises:
        UserError: the manifest or a shard cannot be read.
    """
    wanted = Wanted()
    for row in _rows(crawl / "manifest.parquet", None):
        rule = next(filter(None, (blocklist.host(row[place] or "") for place in PLACES[:3])), "")
        _note(row, rule, wanted)
    wanted.urls.clear()  # of these no crawl asks one, as long as they are in the list
    for record in journal.records.values():
        rule = blocklist.host(record.url) or blocklist.host(record.final_url)
        if rule and record.id is not None:
            wanted.ids.setdefault(record.id, rule)
    for id in _known_ids(crawl, journal):
        if (found := blocklist.id(id)) and found[0] == BLOCKED:
            wanted.ids.setdefault(id, found[1])
    wanted.ids |= alike(blocklist, crawl, journal, frozenset(wanted.ids), advance)
    return wanted


def alike(
    blocklist: Blocklist,
    crawl: Path,
    journal: Journal,
    without: Collection[str] = (),
    advance: Advance = no_progress,
) -> dict[str, str]:
    """Ids of stored images that a perceptual hash refuses, with the rule."""
    found: dict[str, str] = {}
    if not len(blocklist.hashes):
        return found
    seen = set(without)
    with PhashCache(journal.folder / "phash.sqlite") as cache:

        def judge(id: str, read: Callable[[], bytes]) -> None:
            seen.add(id)
            rule = blocklist.alike(cache.of(id, read))
            advance(1)
            if rule:
                found[id] = rule

        for id in journal.images():
            if id not in seen:
                judge(id, partial(journal.read, id))
        for path in shard_paths(crawl) if crawl.exists() else []:
            for image in read_shard(path):
                if image.id not in seen:
                    judge(image.id, partial(bytes, image.data))
    return found


def refusals(
    path: str, journal: Journal, retry: Collection[str], advance: Advance = no_progress
) -> Blocklist:
    """All that a crawl must not store: by the user's list, and what was forgotten before.

    What the journal has of it is dropped from there.

    Args:
        path: of the list; empty for none.
        retry: outcomes that are asked for again; `forgotten` may be one.
        advance: called for each image in the journal that is looked at.

    Raises:
        UserError: the list cannot be read, or a line of it is no rule.
        ExternalError: the disk will not have it.
    """
    rules = read_blocklist(Path(path)) if path else Blocklist()
    if path:
        nowhere = journal.folder / "none"  # the crawl that is there is replaced by the new one
        wanted = blocked(rules, nowhere, journal, advance)
        found = removals_of(wanted, nowhere, journal, BLOCKED, "")
        dropped = planned(nowhere, journal, found)
        # pictures of files have no record
        drop(nowhere, journal, found, replace(dropped, ids=dropped.ids | wanted.ids.keys()))
    gone = frozenset[str]() if FORGOTTEN in retry else forgotten_ids(journal.records.values())
    return replace(rules, forgotten=gone)


def removals_of(
    wanted: Wanted, manifest: Path, journal: Journal, outcome: str, said: str
) -> Removals:
    """Removals for every address of these images, and on the addresses that may give more.

    Args:
        outcome: FORGOTTEN or BLOCKED.
        said: when and why, for the manifest.
    """

    def detail(rule: str, id: str | None) -> str:
        if outcome == BLOCKED:
            return rule
        return "; ".join(filter(None, [said, rule, f"SHA-256 {id}" if id else ""]))

    found: dict[str, Removal] = {
        url: Removal(outcome, detail(rule, None)) for url, rule in wanted.urls.items()
    }
    ids = pa.array(sorted(wanted.ids), pa.string())
    for row in _rows(manifest, pc.field("id").isin(ids)):
        found[plain_address(row["url"])] = Removal(
            outcome, detail(wanted.ids[row["id"]], row["id"])
        )
    for record in journal.records.values():
        if record.id in wanted.ids:
            found[record.url] = Removal(outcome, detail(wanted.ids[record.id], record.id))
    return found


def _named_host(target: str) -> str:
    """The host that a target names, "" if none; `com` and the like are nobody's."""
    of_ipv6 = target.count(":") > 1 and not target.startswith("[")
    host = wire_host(f"https://[{target}]" if of_ipv6 else f"https://{target}")
    return host if "." in host or ":" in host else ""


def _spellings(target: str) -> set[str]:
    """An address as it was given, without a fragment, and as the web spells it."""
    found = {target, plain_address(target)}
    if target.lower().startswith(("http://", "https://")):  # and no name of a file
        with suppress(ValueError):
            found.add(str(URL(plain_address(target))))
    return found


def _by_address(target: str, manifest: Path, journal: Journal, wanted: Wanted) -> bool:
    urls, rule, hit = _spellings(target), f"address {target}", False
    where = None
    for place in PLACES:
        one = pc.field(place).isin(sorted(urls))
        for url in urls:
            one = one | pc.starts_with(pc.field(place), f"{url}#")
        where = one if where is None else where | one
    for row in _rows(manifest, where):
        hit = True
        _note(row, rule, wanted)
    for record in journal.records.values():
        if record.url in urls or record.final_url in urls:
            hit = True
            _note_record(record, rule, wanted)
    return hit


def _by_host(host: str, manifest: Path, journal: Journal, wanted: Wanted) -> bool:
    where = None
    # a quick look before the careful one; names beyond ASCII stand there in two ways
    some = host.rpartition(".")[2] if "xn--" in host else host
    for place in PLACES:
        one = pc.match_substring(pc.field(place), some, ignore_case=True)
        where = one if where is None else where | one
    list_of_one, rule, hit = Blocklist(frozenset([host])), f"host {host}", False
    for row in _rows(manifest, where):
        if any(list_of_one.host(row[place] or "") for place in PLACES):
            hit = True
            _note(row, rule, wanted)
    for record in journal.records.values():
        if list_of_one.host(record.url) or list_of_one.host(record.final_url):
            hit = True
            _note_record(record, rule, wanted)
    return hit


def _by_id(prefix: str, manifest: Path, journal: Journal, wanted: Wanted) -> bool:
    ids: set[str] = {row["id"] for row in _rows(manifest, pc.starts_with(pc.field("id"), prefix))}
    gone: set[str] = set()
    for row in _rows(manifest, pc.field("outcome") == FORGOTTEN):
        gone |= set(SHA256.findall(row["detail"] or ""))
    for record in journal.records.values():
        if record.id is not None and record.id.startswith(prefix):
            ids.add(record.id)
        elif record.outcome == FORGOTTEN:
            gone |= set(SHA256.findall(record.detail))
    gone = {id for id in gone if id.startswith(prefix)}
    if len(ids | gone) > 1:
        told = ", ".join(sorted(ids | gone)[:MOST_TOLD])
        raise UserError(f"{prefix} may be {len(ids | gone):,} images: {told}", "give more digits")
    wanted.ids |= dict.fromkeys(ids, f"id {prefix}")
    wanted.already |= gone - ids
    return bool(ids | gone)


def _note(row: Mapping[str, Any], rule: str, wanted: Wanted) -> None:
    """Takes in a row of the manifest."""
    if not rule:
        return
    url = plain_address(row["url"] or "")
    if row["id"] is not None:
        wanted.ids.setdefault(row["id"], rule)
    elif row["outcome"] in (FORGOTTEN, BLOCKED):
        wanted.already.add(url)
    elif row["outcome"] in MAY_CHANGE:
        wanted.urls.setdefault(url, rule)


def _note_record(record: Fetched, rule: str, wanted: Wanted) -> None:
    if record.id is not None:
        wanted.ids.setdefault(record.id, rule)
    elif record.outcome == FORGOTTEN:
        wanted.already.add(record.url)


def _known_ids(crawl: Path, journal: Journal) -> Iterable[str]:
    ids = set(journal.images())
    for path in shard_paths(crawl) if crawl.exists() else []:
        with open_parquet(path) as file:
            ids |= set(file.read(columns=["id"])["id"].to_pylist())
    return sorted(ids)


def _rows(manifest: Path, where: pc.Expression | None) -> Iterable[dict[str, Any]]:
    if not manifest.exists():
        return
    for batch in scan_manifest(manifest, COLUMNS, where):
        yield from batch.to_pylist()
