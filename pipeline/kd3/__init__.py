"""KD3 as pure functions on tensors (Tang et al., ICCV 2023). Nothing here knows of files."""

from pipeline.kd3.alignment import Transfer, disagreement_weights, weighted_feature_loss
from pipeline.kd3.contrast import Projection, nt_xent
from pipeline.kd3.mixing import mix_distribution
from pipeline.kd3.schedule import teacher_weight
from pipeline.kd3.selection import Selection, select

__all__ = [
    "Projection",
    "Selection",
    "Transfer",
    "disagreement_weights",
    "mix_distribution",
    "nt_xent",
    "select",
    "teacher_weight",
    "weighted_feature_loss",
]
