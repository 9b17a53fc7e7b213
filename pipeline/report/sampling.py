"""Samples of images for the galleries: positions, the same ones for the same seed."""

import numpy as np

from kd3_pipeline.report.stored import Images


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
    known = {name: index for index, name in enumerate(class_names)}
    asked = {label: known.get(name, -1) for label, name in names.items()}
    labels, inverse = np.unique(images.labels, return_inverse=True)
    wanted = np.array([asked.get(label, -1) for label in labels.tolist()], np.int64)[inverse]
    return np.flatnonzero((images.predicted >= 0) & (wanted >= 0) & (images.predicted != wanted))
