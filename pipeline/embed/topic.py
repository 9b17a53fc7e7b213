"""Off-topic score: how little an image looks like any of the teacher's classes."""

import faiss
import numpy as np
from scipy.stats import rankdata

from kd3_pipeline.console import Advance
from kd3_pipeline.embed.index import one_thread, unit
from kd3_pipeline.embed.predictions import Predictions, blocks

# a core of 100 separated better than one of 300 or of a fourth of the class on Tiny-ImageNet and
# with CIFAR-10 in it, and on a demo no worse than any; see benchmarks/off_topic.py
CORE = 100
NEAREST = 10
FARTHEST = 2.0  # cosine distance of opposite vectors


def off_topic(predictions: Predictions, distance: np.ndarray) -> np.ndarray:
    """A score from 0 (most like its class) to 1 for each image, float32 [N].

    The mean of two ranks among all N images, each scaled to 0..1: that of the energy of the logits
    and that of `core_distance`. It orders the images of one crawl; it is no probability, and
    scores of two crawls cannot be compared.
    """
    ranks = (rankdata(values) - 1 for values in (predictions.energy, distance))
    return (sum(ranks) / (2 * max(1, len(distance) - 1))).astype(np.float32)


def core_distance(features: np.ndarray, predictions: Predictions, advance: Advance) -> np.ndarray:
    """Cosine distance to the tenth nearest image in the core of the predicted class, float32 [N].

    The distance is that of Sun et al., "Out-of-Distribution Detection with Deep Nearest
    Neighbors" (2022). Theirs is to the training images, which nobody has here: the core is the 100
    images of the class with the lowest energy, or the fourth part of a class with fewer than 400.

    Args:
        features: float [N, D], may be a memory map.
    """
    distance = np.full(len(features), FARTHEST, np.float32)
    with one_thread():
        for _, rows in predictions.by_class():
            if len(rows) == 1:
                advance(1)
                continue  # with nothing near, it is as far off as can be
            core = rows[np.argsort(predictions.energy[rows], kind="stable")]
            core = core[: min(CORE, max(NEAREST + 1, len(rows) // 4))]
            index = faiss.IndexFlatIP(features.shape[1])
            index.add(unit(features[core]))
            for some in blocks(rows):
                near, _ = index.search(unit(features[some]), min(NEAREST + 1, len(core)))
                itself = np.isin(some, core)  # which is the nearest to itself
                place = np.minimum(NEAREST - 1 + itself, near.shape[1] - 1)
                distance[some] = 1 - np.take_along_axis(near, place[:, None], axis=1)[:, 0]
                advance(len(some))
    return distance
