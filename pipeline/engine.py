"""Engine: where independent pieces of work run; their results come back in order, to one caller.

Pieces run in processes that are started here, which is the default. What they give does not depend
on where they run, so it is said beside the parameters: `pipeline --engine`, or the environment.
"""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from multiprocessing.connection import Connection
from threading import Thread
from types import TracebackType
from typing import Any, TypeVar

from kd3_pipeline.errors import ExternalError, UserError
from kd3_pipeline.memory import allow, allowed

VARIABLE = "PIPELINE_ENGINE"  # environment variable: as the option --engine of every command
FORMS = "processes:N (0: one for each core)"
TRIES = 3  # deaths of a worker at one piece, alone with it, after which that piece is given up
AHEAD = 3  # pieces a worker that are begun before their results are asked for
Item = TypeVar("Item")
Result = TypeVar("Result")


class Engine:
    """Workers, started when they are first needed, and ended with the `with` block."""

    def __init__(self, workers: int = 1) -> None:
        """`workers` are processes; with 1, none is started and all runs in the caller's.

        Attributes:
            threads: that the caller may work with, where threads of its own are enough.
        """
        self.workers = self.threads = workers
        self._pool: Executor | None = None
        self._alive: Connection | None = None

    @classmethod
    def chosen(cls, environ: Mapping[str, str] = os.environ) -> "Engine":
        """The one that the environment names; else a process for each core.

        Raises:
            UserError: it names none.
        """
        text = environ.get(VARIABLE, "").strip()
        kind, _, number = text.partition(":")
        if text and (kind != "processes" or not number.isdecimal() or len(number) > 4):
            raise UserError(f"engine '{text}': expected {FORMS}", f"see --engine and {VARIABLE}")
        return cls(int(number or 0) or os.cpu_count() or 1)

    def __enter__(self) -> "Engine":
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def map(
        self,
        work: Callable[[Any], Result],
        items: Iterable[Item],
        load: Callable[[Item], Any] | None = None,
        named: Callable[[Item], str] = str,
        ahead: int = 0,
    ) -> Generator[Result, None, None]:
        """`work(load(item))` of each item, in their order; `work(item)` without `load`.

        Args:
            work, load: sent to the workers, so they can be pickled; what they raise comes through.
            named: an item in an error.
            ahead: items that are begun before their result is asked for; 0: some for each worker.

        Raises:
            ExternalError: an item ended the process at work on it, three times. All results before
                it have been given.
        """
        if self.workers == 1:
            yield from (_piece(work, load, item) for item in items)
            return
        waiting: deque[tuple[Item, Future[Result]]] = deque()
        try:
            for item in items:
                waiting.append((item, self._begun(work, load, item)))
                if len(waiting) > (ahead or AHEAD * self.workers):
                    yield self._first(waiting, work, load, named)
            while waiting:
                yield self._first(waiting, work, load, named)
        finally:
            for _, future in waiting:
                future.cancel()

    def _begun(self, work: Any, load: Any, item: Any) -> Future[Any]:
        """The result to come of an item; a dead worker shows when it is asked for."""
        try:
            return self._opened().submit(_piece, work, load, item)
        except BrokenExecutor as error:
            failed: Future[Any] = Future()
            failed.set_exception(error)
            return failed

    def _first(self, waiting: deque[Any], work: Any, load: Any, named: Any) -> Any:
        """The result of the first item; workers that died meanwhile are replaced."""
        item, future = waiting.popleft()
        try:
            return future.result()
        except BrokenExecutor:
            found = self._alone(work, load, item, named)
            for at, (other, begun) in enumerate(waiting):
                if not begun.done() or begun.exception():  # else it was done before the death
                    waiting[at] = other, self._begun(work, load, other)
            return found

    def _alone(self, work: Any, load: Any, item: Any, named: Any) -> Any:
        """The result of an item that no other is worked on beside, so a death is its own."""
        how = ""
        for _ in range(TRIES):
            self._close()
            future = self._begun(work, load, item)
            workers = multiprocessing.active_children()
            try:
                return future.result()
            except BrokenExecutor:
                self._close()
                how = next((f" ({_end(one.exitcode)})" for one in workers if one.exitcode), "")
        raise ExternalError(
            f"{named(item)}: the process at work on it died {TRIES} times{how}",
            "is there memory enough? What is before it is kept, and the same command goes on there",
        )

    def _opened(self) -> Executor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")  # a fork may hold another thread's locks
            reader, self._alive = context.Pipe(duplex=False)
            about = (reader, allowed())
            self._pool = ProcessPoolExecutor(self.workers, context, _attend, about)
        return self._pool

    def _close(self) -> None:
        if self._alive is not None:
            self._alive.close()  # which ends the workers at once
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._pool = self._alive = None


def _piece(work: Callable[[Any], Any], load: Callable[[Any], Any] | None, item: Any) -> Any:
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
