"""Pictures of a source as the squares that a network sees, decoded side by side."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from kd3_pipeline.formats import HEAD, picture_kind, readable
from kd3_pipeline.frames import Frame
from kd3_pipeline.images import decode
from kd3_pipeline.imagesource.entries import Entry
from kd3_pipeline.picturefile import ImageError, one_large

MOST_THREADS = 8


def decoded(entries: Iterable[Entry], frame: Frame) -> Iterator[tuple[Entry, np.ndarray | str]]:
    """Each entry with its pixels, or with what is wrong with it; in order."""
    workers = min(os.cpu_count() or 1, MOST_THREADS)
    waiting: deque[tuple[Entry, Future[np.ndarray | str]]] = deque()
    with ThreadPoolExecutor(workers, "decode") as pool:  # Pillow decodes without the GIL
        for entry in entries:
            waiting.append((entry, pool.submit(_pixels, entry, frame)))
            if len(waiting) > 2 * workers:
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()


def _pixels(entry: Entry, frame: Frame) -> np.ndarray | str:
    if entry.outcome:
        return f"{entry.outcome}: {entry.detail}" if entry.detail else entry.outcome
    try:
        with one_large(entry.data):
            return frame.of(decode(entry.data))
    except ImageError as error:
        kind = picture_kind(entry.data[:HEAD])
        if error.outcome == "not_an_image" and kind and kind not in readable():
            return f"a picture of {kind}, which is not read here: convert it"
        return "it has no bytes" if not entry.data else str(error)
