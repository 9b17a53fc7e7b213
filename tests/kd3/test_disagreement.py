import pytest
import torch
from torch import nn
from torch.distributions import Categorical, kl_divergence

from kd3_pipeline.kd3 import disagreement, disagreement_step

SIZE = torch.tensor([0.01, 0.02, 0.03]).view(3, 1, 1)
BLACK, WHITE = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(288, 4))


STUDENT, TEACHER = network(1), network(2)


def images(count: int = 5) -> torch.Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def step(shown: torch.Tensor, size: torch.Tensor = SIZE) -> torch.Tensor:
    return disagreement_step(shown, STUDENT, TEACHER, size, BLACK, WHITE)


def test_disagreement_is_the_divergence_of_the_student_from_the_teacher():
    ours, theirs = torch.randn(2, 6, 4)
    expected = kl_divergence(Categorical(logits=theirs), Categorical(logits=ours))
    torch.testing.assert_close(disagreement(ours, theirs), expected)


def test_the_step_raises_the_disagreement_on_every_image():
    before, after = (disagreement(STUDENT(x), TEACHER(x)) for x in (images(), step(images())))
    assert (after > before).all()


def test_every_pixel_moves_by_the_size_of_its_channel_and_stays_a_colour():
    shown = images()
    found = step(shown)
    moved = (found - shown).abs()
    inside = (shown > SIZE) & (shown < 1 - SIZE)
    torch.testing.assert_close(moved[inside], SIZE.expand_as(shown)[inside])
    assert found.min() >= 0 and found.max() <= 1
    whole = step(shown, torch.full((3, 1, 1), 9.0))
    assert set(whole.unique().tolist()) == {0.0, 1.0}


def test_an_image_moves_by_itself_alone():
    torch.testing.assert_close(step(images())[2:3], step(images()[2:3]))


@pytest.mark.parametrize("still", [STUDENT, TEACHER], ids=["student", "teacher"])
def test_the_gradient_goes_through_both_networks(still):
    constant = lambda x: still(images())  # noqa: E731
    other = TEACHER if still is STUDENT else STUDENT
    pair = (constant, other) if still is STUDENT else (other, constant)
    assert not torch.equal(disagreement_step(images(), *pair, SIZE, BLACK, WHITE), step(images()))


def test_no_gradient_is_left_behind_whether_or_not_one_was_asked_for():
    with torch.no_grad():
        alone = step(images())
    found = step(images())
    assert torch.equal(alone, found) and not found.requires_grad
    assert all(one.grad is None for one in (*STUDENT.parameters(), *TEACHER.parameters()))
