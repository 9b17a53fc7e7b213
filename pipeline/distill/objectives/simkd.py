"""SimKD (Chen et al., CVPR 2022): the teacher's classifier reused, features met, nothing else."""

from typing import Any, ClassVar

from kd3_pipeline.distill.objectives.kd3 import KD3


class SimKD(KD3):
    """Alignment with the shared classifier, every image counted alike."""

    settings: ClassVar[dict[str, Any]] = {
        "selection": "none",
        "alignment": True,
        "weighting": False,
        "feature_weight": 1.0,
        "logit_weight": 0.0,
        "mixing": False,
    }
