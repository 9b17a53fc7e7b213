"""Ctrl-C while training: the step that is running is finished first."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kd3_pipeline.distill.parallel import World


@contextmanager
def interruption(world: World) -> Iterator[Callable[[], bool]]:
    """Request to stop, by Ctrl-C; a second one stops at once.

    With several processes nothing is caught: they would stop at different steps.
    """
    asked = threading.Event()
    if world.size > 1 or threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = signal.getsignal(signal.SIGINT)

    def stop(number: int, frame: object) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, stop)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)
