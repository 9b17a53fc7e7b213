"""KD3 as pure functions on tensors (Tang et al., ICCV 2023). Nothing here knows of files."""

from kd3_pipeline.kd3.alignment import Transfer, disagreement_weights, weighted_feature_loss
from kd3_pipeline.kd3.contrast import Projection, nt_xent
from kd3_pipeline.kd3.disagreement import disagreement, disagreement_step
from kd3_pipeline.kd3.mixing import mix_distribution
from kd3_pipeline.kd3.schedule import teacher_weight
from kd3_pipeline.kd3.selection import Selection, select

__all__ = [
    "Projection",
    "Selection",
    "Transfer",
    "disagreement",
    "disagreement_step",
    "disagreement_weights",
    "mix_distribution",
    "nt_xent",
    "select",
    "teacher_weight",
    "weighted_feature_loss",
]
