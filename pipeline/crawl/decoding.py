"""Decoder of downloads: threads that check images and keep the good ones."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from functools import partial
from types import TracebackType

from pipeline.crawl.blocklist import NOTHING_BLOCKED, Blocklist
from pipeline.crawl.journal import Incoming
from pipeline.images import FORMATS, ImageError, ImageInfo, inspect, open_image
from pipeline.manifest import Fetched

DECODERS = min(8, os.cpu_count() or 1)  # threads
LARGE = 8_000_000  # pixels; of such images one is decoded at a time, in up to 250 MB
FOUND = [field.name for field in fields(ImageInfo)]


class Decoder:
    """Checks images beside the event loop, for a `with` block; what waits at its end is dropped."""

    def __init__(
        self,
        min_side: int,
        *,
        keep_damaged: bool = False,
        blocklist: Blocklist = NOTHING_BLOCKED,
    ) -> None:
        """`keep_damaged` as `inspect` has it; images in `blocklist` count as bad ones."""
        look = partial(inspect, min_side=min_side, keep_damaged=keep_damaged)
        self._inspect = partial(_examined, look, blocklist)
        self._threads = ThreadPoolExecutor(DECODERS, "decode")
        self._large = asyncio.Lock()

    def __enter__(self) -> "Decoder":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._threads.shutdown(cancel_futures=True)

    async def kept(self, found: Fetched, incoming: Incoming) -> Fetched:
        """The record of an image that is good and is kept.

        Raises:
            ImageError: it is none, or a bad one.
            ExternalError: the disk will not have it.
        """
        run = asyncio.get_running_loop().run_in_executor
        kept = await run(self._threads, _kept, found, incoming, self._inspect, LARGE)
        if kept is None:
            async with self._large:
                kept = await run(self._threads, _kept, found, incoming, self._inspect, None)
        assert kept is not None  # the second time nothing is too large
        return kept


def _examined(look: Callable[[bytes], ImageInfo], blocklist: Blocklist, data: bytes) -> ImageInfo:
    """What an image is; raises ImageError also for one that must not be stored."""
    info = look(data)
    if refused := blocklist.image(data):
        raise ImageError(*refused, info.width, info.height)
    return info


def _kept(
    found: Fetched, incoming: Incoming, examine: Callable[[bytes], ImageInfo], most: int | None
) -> Fetched | None:
    """The record of an image that is good and is kept; None if it has more than `most` pixels."""
    data = incoming.read()
    if most is not None:
        image = open_image(data, FORMATS)
        if image.width * image.height > most:
            return None
    info = examine(data)
    return replace(found, **{name: getattr(info, name) for name in FOUND}, id=incoming.keep())
