"""Dynamic instance selection: the images on which teacher and student together are sure."""

from typing import NamedTuple

import torch
from torch import Tensor


class Selection(NamedTuple):
    """Images that are kept, and the thresholds that they passed."""

    mask: Tensor  # [N] bool
    labels: Tensor  # [N] int64, class of the combined prediction
    confidence: Tensor  # [N], its probability
    thresholds: Tensor  # [C]
    counts: Tensor  # [C] int64, n_c


def select(
    teacher_logits: Tensor,
    student_logits: Tensor,
    alpha: float,
    cutoff: float = 0.95,
) -> Selection:
    """Keeps x where max p > τ b_c / (2 − b_c), with p = softmax(α z_t + (1 − α) z_s).

    c = argmax p (the first of several) and b_c = n_c / max n, where n_c counts the images
    predicted as c: a class that is predicted rarely is let in more easily.

    Args:
        teacher_logits, student_logits: [N, C].
        alpha: weight of the teacher's logits, 0 to 1.
        cutoff: τ, the threshold of the most frequent class.

    Returns:
        Confidence and thresholds in the wider dtype of the logits and float32.
    """
    logits = alpha * teacher_logits + (1 - alpha) * student_logits
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    confidence, labels = logits.softmax(dim=1).max(dim=1)
    counts = torch.bincount(labels, minlength=logits.shape[1])
    balance = counts.to(logits.dtype) / counts.max().clamp(min=1)
    thresholds = cutoff * balance / (2 - balance)
    return Selection(confidence > thresholds[labels], labels, confidence, thresholds, counts)
