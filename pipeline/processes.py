"""Spawned processes, as the workers of an engine: replaced when they die, gone when we are."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from multiprocessing.connection import Connection
from threading import Thread
from typing import Any

from kd3_pipeline.errors import ExternalError
from kd3_pipeline.memory import allow, allowed

TRIES = 3  # deaths of a worker at one piece, alone with it, after which that piece is given up
ADVICE = (
    "is there memory enough? What is before it is kept, and the same command goes on where it"
    " stopped"
)


class Processes:
    """Workers here, each of which ends at once when this process does, however it does.

    Attributes:
        deaths: errors of a piece that say that a worker died, not which one did.
    """

    deaths: tuple[type[Exception], ...] = (BrokenExecutor,)

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None
        self._alive: Connection | None = None

    def starter(self, work: Any, load: Any) -> Callable[[Any], Future[Any]]:
        """What begins `work` on what `load` reads of an item; it never fails itself."""

        def begin(item: Any) -> Future[Any]:
            try:
                return self._opened().submit(worked, work, load, item)
            except BrokenExecutor as error:  # which shows when the result is asked for
                failed: Future[Any] = Future()
                failed.set_exception(error)
                return failed

        return begin

    def again(self, begin: Callable[[], Future[Any]], name: str, death: Exception) -> Any:
        """The result of a piece that no other is worked on beside, so a death is its own.

        Raises:
            ExternalError: it died so three times; `name` says which it was.
        """
        how = ""
        for _ in range(TRIES):
            self.close()
            future = begin()
            workers = multiprocessing.active_children()
            try:
                return future.result()
            except BrokenExecutor:
                self.close()
                how = next((f" ({_end(one.exitcode)})" for one in workers if one.exitcode), "")
        raise ExternalError(f"{name}: the process at work on it died {TRIES} times{how}", ADVICE)

    def close(self) -> None:
        """Ends all processes; the next piece starts others."""
        if self._alive is not None:
            self._alive.close()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._pool = self._alive = None

    def _opened(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")  # a fork may hold another thread's locks
            reader, self._alive = context.Pipe(duplex=False)
            about = (reader, allowed())
            self._pool = ProcessPoolExecutor(self.workers, context, _attend, about)
        return self._pool


def worked(work: Callable[[Any], Any], load: Callable[[Any], Any] | None, item: Any) -> Any:
    """The work on what is read of an item, or on the item."""
    return work(load(item) if load else item)


def _end(code: int) -> str:
    """How a process ended, of its exit code."""
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"


def _attend(reader: Connection, memory: float) -> None:
    """Ends this worker at once when its parent is done, interrupted or dead.

    Args:
        memory: megabytes that one picture may take in it.
    """
    allow(memory)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def end() -> None:
        reader.poll(None)  # nothing is ever sent: the other end was closed
        os._exit(1)

    Thread(target=end, daemon=True).start()
