"""Answers of the teacher as bytes."""

import pytest
import torch

from kd3_pipeline.distill.answers import Form, wants_features
from kd3_pipeline.distill.objectives.objective import with_own_settings
from kd3_pipeline.params import Distill


def written(form: Form, answers: torch.Tensor) -> torch.Tensor:
    records = form.encoded(answers)
    assert records.shape == (len(answers), form.size)
    return form.decoded(torch.from_numpy(records.copy()))


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)) * 3 + 1


@pytest.mark.parametrize("shape", [(5,), (4, 3, 3)])
def test_32_bits_are_the_numbers_themselves(shape: tuple[int, ...]) -> None:
    answers = drawn(6, *shape)
    assert torch.equal(written(Form(shape, 32), answers), answers)


@pytest.mark.parametrize("shape", [(5,), (4, 3, 3)])
def test_16_bits_are_half_precision(shape: tuple[int, ...]) -> None:
    answers = drawn(6, *shape)
    assert torch.equal(written(Form(shape, 16), answers), answers.half().float())


def test_8_bits_are_half_a_step_off_at_most_each_answer_by_its_own_range() -> None:
    answers = drawn(6, 4, 3, 3) * torch.tensor([1e-3, 1, 1e3, 1e6, -5, 1]).view(-1, 1, 1, 1)
    found = written(Form((4, 3, 3), 8), answers)
    flat = answers.flatten(1)
    step = (flat.amax(dim=1) - flat.amin(dim=1)) / 255
    off = (found - answers).flatten(1).abs().amax(dim=1)
    assert (off <= 0.501 * step).all()
    assert (found.flatten(1).amin(dim=1) == flat.amin(dim=1)).all()


def test_8_bits_hold_an_answer_that_is_the_same_everywhere() -> None:
    answers = torch.full((2, 7), 3.25)
    assert torch.equal(written(Form((7,), 8), answers), answers)
    assert torch.equal(written(Form((7,), 8), 0 * answers), 0 * answers)


def test_the_size_of_a_record_is_what_the_disk_pays() -> None:
    assert [Form((64, 8, 8), bits).size for bits in (8, 16, 32)] == [4104, 8192, 16384]


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, True),
        ({"alignment": False, "logit_weight": 1.0}, False),
        ({"objective": "simkd", "alignment": False}, True),
        ({"objective": "kd"}, False),
        ({"objective": "dfnd"}, False),
    ],
)
def test_features_are_wanted_where_they_are_aligned(changes: dict, wanted: bool) -> None:
    assert wants_features(with_own_settings(Distill(**changes))) is wanted
