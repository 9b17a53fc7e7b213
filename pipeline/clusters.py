"""Clusters that run already, Ray's and Dask's, as the workers of an engine; none is started."""

import hashlib
import os
import pickle
import socket
import tempfile
import zipfile
from collections.abc import Callable
from concurrent.futures import Executor, Future
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kd3_pipeline.errors import ExternalError, UserError, first_line
from kd3_pipeline.extras import install_extra
from kd3_pipeline.memory import allow, allowed
from kd3_pipeline.processes import ADVICE

PATIENCE = 5.0  # seconds until an address has to answer
PORTS = {"ray": 6379, "dask": 8786}  # as the programs have them unless told otherwise
LIBRARIES = {"ray": "ray", "dask": "distributed"}
CODE = Path(__file__).parent  # of the package that workers get
ALIKE = ("numpy", "scipy", "torch", "pillow", "pyarrow", "simplejpeg")  # else bytes would differ
RETRIES = 2  # of Ray, after a first death
SMALL = 100_000  # bytes of work that go with each piece


class Cluster:
    """Workers that get bytes and return arrays; they get this software's code as well.

    Attributes:
        workers: how many pieces they work on at once, now.
        deaths: errors of a piece that say that every worker at work on it died.
    """

    def __init__(self, kind: str, address: str) -> None:
        """Connects to a cluster.

        Raises:
            UserError: the library is not installed, or this is no address.
            ExternalError: nothing answers there within seconds, or not to this process, or its
                workers have other versions.
        """
        scheme, host, port = _parts(kind, address)
        try:
            __import__(LIBRARIES[kind])
        except ModuleNotFoundError as error:
            if error.name != LIBRARIES[kind]:
                raise
            told = f"{kind} at {address}: this takes the extra '{kind}'"
            raise UserError(told, install_extra(kind)) from None
        try:
            socket.create_connection((host, port), PATIENCE).close()
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            told = f"{kind} at {host}:{port} does not answer: {reason}"
            raise ExternalError(told, "does it run, and on this port?") from None
        self.name = f"{kind} at {host}:{port}"
        if kind == "ray":
            self._ray(host, port)
        else:
            self._dask(f"{scheme}://{host}:{port}")
        try:
            self._compare_versions()
        except BaseException:
            self.close()
            raise

    def starter(self, work: Any, load: Any) -> Callable[[Any], Future[Any]]:
        """What begins `work` on what `load` reads of an item, here.

        Raises:
            UserError: the work cannot be pickled.
        """
        try:
            data = pickle.dumps(work)
        except Exception as error:
            told = f"this work cannot be carried to other machines: {first_line(error)}"
            raise UserError(told, "run it here: pipeline --engine processes:0") from None
        about = (hashlib.sha256(data).hexdigest(), data if len(data) < SMALL else self._share(data))

        def begin(item: Any) -> Future[Any]:
            loaded = load(item) if load else item
            return self._executor.submit(carried, *about, loaded, allowed())

        return begin

    def again(self, begin: Callable[[], Future[Any]], name: str, death: Exception) -> Any:
        """Raises an ExternalError that names a piece: the cluster has tried it again already."""
        told = f"{name}: it ended each process at work on it ({first_line(death)})"
        raise ExternalError(told, ADVICE)

    def close(self) -> None:
        """Leaves the cluster as it is."""
        self._close()

    def _compare_versions(self) -> None:
        here, there = versions(), self._executor.submit(versions).result()
        if here != there:
            both = zip(there, here, strict=True)
            wrong = ", ".join(f"{one} (here {other})" for one, other in both if one != other)
            told = f"{self.name}: its workers have {wrong}"
            raise ExternalError(told, "results would differ: install the same versions")

    def _ray(self, host: str, port: int) -> None:
        # by default Ray asks for minutes before it says that it is refused
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "2")
        os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "1")
        import ray
        from ray import exceptions

        # Ray takes 127.0.0.1 for the machine's own address, and any other as it is
        own = host if host.startswith("127.") and host != "127.0.0.1" else None
        code = {"py_modules": [str(CODE)]}
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        try:
            ray.init(f"{host}:{port}", runtime_env=code, _node_ip_address=own, **quiet)
        except Exception as error:
            told = f"{self.name} does not let this process in: {first_line(error)}"
            raise ExternalError(
                told,
                "a cluster with a token needs RAY_AUTH_MODE=token and RAY_AUTH_TOKEN here too; its"
                " versions of Ray and Python are needed, and one of its nodes on this machine",
            ) from None
        self.workers = max(1, int(ray.cluster_resources().get("CPU", 1)))
        names = ("WorkerCrashedError", "NodeDiedError", "OutOfMemoryError")
        self.deaths: tuple[type[Exception], ...] = tuple(getattr(exceptions, n) for n in names)
        self._executor: Executor = _RayTasks()
        self._share: Callable[[bytes], Any] = lambda data: (ray.put(data),)
        self._close: Callable[[], Any] = ray.shutdown

    def _dask(self, address: str) -> None:
        import dask
        from distributed import Client, KilledWorker

        dask.config.set({"distributed.admin.large-graph-warning-threshold": "10GB"})
        try:
            client = Client(address, timeout=2 * PATIENCE, set_as_default=False)
        except Exception as error:
            told = f"{self.name} does not let this process in: {first_line(error)}"
            raise ExternalError(told, "its versions of Dask and Python are needed") from None
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"{CODE.name}.zip")  # which workers import from as it is
            with zipfile.ZipFile(path, "w") as file:
                for one in sorted(CODE.rglob("*.py")):
                    file.write(one, Path(CODE.name, one.relative_to(CODE)))
            client.upload_file(str(path))
        self.workers = max(1, sum(client.nthreads().values()))
        self.deaths = (KilledWorker,)
        self._executor = client.get_executor(pure=False)
        self._share = lambda data: client.scatter(data, hash=False, broadcast=True)
        self._close = lambda: client.close(timeout=PATIENCE)


