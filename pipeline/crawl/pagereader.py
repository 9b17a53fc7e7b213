"""Reader of pages: in a process that ends when a page takes too long."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from kd3_pipeline.console import printable
from kd3_pipeline.crawl import pageworker
from kd3_pipeline.crawl.markup import FoundImage
from kd3_pipeline.crawl.optouts.headers import Heard
from kd3_pipeline.crawl.optouts.signals import Signal
from kd3_pipeline.crawl.pageworker import LENGTH

ROOT = Path(__file__).parents[2]
MEMORY = 2**30  # bytes for a page; one of 5 MiB of tags takes less than a third
SECONDS = 5.0  # of computing for a page; one of 5 MiB with 300,000 tags takes less than one


class Unread(Exception):
    """A page gave nothing, and why."""


@dataclass(frozen=True)
class PageContent:
    """What a page says of itself, and what is on it.

    Attributes:
        words: of robots meta tags that bind the robot.
        said: what its elements say of the use of its images.
        links: that robots may follow.
    """

    words: set[str]
    said: Heard
    images: list[FoundImage]
    links: list[str]


class PageReader:
    """A process that reads one page after the other, for an `async with` block.

    It begins with the first page, and anew after one that it did not survive.
    """

    def __init__(self) -> None:
        self._process: Process | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._end()

    async def read(self, body: bytes, kind: str, address: str, robot: str) -> PageContent:
        """Reads the page at `address`.

        Args:
            kind: its Content-Type.
            robot: whose meta tags bind us, besides those for all.

        Raises:
            Unread: it takes too long or too much memory, or the process does not survive it.
        """
        header: dict[str, Any] = {"kind": kind, "address": address, "robot": robot}
        header |= {"seconds": SECONDS, "memory": MEMORY}
        try:
            found = json.loads(await self._exchanged(json.dumps(header).encode(), body))
        except (asyncio.IncompleteReadError, ConnectionError):
            raise Unread(await self._death()) from None
        except BaseException:  # Ctrl-C too: an answer that is still to come would be the next one's
            await self._end()
            raise
        said = Heard(tuple(Signal(**one) for one in found["signals"]), tuple(found["licences"]))
        titles = found["titles"]
        images = [(url, titles[number], linked) for url, number, linked in found["images"]]
        return PageContent(set(found["words"]), said, images, found["links"])

    async def _exchanged(self, header: bytes, body: bytes) -> bytes:
        process = self._process = self._process or await _begun()
        assert process.stdin is not None and process.stdout is not None
        for part in (header, body):
            process.stdin.write(LENGTH.pack(len(part)) + part)
        await process.stdin.drain()
        size = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))[0]
        return await process.stdout.readexactly(size)

    async def _death(self) -> str:
        """Why the process has ended over a page."""
        process, self._process = self._process, None
        assert process is not None and process.stderr is not None
        told = (await process.stderr.read()).decode("utf-8", "replace").strip().splitlines()
        code = await process.wait()
        if code == -signal.SIGPROF:
            return f"it takes more than {SECONDS:g} s to read"
        if code == pageworker.NO_MEMORY:
            return f"it takes more than {MEMORY / 2**20:g} MiB of memory to read"
        return printable(told[-1]) if told else f"its reader ended with {code}"

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _begun() -> Process:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", pageworker.__name__),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        start_new_session=True,  # Ctrl-C is for whoever asks
    )
