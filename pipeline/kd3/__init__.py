"""KD3 as pure functions on tensors (Tang et al., ICCV 2023). Nothing here knows of files."""

from kd3_pipeline.kd3.alignment import (
    ChannelVariance,
    Transfer,
    disagreement_weights,
    per_channel,
    weighted_feature_loss,
)
from kd3_pipeline.kd3.contrast import Projection, nt_xent
from kd3_pipeline.kd3.disagreement import disagreement, disagreement_step
from kd3_pipeline.kd3.mixing import Mixture, draw_mixture, mix_distribution
from kd3_pipeline.kd3.schedule import teacher_weight
from kd3_pipeline.kd3.selection import Selection, select

__all__ = [
    "ChannelVariance",
    "Mixture",
    "Projection",
    "Selection",
    "Transfer",
    "disagreement",
    "disagreement_step",
    "disagreement_weights",
    "draw_mixture",
    "mix_distribution",
    "nt_xent",
    "per_channel",
    "select",
    "teacher_weight",
    "weighted_feature_loss",
]