def versions() -> list[str]:
    """What has to be the same on all machines for the same bytes."""
    return [f"{name} {version(name)}" for name in ALIKE]


def carried(name: str, shared: Any, item: Any, megabytes: float) -> Any:
    """On a worker: the work of this name, unpickled once, on one item.

    Args:
        shared: the pickled work, or a reference of Ray's to it.
        megabytes: what one picture may take.
    """
    allow(megabytes)
    work = _WORK.get(name)
    if work is None:
        if not isinstance(shared, bytes):
            import ray

            shared = ray.get(shared[0])
        # the caller's own work, never bytes of the web; Ray and Dask carry all tasks so
        work = pickle.loads(shared)
        _WORK.clear()
        _WORK[name] = work
    return work(item)


_WORK: dict[str, Callable[[Any], Any]] = {}  # of this process: the last one


class _RayTasks(Executor):
    """Ray's tasks, of one CPU each, tried again after the death of a worker or a node."""

    def __init__(self) -> None:
        import ray

        self._task = ray.remote(num_cpus=1, max_retries=RETRIES)(_call)

    def submit(self, work: Any, /, *args: Any, **named: Any) -> Future[Any]:
        return self._task.remote(work, args, named).future()


def _call(work: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    return work(*args, **named)


def _parts(kind: str, address: str) -> tuple[str, str, int]:
    """Scheme, host and port of an address.

    Raises:
        UserError: it is none, or it leaves to the library where to look.
    """
    scheme, _, rest = address.rpartition("://")
    host, _, port = rest.partition(":")
    port = port or str(PORTS[kind])
    good = scheme in (("", "tcp", "tls") if kind == "dask" else ("",))
    if not good or not host or host in ("auto", "local") or not port.isdecimal():
        raise UserError(
            f"{kind} at '{address}': expected HOST:PORT of the cluster that is to be used",
            "none is started or looked for, and `ray://` is a port of another kind",
        )
    return scheme or "tcp", host, int(port)
