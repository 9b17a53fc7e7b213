"""Decoder of downloads: threads that check images and keep the good ones."""

import asyncio
import math
import os
from collections import deque
from dataclasses import dataclass, fields, replace
from functools import partial
from queue import SimpleQueue
from threading import Thread

from kd3_pipeline.crawl.blocklist import NOTHING_BLOCKED, Blocklist
from kd3_pipeline.crawl.incoming import Incoming
from kd3_pipeline.crawl.optouts.pictures import image_signals
from kd3_pipeline.crawl.optouts.signals import OptedOut, verdict
from kd3_pipeline.images import ImageInfo, inspect
from kd3_pipeline.manifest import Fetched
from kd3_pipeline.picturefile import LARGE, Heavy, ImageError
from kd3_pipeline.weight import RGB

DECODERS = min(8, os.cpu_count() or 1)  # threads
FOUND = [field.name for field in fields(ImageInfo)]


@dataclass(frozen=True, slots=True)
class _Picture:
    """One that is to be decoded, `alone` among the large ones or not at all if it is large."""

    found: Fetched
    incoming: Incoming
    alone: bool
    future: asyncio.Future[Fetched | None]


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
        self._large = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._threads = [Thread(target=self._work, name="decode") for _ in range(DECODERS)]
        self._waiting: SimpleQueue[_Picture | None] = SimpleQueue()
        self._done: deque[tuple[_Picture, Fetched | None, BaseException | None]] = deque()
        self._told = False  # the event loop will look for what is done
        self._ended = False

    def __enter__(self) -> "Decoder":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended = True
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    async def kept(self, found: Fetched, incoming: Incoming) -> Fetched:
        """The record of an image that is good and is kept.

        Raises:
            ImageError: it is none, or a bad one.
            OptedOut: it says that it is not to be used so.
            ExternalError: the disk will not have it.
        """
        kept = await self._decoded(found, incoming, alone=False)
        if kept is None:
            async with self._large:
                kept = await self._decoded(found, incoming, alone=True)
        assert kept is not None  # the second time nothing is too large
        return kept

    def _decoded(
        self, found: Fetched, incoming: Incoming, *, alone: bool
    ) -> asyncio.Future[Fetched | None]:
        picture = _Picture(found, incoming, alone, self._loop.create_future())
        self._waiting.put(picture)
        return picture.future

    def _work(self) -> None:
        """One thread. The event loop is woken once for all that is done until it looks."""
        while (picture := self._waiting.get()) is not None and not self._ended:
            kept, failure = None, None
            try:
                kept = self._kept(picture.found, picture.incoming, picture.alone)
            except BaseException as error:  # it is raised where the picture is waited for
                failure = error
            self._done.append((picture, kept, failure))
            if not self._told:
                self._told = True
                self._loop.call_soon_threadsafe(self._hand_back)

    def _hand_back(self) -> None:
        self._told = False  # first: what is done from now on is told again
        while self._done:
            picture, kept, failure = self._done.popleft()
            if picture.future.done():  # nobody waits any more
                continue
            if failure is None:
                picture.future.set_result(kept)
            else:
                picture.future.set_exception(failure)

    def _kept(self, found: Fetched, incoming: Incoming, alone: bool) -> Fetched | None:
        """The record of an image that is kept; None if it is large, and others are decoded."""
        data = incoming.read()
        said = verdict(image_signals(data), self._obeyed)
        signals = "\n".join(filter(None, (found.signals, said.text)))
        if said.refusal:
            raise OptedOut(said.refusal, signals)
        try:
            info = self._inspect(data, most=math.inf if alone else RGB * LARGE)
        except Heavy:
            return None
        if refused := self._blocklist.image(data):
            raise ImageError(*refused, info.width, info.height)
        more = {name: getattr(info, name) for name in FOUND}
        return replace(found, **more, signals=signals, id=incoming.keep())
