from dataclasses import replace

import pytest
import torch

from pipeline.distill import objectives
from pipeline.kd3 import Projection, mix_distribution, nt_xent
from pipeline.models.network import pool
from pipeline.pixels import normalise
from tests.distill.world import MEAN, STD, TERMS, objective, teacher, web


def batch() -> torch.Tensor:
    return normalise(web().pixels[:16], MEAN, STD)


def draws() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def test_the_teachers_contrast_changes_no_gradient_of_the_student():
    without, published = objective(), objective()
    sum(without.train().losses(batch(), draws()).values()).backward()

    mixed = mix_distribution(batch(), alpha=TERMS.mixing_alpha, generator=draws())
    of_teacher = Projection(teacher().feature_channels)
    views = [of_teacher(pool(teacher().features(images))) for images in (batch(), mixed)]
    dead = TERMS.contrast_weight * nt_xent(*views, TERMS.contrast_temperature)
    (sum(published.train().losses(batch(), draws()).values()) + dead).backward()

    assert of_teacher.linear.weight.grad.abs().sum() > 0
    moved = 0
    for ours, theirs in zip(without.named_parameters(), published.named_parameters(), strict=True):
        (name, one), (_, other) = ours, theirs
        if one.grad is None:
            assert other.grad is None
            assert name.startswith("student.fc.")
        else:
            assert torch.equal(one.grad, other.grad), name
            moved += bool(one.grad.any())
    assert moved > 30


def test_the_terms_have_their_weights_applied():
    terms = objective().train().losses(batch(), draws())
    doubled = objective(terms=replace(TERMS, contrast_weight=0.002)).train()
    again = doubled.losses(batch(), draws())
    assert torch.equal(terms["feature"], again["feature"])
    torch.testing.assert_close(2 * terms["contrast"], again["contrast"])


def test_the_teacher_is_no_part_of_what_is_trained_or_saved():
    for name in ("kd3", "kd"):
        made = objective(name).train()
        assert not teacher().training
        ours = {id(weight) for weight in made.parameters()}
        assert not any(id(weight) in ours for weight in teacher().parameters())
        assert {key.split(".")[0] for key in made.state_dict()} <= {
            "student",
            "transfer",
            "projection",
        }


def test_the_contrast_is_computed_in_float32_under_autocast(monkeypatch):
    seen = {}

    def recorded(a, b, temperature):
        seen["exact"] = nt_xent(a.double(), b.double(), temperature)
        seen["found"] = nt_xent(a, b, temperature)
        return seen["found"]

    monkeypatch.setattr(objectives, "nt_xent", recorded)
    made = objective().train()
    with torch.autocast("cpu", torch.bfloat16):
        terms = made.losses(batch(), draws())
    assert {term.dtype for term in terms.values()} == {torch.float32}
    assert seen["found"].item() == pytest.approx(seen["exact"].item(), rel=1e-5)


def test_plain_distillation_is_the_divergence_of_softened_logits():
    made = objective("kd").eval()
    with torch.no_grad():
        found = made.losses(batch(), draws())["kl"].item()
        of_teacher = (teacher()(batch()).double() / 4).softmax(dim=1)
        of_student = (made.student(batch()).double() / 4).softmax(dim=1)
    divergence = (of_teacher * (of_teacher / of_student).log()).sum(dim=1).mean().item()
    assert found == pytest.approx(16 * divergence, rel=1e-4)


def test_a_student_that_is_the_teacher_has_nothing_to_learn():
    made = objective("kd").eval()
    made.student.load_state_dict(teacher().state_dict())
    with torch.no_grad():
        assert made.losses(batch(), draws())["kl"].item() == pytest.approx(0, abs=1e-5)


def test_a_plain_student_is_deployed_as_it_is():
    made = objective("kd")
    network, architecture = made.deployed()
    assert network is made.student
    assert architecture == {"num_classes": 10}
