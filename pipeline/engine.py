"""Engine: where independent pieces of work run; their results come back in order, to one caller.

Pieces run in processes that are started here, which is the default, or on a cluster that is there.
What they give does not depend on where they run, so it is said beside the parameters: `pipeline
--engine`, or the environment.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Any, TypeVar

from kd3_pipeline.clusters import Cluster
from kd3_pipeline.errors import UserError
from kd3_pipeline.processes import Processes, worked

VARIABLE = "PIPELINE_ENGINE"  # environment variable: as the option --engine of every command
FORMS = "processes:N (0: one for each core), ray:HOST:PORT or dask:HOST:PORT"
CLUSTERS = {"ray": "RAY_ADDRESS", "dask": "DASK_ADDRESS"}  # and their variables
AHEAD = 3  # pieces a worker that are begun before their results are asked for
Item = TypeVar("Item")
Result = TypeVar("Result")


class Engine:
    """Workers, started when they are first needed, and ended with the `with` block.

    Attributes:
        threads: that the caller may work with, where threads of its own are enough.
        cluster: `ray` or `dask`, and an address; None: processes here.
    """

    def __init__(self, workers: int = 1, cluster: tuple[str, str] | None = None) -> None:
        """`workers` are processes; with 1, none is started and all runs in the caller's."""
        self.threads, self.cluster = workers, cluster
        self._pool: Processes | Cluster | None = None

    @classmethod
    def chosen(cls, environ: Mapping[str, str] = os.environ) -> "Engine":
        """The one that the environment names; else a process for each core.

        Raises:
            UserError: it names none, or two.
        """
        named = [(kind, environ.get(name, "").strip()) for kind, name in CLUSTERS.items()]
        given = [f"{kind}:{address}" for kind, address in named if address]
        text = environ.get(VARIABLE, "").strip() or " and ".join(given)
        kind, _, rest = text.partition(":")
        every = os.cpu_count() or 1
        if kind in CLUSTERS and rest and " " not in rest:
            return cls(every, (kind, rest.removeprefix("//")))
        if text and (kind != "processes" or not rest.isdecimal() or len(rest) > 4):
            variables = ", ".join((VARIABLE, *CLUSTERS.values()))
            raise UserError(f"engine '{text}': expected {FORMS}", f"see --engine, {variables}")
        return cls(int(rest or 0) or every)

    def __enter__(self) -> "Engine":
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    @property
    def pool(self) -> Processes | Cluster:
        """The workers, of a cluster once it has let this process in.

        Raises:
            UserError, ExternalError: as `Cluster`.
        """
        if self._pool is None:
            self._pool = Cluster(*self.cluster) if self.cluster else Processes(self.threads)
        return self._pool

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
            work: sent to the workers, so it can be pickled; what it raises comes through.
            load: reads what is on this machine's disk: in the workers here, in the caller for a
                cluster.
            named: an item in an error.
            ahead: items that are begun before their result is asked for; 0: some for each worker.

        Raises:
            UserError, ExternalError: as `Cluster`.
            ExternalError: an item ended the process at work on it, three times. All results before
                it have been given.
        """
        if not self.cluster and self.threads == 1:
            yield from (worked(work, load, item) for item in items)
            return
        begin = self.pool.starter(work, load)
        most = ahead or AHEAD * self.pool.workers
        waiting: deque[tuple[Item, Future[Result]]] = deque()
        try:
            for item in items:
                waiting.append((item, begin(item)))
                if len(waiting) > most:
                    yield self._first(waiting, begin, named)
            while waiting:
                yield self._first(waiting, begin, named)
        finally:
            for _, future in waiting:
                future.cancel()

    def _first(
        self,
        waiting: deque[tuple[Item, Future[Result]]],
        begin: Callable[[Item], Future[Result]],
        named: Callable[[Item], str],
    ) -> Result:
        """The result of the first item; those that died with its worker are begun again."""
        item, future = waiting.popleft()
        try:
            return future.result()
        except self.pool.deaths as death:
            found = self.pool.again(lambda: begin(item), named(item), death)
            for at, (other, begun) in enumerate(waiting):
                if not begun.done() or begun.exception():  # else it was done before the death
                    waiting[at] = other, begin(other)
            return found
