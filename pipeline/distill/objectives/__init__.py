"""What a student can minimise, by name. A new objective is one file and one line here."""

from pipeline.distill.objectives.dfnd import DFND
from pipeline.distill.objectives.kd import KD
from pipeline.distill.objectives.kd3 import KD3
from pipeline.distill.objectives.objective import Objective, Terms
from pipeline.distill.objectives.official import Official
from pipeline.distill.objectives.simkd import SimKD

OBJECTIVES: dict[str, type[Objective]] = {
    "kd3": KD3,
    "official": Official,
    "kd": KD,
    "simkd": SimKD,
    "dfnd": DFND,
}

__all__ = ["OBJECTIVES", "Objective", "Terms"]
