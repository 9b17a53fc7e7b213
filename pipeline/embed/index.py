"""FAISS index over the teacher's features, by cosine.

Johnson, Douze, Jégou: Billion-scale similarity search with GPUs (2017); Malkov, Yashunin: HNSW
(2016). All work on an index is done by one thread: the same features give the same bytes.
"""

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from kd3_pipeline.errors import UserError

FLAT_ROWS = 200_000
FLAT_VALUES = 2**23  # N x D; more take over 2 ms a query to read
QUERIES, NEAREST = 1000, 10
RECALL = 0.99  # to reach on the sample, so that others reach 0.98
BLOCK = 10_000
POINTS = 64  # a list's share in training
SAME = 1e-6  # cosines that float32 does not tell apart


@dataclass(frozen=True)
class IndexReport:
    """Index that was built, and how good it is.

    Attributes:
        kind: FAISS's name of the index, with how much of it a query visits.
        recall_at_10: share of the exact ten nearest others that are found, for a sample of rows.
        build_seconds: with training and the choice of how much to visit.
        query_ms: median of single queries for ten neighbours, on one thread.
    """

    kind: str
    recall_at_10: float
    build_seconds: float
    query_ms: float


def build_index(features: np.ndarray, path: Path, kind: str = "auto") -> IndexReport:
    """Writes an index of `features` (float [N, D]) to `path`.

    Args:
        kind: as `embed.index` of params.yaml. `flat` is exact; `ivf` and `hnsw` visit as much as
            the recall asks for; `ivfpq` is small, and its recall poor. `auto` is flat as long as
            that answers a query in about 2 ms, then ivf, but flat all the same where ivf would
            have to visit a quarter of all.

    Raises:
        UserError: too few rows for `ivfpq`.
    """
    with one_thread():
        started = time.perf_counter()
        rows = np.random.default_rng(0).permutation(len(features))[:QUERIES]
        name, index, recall = _built(features, kind, np.sort(rows))
        faiss.write_index(index, str(path))
        seconds = time.perf_counter() - started
        times = []
        for row in rows[:100].tolist():
            query = unit(features[row : row + 1])
            asked = time.perf_counter()
            index.search(query, NEAREST)
            times.append(time.perf_counter() - asked)
    return IndexReport(name, recall, seconds, 1000 * statistics.median(times))


