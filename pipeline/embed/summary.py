"""What the teacher makes of the crawl, in a few numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def summarise(logits: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    """Counts and confidence of the teacher's predictions; `logits` float [N, C]."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    confidence = 1 / np.exp(shifted).sum(axis=1)
    predicted = np.bincount(logits.argmax(axis=1), minlength=len(class_names))
    return {
        "images": len(logits),
        "mean_confidence": round(float(confidence.mean()), 4),
        "confident": int((confidence > 0.95).sum()),
        "predicted": [
            {"name": name, "images": int(count)}
            for name, count in zip(class_names, predicted, strict=True)
        ],
    }
