"""Samples of images for the galleries: positions, the same ones for the same seed."""

import numpy as np

from kd3_pipeline.classcheck import labels_among
from kd3_pipeline.report.stored import Images

BLOCK = 10_000  # rows in memory at a time


def spread(
    labels: np.ndarray, among: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw `count` positions out of `among`, as evenly over the labels as they allow.

    Returns:
        int64 positions, one of each label in turn.
    """
    shuffled = rng.permutation(among)
    order = shuffled[np.argsort(labels[shuffled], kind="stable")]
    _, first, sizes = np.unique(labels[order], return_index=True, return_counts=True)
    rank = np.arange(len(order)) - np.repeat(first, sizes)
    return order[np.argsort(rank, kind="stable")[:count]]


def extremes(
    values: np.ndarray, among: np.ndarray, count: int, rng: np.random.Generator, sign: int
) -> np.ndarray:
    """The positions with the largest (sign -1) or smallest (sign 1) values; ties by lot."""
    shuffled = rng.permutation(among)
    return shuffled[np.argsort(sign * values[shuffled], kind="stable")[:count]]


def turns(images: Images) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Images that the selection took in and let go of, early, half-way and late.

    Returns:
        (epoch from 1, positions selected in it and not in the one before, positions for which it
        is the other way round), for at most three epochs.
    """
    epochs = sorted({1, images.epochs // 2, images.epochs - 1}) if images.epochs > 1 else []
    found = []
    for epoch in epochs:
        if epoch < 1:
            continue
        before, now = images.history[:, epoch - 1], images.history[:, epoch]
        found.append((epoch + 1, images.used[now & ~before], images.used[before & ~now]))
    return found


def disagreements(
    images: Images, names: dict[int, str], class_names: tuple[str, ...]
) -> np.ndarray:
    """Positions of images that the student sees as another class than the one asked for.

    Images that were found for a class that the networks do not know are no disagreement.
    """
    asked = labels_among(names, class_names)
    labels, inverse = np.unique(images.labels, return_inverse=True)
    wanted = np.array([asked.get(label, -1) for label in labels.tolist()], np.int64)[inverse]
    return np.flatnonzero((images.predicted >= 0) & (wanted >= 0) & (images.predicted != wanted))


def nearest(
    features: np.ndarray, groups: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each of some rows the other row of its group with the largest cosine, and that cosine.

    A row that is alone in its group is its own.

    Args:
        features: float [N, D], may be a memory map; read in blocks.
        groups: int64 [N].
        rows: int64 [M], few.
    """
    best, partner = np.full(len(rows), -np.inf), rows.copy()
    for group in np.unique(groups[rows]).tolist():
        mine = np.flatnonzero(groups[rows] == group)
        asked = _unit(features[rows[mine]])
        inside = np.flatnonzero(groups == group)
        for start in range(0, len(inside), BLOCK):
            some = inside[start : start + BLOCK]
            cosines = asked @ _unit(features[some]).T
            cosines[rows[mine][:, None] == some] = -np.inf
            place = cosines.argmax(axis=1)
            found = cosines[np.arange(len(mine)), place]
            closer = found > best[mine]
            best[mine[closer]] = found[closer]
            partner[mine[closer]] = some[place[closer]]
    return partner, np.where(np.isfinite(best), best, 1.0)


def _unit(features: np.ndarray) -> np.ndarray:
    """Rows of length 1, float64; of zeros where they have no length."""
    rows = features.astype(np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
