"""A step on a device that is not the host, as a GPU is: `meta`, of which nothing can be read.

Nothing in a step may mix tensors of the two, nor wait for a value.
"""

import copy
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from kd3_pipeline.distill import state as module
from kd3_pipeline.distill.answers import Form, wants_features
from kd3_pipeline.distill.cost import flops_per_image
from kd3_pipeline.distill.objectives import kd3
from kd3_pipeline.distill.objectives.objective import with_own_settings
from kd3_pipeline.distill.state import State
from kd3_pipeline.distill.teacher_views import StoredViews
from kd3_pipeline.distill.views import Views
from kd3_pipeline.models import build
from kd3_pipeline.models.network import Network
from kd3_pipeline.registry import OBJECTIVES
from tests.distill.test_vectors import Flat
from tests.distill.world import CLASS_COUNT, IMAGES, MEAN, SIDE, STD, pixels, section, teacher, web

THERE = torch.device("meta")
ROWS = torch.arange(13)
MUCH = {
    **{"accumulate": 3, "clip": 1.0, "optimizer": "adamw", "ema": 0.9},
    **{"mix": "cutmix", "feature_loss": "standardised"},
}


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what `meta` does not have, or what is read once, before training."""
    unfused, layers = torch.device("mps"), module.make_optimizer
    monkeypatch.setattr(module, "make_optimizer", lambda *of: layers(*of[:2], unfused))
    monkeypatch.setattr(torch, "autocast", lambda *of, **options: nullcontext())

    def bridge(student: Network, features: torch.Tensor, sign: bool) -> tuple[dict[str, Any], int]:
        return {}, 0 if features.ndim == 2 else features.shape[-1]

    monkeypatch.setattr(kd3, "_bridge", bridge)  # asks for the sign of features


@pytest.mark.parametrize("cut", ["map", "vector"])
@pytest.mark.parametrize("crop", ["resized", "pad", "none"])
@pytest.mark.parametrize(
    ("name", "count"),
    [
        *[("kd3", 0), ("simkd", 0), ("official", 0), ("kd", 0)],
        *[("kd3", 1), ("simkd", 3), ("kd", 1), ("kd", 3), ("dfnd", 3)],
    ],
)
@pytest.mark.parametrize("changes", [{}, MUCH], ids=["plain", "much"])
def test_a_step_stays_on_its_device(
    elsewhere: None, cut: str, crop: str, name: str, count: int, changes: dict[str, Any]
) -> None:
    of = with_own_settings(section(objective=name, crop=crop, teacher_views=count, **changes))
    asked = (Flat(CLASS_COUNT) if cut == "vector" else copy.deepcopy(teacher())).eval().to(THERE)
    student = Flat(CLASS_COUNT) if cut == "vector" else build("resnet8", CLASS_COUNT)
    logits = web().teacher_logits.to(THERE)
    images = replace(web(), teacher_logits=logits, prior=torch.ones(IMAGES, device=THERE))
    views, shown = Views(of, MEAN, STD, SIDE), pixels(slice(len(ROWS))).to(THERE)
    objective = OBJECTIVES.load(name)(student.to(THERE), asked, views.whole(shown[:2]), of)
    objective.to(THERE).train()
    records = None
    if count:
        of = of.model_copy(update={"mix": "none"})  # the teacher has not seen mixed images
        features = [asked.feature_channels, 4, 4][: 3 if cut == "map" else 1]
        form = Form(tuple(features), 8) if wants_features(of) else Form((CLASS_COUNT,), 32)
        stored = np.zeros((IMAGES * count, form.size), np.uint8)
        kept = count > 1 or wants_features(of)
        objective.stored = StoredViews(of, images, views, form, stored if kept else None)
        records = next(iter(objective.stored.records([ROWS], 1)))
    state = State(images, objective, views, of, torch.float32)
    terms = state.step(ROWS, shown, 1, 0.1, records)
    assert {term.device for term in terms.values()} == {THERE}
    assert flops_per_image(objective, views.whole(shown[:2])) > 0
