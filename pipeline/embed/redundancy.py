"""Redundancy: images that say what others say already, in the teacher's eyes.

After SemDeDup (Abbas et al., 2023). Theirs drops what exceeds a cosine. In the space of a
classifier any fixed cosine takes more of the images that show a class well than of the others, so
here the share is given, the same for each predicted class, and the cosine is what comes of it.
"""

import math
from collections.abc import Iterator

import faiss
import numpy as np

from kd3_pipeline.console import Advance
from kd3_pipeline.embed.index import one_thread, unit
from kd3_pipeline.embed.predictions import Predictions, blocks

CLUSTER = 1000  # images on average: only images of one cluster are compared
SAMPLE = 256  # images a cluster that its centre is fitted to
ROUNDS = 10  # of k-means
ALONE = -2.0  # below any cosine


def redundant(
    features: np.ndarray, predictions: Predictions, share: float, advance: Advance
) -> tuple[np.ndarray, np.ndarray]:
    """Marks the images of each predicted class that are most like another one that comes before.

    In a cluster, images come in the order of their distance from its centre, farthest first. So
    the first image of a group of alike ones is never marked for being like the others.

    Args:
        features: float [N, D], may be a memory map.
        share: of each class to mark, 0 to 1 (exclusive), rounded down.

    Returns:
        bool [N]; and the lowest cosine for which an image was marked, float32 [C], nan for a class
        in which none was.
    """
    marked = np.zeros(len(features), bool)
    cut = np.full(predictions.classes, np.nan, np.float32)
    with one_thread():
        for label, rows in predictions.by_class():
            cosine = np.full(len(rows), ALONE, np.float32)
            for inside in _clusters(features, rows):
                cosine[inside] = _nearest_before(unit(features[rows[inside]]))
                advance(len(inside))
            count = math.floor(share * len(rows))
            most = np.argsort(-cosine, kind="stable")[:count]
            most = most[cosine[most] > ALONE]
            marked[rows[most]] = True
            if len(most):
                cut[label] = cosine[most].min()
    return marked, cut


def _clusters(features: np.ndarray, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Places in `rows` by cluster, each in the order of their cosine to its centre, lowest first.

    Spherical k-means. The centre of a class that is one cluster is the direction of its mean.
    """
    width, count = features.shape[1], math.ceil(len(rows) / CLUSTER)
    means = faiss.Kmeans(
        width,
        count,
        niter=ROUNDS if count > 1 else 1,
        seed=0,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=SAMPLE,
    )
    sample = np.random.default_rng(0).permutation(len(rows))[: SAMPLE * count]
    means.train(unit(features[np.sort(rows[sample])]))
    cosine = np.empty(len(rows), np.float32)
    cluster = np.empty(len(rows), np.int64)
    for places in blocks(np.arange(len(rows))):
        near, which = means.index.search(unit(features[rows[places]]), 1)
        cosine[places], cluster[places] = near[:, 0], which[:, 0]
    for one in np.unique(cluster):
        inside = np.flatnonzero(cluster == one)
        yield inside[np.argsort(cosine[inside], kind="stable")]


def _nearest_before(vectors: np.ndarray) -> np.ndarray:
    """The largest cosine of each unit vector [M, D] to one before it; `ALONE` for the first."""
    best = np.full(len(vectors), ALONE, np.float32)
    for start in range(0, len(vectors), CLUSTER):
        some = vectors[start : start + CLUSTER]
        cosines = some @ vectors[: start + len(some)].T
        before = np.tri(len(some), start + len(some), start - 1, dtype=bool)
        best[start : start + len(some)] = cosines.max(axis=1, where=before, initial=ALONE)
    return best
