"""A FAISS index over the teacher's features, by cosine."""

from pathlib import Path

import faiss
import numpy as np

from pipeline.errors import UserError


def build_index(features: np.ndarray, path: Path) -> None:
    """Writes an exact index of `features` (float [N, D]) to `path`."""
    index = faiss.IndexFlatIP(features.shape[1])
    for start in range(0, len(features), 10_000):
        index.add(_unit(features[start : start + 10_000]))
    faiss.write_index(index, str(path))


def neighbours(path: Path, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The `k` nearest rows of each query (float [Q, D]) and their cosines, [Q, k] each.

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
    cosines, rows = index.search(_unit(queries), min(k, index.ntotal))
    return rows, cosines


def _unit(features: np.ndarray) -> np.ndarray:
    vectors = np.ascontiguousarray(features, np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
