"""Addresses of a crawl that are asked anew whether their images may still be used.

What is heard is a line in a file at once, so that a recheck that was interrupted goes on. Of what
is not heard nothing follows, and the next recheck asks again.
"""

import asyncio
import datetime
import json
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import pyarrow.compute as pc

from kd3_pipeline.console import Advance, no_progress
from kd3_pipeline.crawl.disk import writing
from kd3_pipeline.crawl.guard import Forbidden, check_url
from kd3_pipeline.crawl.http import Client, Web
from kd3_pipeline.crawl.optouts.current import CurrentSignals, Now
from kd3_pipeline.crawl.removal.drop import Removal, plain_address
from kd3_pipeline.manifest import ARRIVED, OPTED_OUT, scan_manifest
from kd3_pipeline.params import Crawl

HOSTS_AT_ONCE = 64
PATIENCE = 5  # addresses in a row of which a host says nothing, before it is left alone
FRESH = 86_400.0  # seconds for which an unfinished recheck is gone on with
SYNC_EVERY = 256  # lines that a power cut may lose; they are asked again
ROBOTS = "robots"  # outcome of what robots.txt disallows, as a crawl has it
State = Literal["open", "closed", "gone", "unknown"]


@dataclass(frozen=True, slots=True)
class Kept:
    """An address that has given an image; `asked` is where the question goes.

    `asked` differs for files, which have come from an address before they came here. `signals` are
    those on record.
    """

    url: str
    asked: str
    id: str
    signals: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What an address says now."""

    url: str
    id: str
    state: State
    detail: str = ""
    signals: str = ""


def kept_addresses(manifest: Path) -> list[Kept]:
    """The addresses of all images that are kept, each once, in the order of the manifest."""
    columns, found = ["url", "final_url", "id", "signals"], dict[str, Kept]()
    for batch in scan_manifest(manifest, columns, pc.field("outcome").isin(ARRIVED)):
        for row in batch.to_pylist():
            url = plain_address(row["url"])
            asked = url if _is_address(url) else row["final_url"] or ""
            if row["id"] and url not in found:
                found[url] = Kept(url, asked, row["id"], row["signals"] or "")
    return list(found.values())


def _is_address(text: str) -> bool:
    return text.lower().startswith(("http://", "https://"))


class Log:
    """What a recheck has heard so far, in a file; for a `with` block."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.heard: dict[str, Finding] = {}
        self.closed = 0  # addresses
        self._lines = 0

    def __enter__(self) -> "Log":
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists() and time.time() - self.path.stat().st_mtime > FRESH:
                self.path.unlink()  # what was heard then need not hold now
            self._file = self.path.open("a+b", buffering=0)
            self._file.seek(0)
            end = 0
            for line in self._file.read().splitlines(keepends=True):
                if not line.endswith(b"\n"):
                    break  # cut off when the process died
                end += len(line)
                with suppress(ValueError, TypeError):  # of another version: it is asked again
                    self._note(Finding(**json.loads(line)))
            self._file.truncate(end)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, one: Finding) -> None:
        """Notes what an address says.

        Raises:
            ExternalError: the disk will not have it.
        """
        with writing(self.path):
            self._file.write(json.dumps(asdict(one)).encode() + b"\n")
            self._lines += 1
            if self._lines % SYNC_EVERY == 0:
                os.fsync(self._file.fileno())
        self._note(one)

    def _note(self, one: Finding) -> None:
        self.closed += one.state == "closed"
        self.heard[one.url] = one

    def known(self, one: Kept) -> bool:
        """Whether an address has answered for the image that it gave."""
        heard = self.heard.get(one.url)
        return heard is not None and heard.id == one.id and heard.state != "unknown"

    def clear(self) -> None:
        """Ends a recheck: the next one asks all."""
        self.path.unlink(missing_ok=True)
        self.heard.clear()


def recheck(
    kept: Iterable[Kept], params: Crawl, web: Web, log: Log, advance: Advance = no_progress
) -> None:
    """Asks all that the log does not know yet, hosts side by side, each at its pace.

    Args:
        params: the opt-outs that are obeyed, and the pace of a host.
        advance: called for each address.

    Raises:
        ExternalError: the disk will not have what was heard.
    """
    hosts: dict[str, list[Kept]] = {}
    for one in kept:
        if not log.known(one):
            hosts.setdefault(_host(one.asked), []).append(one)
    largest_first = iter(sorted(hosts.values(), key=len, reverse=True))

    async def worker(asker: CurrentSignals) -> None:
        for of_host in largest_first:
            await _ask_host(asker, of_host, params.connections_per_host, log, advance)

    async def run() -> None:
        async with Client(web) as client:
            asker = CurrentSignals(client, params)
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(HOSTS_AT_ONCE):
                        group.create_task(worker(asker))
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from None

    asyncio.run(run())


async def _ask_host(
    asker: CurrentSignals, kept: Sequence[Kept], at_once: int, log: Log, advance: Advance
) -> None:
    """Asks a host for each of its addresses, until it does not answer any more."""
    waiting, silent = iter(kept), 0

    async def ask() -> None:
        nonlocal silent
        for one in waiting:
            if silent < PATIENCE:
                heard = await _ask(asker, one)
                silent = silent + 1 if heard.state == "unknown" else 0
            else:
                heard = Finding(
                    one.url, one.id, "unknown", f"not asked: no answer {PATIENCE} times"
                )
            log.add(heard)
            advance(1, note=f"{log.closed:,} closed")

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(ask())


def _host(address: str) -> str:
    try:
        return check_url(address).raw_host or ""
    except (Forbidden, ValueError):
        return ""


async def _ask(asker: CurrentSignals, one: Kept) -> Finding:
    now = await asker.address(one.asked, one.signals)
    return Finding(one.url, one.id, *_state(now), now.signals)


def _state(now: Now) -> tuple[State, str]:
    if now.refusal:
        return "closed", now.refusal
    if now.gone:
        return "gone", f"HTTP {now.status}"
    return ("unknown", now.problem) if now.problem else ("open", "")


def removals_of_closed(heard: Iterable[Finding], day: datetime.date) -> dict[str, Removal]:
    """Removals of the addresses that have closed, each with what closed it as its reason."""
    return {
        one.url: Removal(
            ROBOTS if one.detail.startswith(f"{ROBOTS}:") else OPTED_OUT,
            f"{one.detail}; since {day.isoformat()} or before; SHA-256 {one.id}",
            one.signals or None,
        )
        for one in heard
        if one.state == "closed"
    }