def search(path: Path, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The `k` nearest rows of each query (float [Q, D]) and their cosines, [Q, k] each.

    A row is -1 where an index that is not exact has found no more.

    Raises:
        UserError: the index is missing or damaged, or has another dimension.
    """
    try:
        index = faiss.read_index(str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1][:200]
        raise UserError(f"{path} cannot be read: {reason}", "run `dvc repro embed`") from None
    if index.d != queries.shape[1]:
        raise UserError(f"{path} has {index.d} dimensions, the query {queries.shape[1]}")
    cosines, rows = index.search(unit(queries), min(k, index.ntotal))
    return rows, cosines


def _built(features: np.ndarray, kind: str, rows: np.ndarray) -> tuple[str, Any, float]:
    """FAISS's name, the index and its recall at 10 for queries with the features of `rows`."""
    total, width = features.shape
    if kind == "flat" or (kind == "auto" and total <= FLAT_ROWS and total * width <= FLAT_VALUES):
        return "Flat", _filled("Flat", features), 1.0  # it is the exact search
    lists = min(total, int(4 * total**0.5))
    tenth = _tenth_cosines(features, rows)
    if kind == "hnsw":
        index = _filled("HNSW32", features)
        return _tuned("HNSW32,Flat", index, "efSearch", 16, total, features, rows, tenth)
    if kind == "ivfpq":
        if total < 256:
            raise UserError(f"embed.index 'ivfpq' needs 256 images, not {total}", "take 'flat'")
        parts = max(n for n in range(1, max(1, width // 8) + 1) if width % n == 0)
        name = f"IVF{lists},PQ{parts}"
        index = _filled(name, features)
        index.nprobe = min(64, lists)  # more would not help: what is lost is lost by PQ
        return f"{name} nprobe={index.nprobe}", index, _recall(index, features, rows, tenth)
    index = _filled(f"IVF{lists},Flat", features)
    found = _tuned(f"IVF{lists},Flat", index, "nprobe", 1, lists, features, rows, tenth)
    if kind == "auto" and 4 * index.nprobe > lists:
        return _built(features, "flat", rows)
    return found


def _filled(name: str, features: np.ndarray) -> Any:
    index: Any = faiss.index_factory(features.shape[1], name, faiss.METRIC_INNER_PRODUCT)
    if name.startswith("IVF"):
        index.cp.seed, index.cp.max_points_per_centroid = 0, POINTS
        index.cp.min_points_per_centroid = 1  # FAISS would print a warning
        if hasattr(index, "pq"):
            index.pq.cp.seed, index.pq.cp.min_points_per_centroid = 0, 1
            index.do_polysemous_training = False  # minutes, for a filter that nobody asks for
        wanted = max(256 * POINTS, index.nlist * POINTS)
        chosen = np.random.default_rng(1).permutation(len(features))[:wanted]
        index.train(unit(features[np.sort(chosen)]))
    if name.startswith("HNSW"):
        index.hnsw.efConstruction = 100
    for start in range(0, len(features), BLOCK):
        index.add(unit(features[start : start + BLOCK]))
    return index


def _tuned(
    name: str,
    index: Any,
    parameter: str,
    least: int,
    most: int,
    features: np.ndarray,
    rows: np.ndarray,
    tenth: np.ndarray,
) -> tuple[str, Any, float]:
    """Doubles what a query visits until the recall is reached; FAISS keeps it in the file."""
    visits = least
    while True:
        setattr(index.hnsw if parameter == "efSearch" else index, parameter, visits)
        recall = _recall(index, features, rows, tenth)
        if recall >= RECALL or visits >= most:
            return f"{name} {parameter}={visits}", index, recall
        visits = min(2 * visits, most)


def _tenth_cosines(features: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The cosine of each row to the tenth nearest other one, or the last: float32 [Q], exact."""
    queries = unit(features[rows])
    nearest = min(NEAREST, len(features) - 1)
    best = np.full((len(rows), nearest), -np.inf, np.float32)
    for start in range(0, len(features), BLOCK):
        block = unit(features[start : start + BLOCK])
        cosines = queries @ block.T
        inside = (rows >= start) & (rows < start + len(block))
        cosines[inside, rows[inside] - start] = -np.inf
        both = np.concatenate([best, cosines], axis=1)
        best = -np.partition(-both, nearest - 1, axis=1)[:, :nearest] if nearest else best
    return best.min(axis=1, initial=np.inf)


def _recall(index: Any, features: np.ndarray, rows: np.ndarray, tenth: np.ndarray) -> float:
    """By cosines and not by rows, because copies of an image are equally near."""
    nearest = min(NEAREST, len(features) - 1)
    if not nearest:
        return 1.0
    queries = unit(features[rows])
    _, found = index.search(queries, nearest + 1)
    vectors = unit(features[found.ravel()]).reshape(*found.shape, -1)
    cosines = np.einsum("qd,qkd->qk", queries, vectors)
    good = (cosines >= tenth[:, None] - SAME) & (found >= 0) & (found != rows[:, None])
    return float(np.minimum(good.sum(axis=1), nearest).mean() / nearest)


def unit(features: np.ndarray) -> np.ndarray:
    """Vectors float32 [N, D] of length 1, of float ones of any size; zeros stay zeros."""
    if features.dtype == np.float16:
        vectors = np.ascontiguousarray(features, np.float32)
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    # squares of what float16 does not hold may be beyond float32 too
    wide = np.asarray(features, np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.ascontiguousarray(wide / np.where(lengths > 0, lengths, 1), np.float32)


@contextmanager
def one_thread() -> Iterator[None]:
    """FAISS works on one thread inside: how many there are changes the last bit of a cosine."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
