"""Decoder of downloads: threads that check images and keep the good ones."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from functools import partial

from kd3_pipeline.crawl.blocklist import NOTHING_BLOCKED, Blocklist
from kd3_pipeline.crawl.incoming import Incoming
from kd3_pipeline.crawl.optouts.pictures import image_signals
from kd3_pipeline.crawl.optouts.signals import OptedOut, verdict
from kd3_pipeline.formats import FORMATS
from kd3_pipeline.images import ImageInfo, inspect
from kd3_pipeline.manifest import Fetched
from kd3_pipeline.picturefile import LARGE, ImageError, is_large

DECODERS = min(8, os.cpu_count() or 1)  # threads
FOUND = [field.name for field in fields(ImageInfo)]


class Decoder:
    """Checks images beside the event loop, for a `with` block; what waits at its end is dropped."""

    def __init__(
        self,
        min_side: int,
        *,
        keep_damaged: bool = False,
        obeyed: frozenset[str] = frozenset(),
        blocklist: Blocklist = NOTHING_BLOCKED,
    ) -> None:
        """`keep_damaged` as `inspect` has it.

        Args:
            obeyed: kinds of opt-outs.
            blocklist: of images that count as bad ones.
        """
        self._inspect = partial(inspect, min_side=min_side, keep_damaged=keep_damaged)
        self._obeyed, self._blocklist = obeyed, blocklist
        self._threads = ThreadPoolExecutor(DECODERS, "decode")
        self._large = asyncio.Lock()

    def __enter__(self) -> "Decoder":
        return self

    def __exit__(self, *error: object) -> None:
        self._threads.shutdown(cancel_futures=True)

    async def kept(self, found: Fetched, incoming: Incoming) -> Fetched:
        """The record of an image that is good and is kept.

        Raises:
            ImageError: it is none, or a bad one.
            OptedOut: it says that it is not to be used so.
            ExternalError: the disk will not have it.
        """
        run = asyncio.get_running_loop().run_in_executor
        kept = await run(self._threads, self._kept, found, incoming, False)
        if kept is None:
            async with self._large:
                kept = await run(self._threads, self._kept, found, incoming, True)
        assert kept is not None  # the second time nothing is too large
        return kept

    def _kept(self, found: Fetched, incoming: Incoming, alone: bool) -> Fetched | None:
        """The record of an image that is kept; None if it is large, and others are decoded."""
        data = incoming.read()
        said = verdict(image_signals(data), self._obeyed)
        signals = "\n".join(filter(None, (found.signals, said.text)))
        if said.refusal:
            raise OptedOut(said.refusal, signals)
        if not alone and is_large(data, FORMATS, LARGE):
            return None
        info = self._inspect(data)
        if refused := self._blocklist.image(data):
            raise ImageError(*refused, info.width, info.height)
        more = {name: getattr(info, name) for name in FOUND}
        return replace(found, **more, signals=signals, id=incoming.keep())
