"""torch.compile of teacher and student, for the time of a training."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from kd3_pipeline.distill.objectives.objective import Objective


@contextmanager
def compiled(objective: Objective, device: torch.device) -> Iterator[None]:
    """Teacher and student as compiled graphs of their own, inside, if `compile` asks for it."""
    wanted = objective.section.compile
    if wanted == "never" or (wanted == "auto" and device.type != "cuda"):
        yield
        return
    networks = [objective.teacher, objective.student]
    for network in networks:
        # an attribute of the instance hides the method or the module of that name; were it set as
        # a module, the names in the state dict would change
        vars(network)["features"] = torch.compile(network.features)
    try:
        yield
    finally:
        for network in networks:
            del vars(network)["features"]
