import copy
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from kd3_pipeline.distill.objectives import kd3
from kd3_pipeline.distill.objectives.objective import Objective, with_own_settings
from kd3_pipeline.distill.state import State
from kd3_pipeline.distill.views import Views
from kd3_pipeline.kd3 import disagreement_weights, nt_xent
from kd3_pipeline.models import build
from kd3_pipeline.models.checkpoint import ModelConfig, save_model
from kd3_pipeline.models.distilled import Distilled, load_student
from kd3_pipeline.models.network import Network, pool
from kd3_pipeline.params import Distill
from kd3_pipeline.pixels import normalise
from kd3_pipeline.registry import OBJECTIVES
from tests.distill.world import CPU, MEAN, STD, pixels, section, teacher, web

ALL = sorted(OBJECTIVES.entries)
COUNT = 12


def batch() -> Tensor:
    return normalise(pixels(slice(COUNT)), MEAN, STD)


@cache
def unsure() -> Network:
    """The teacher of the world with smaller logits: the weights of the world's are all nearly 1."""
    network = copy.deepcopy(teacher())
    network.fc.weight.data /= 60
    return network


def new(**changes: Any) -> Objective:
    of = with_own_settings(section(**changes))
    torch.manual_seed(0)
    student = build(of.student, 10)
    return OBJECTIVES.load(of.objective)(student, unsure(), batch(), of)


def made(**changes: Any) -> Objective:
    """The objective of these parameters, whose running statistics are no initial ones."""
    found = new(**changes).train()
    with torch.no_grad():
        for _ in range(3):
            forward(found)
    return found


def forward(of: Objective) -> dict[str, Tensor]:
    return of(*of.views(batch(), torch.Generator().manual_seed(7)))


def judged(**changes: Any) -> dict[str, Tensor]:
    """The terms in evaluation mode, where an image's features are its own."""
    with torch.no_grad():
        return forward(made(**changes).eval())


def trained(of: Objective, terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """The gradients by name."""
    of.zero_grad()
    sum(terms.values()).backward()
    return {name: p.grad for name, p in of.named_parameters() if p.grad is not None}


def exact(logits: Tensor, temperature: float = 1.0) -> Tensor:
    return (logits.double() / temperature).softmax(dim=1)


def divergences(student: Tensor, target: Tensor, temperature: float) -> Tensor:
    """T² KL of each image, in float64."""
    p, q = exact(target, temperature), exact(student, temperature)
    return temperature**2 * (p * (p / q).log()).sum(dim=1)


def maps(of: Objective) -> tuple[Tensor, Tensor]:
    """The two feature maps that alignment compares, in float64."""
    with torch.no_grad():
        found = of.transfer(of.student.features(batch()), of.teacher.features(batch()))
    return found[0].double(), found[1].double()


def squares(of: Objective) -> Tensor:
    ours, theirs = maps(of)
    return (ours - theirs).square().mean(dim=(1, 2, 3))


# what all have in common


@pytest.mark.parametrize("name", ALL)
def test_what_an_objective_fixes_are_parameters_with_values_they_may_have(name):
    Distill(**OBJECTIVES.load(name).settings)


@pytest.mark.parametrize("name", ALL)
def test_the_teacher_stays_frozen_in_evaluation_mode_and_outside_of_what_is_trained(name):
    before = copy.deepcopy(unsure().state_dict())
    of = made(objective=name).train()
    gradients = trained(of, forward(of))
    assert of.teacher is unsure()
    assert not any(module.training for module in unsure().modules())
    assert all(weight.grad is None for weight in unsure().parameters())
    assert all(torch.equal(value, before[key]) for key, value in unsure().state_dict().items())
    ours = {id(tensor) for tensor in [*of.parameters(), *of.buffers()]}
    assert not ours & {id(tensor) for tensor in [*unsure().parameters(), *unsure().buffers()]}
    modules = {"student", "transfer", "projection", "teacher_projection", "noise_logits"}
    assert {key.split(".")[0] for key in of.state_dict()} <= modules
    # nothing is trained in vain: every parameter has a gradient
    assert gradients.keys() == dict(of.named_parameters()).keys()
    assert all(gradient.any() for gradient in gradients.values())


def sure(network: Network) -> Network:
    torch.manual_seed(3)
    with torch.no_grad():
        for _ in range(5):
            network(batch())
    return network.eval().requires_grad_(False)


VGG = "vgg8"  # its maps of such images are 2 × 2, those of a ResNet 4 × 4


@pytest.mark.parametrize(
    ("changes", "student", "name"),
    [
        *(({"objective": name}, "resnet8", "resnet8") for name in ALL),
        ({"alignment": False, "logit_weight": 1.0}, "resnet8", "resnet8"),
        ({}, "resnet8", VGG),
        ({}, VGG, "resnet8"),
        ({}, "wrn16_1", "resnet8x4"),
    ],
)
def test_the_deployed_network_says_what_the_objective_predicts(tmp_path, changes, student, name):
    of = with_own_settings(section(**changes))
    torch.manual_seed(4)
    network = build(student, 10)
    found = OBJECTIVES.load(of.objective)(network, sure(build(name, 10)), batch(), of)
    with torch.no_grad():
        forward(found.train())
        expected = found.eval().predict(batch())
        built = {"name": student, "num_classes": 10}
        deployed, architecture = found.deployed(built, {"name": name, "num_classes": 10})
        assert isinstance(deployed, Distilled) == hasattr(found, "transfer")
        assert torch.equal(deployed.eval()(batch()), expected)
        assert expected.std(dim=0).min() > 0
        config = ModelConfig(architecture, list("abcdefghij"), MEAN, STD, 16, "a test")
        save_model(tmp_path, deployed, config)
        assert torch.equal(load_student(tmp_path, CPU)[0](batch()), expected)


@pytest.mark.parametrize("name", ALL)
def test_under_autocast_the_terms_and_gradients_are_float32_and_finite(name):
    of = made(objective=name).train()
    with torch.autocast("cpu", torch.bfloat16):
        terms = forward(of)
    gradients = trained(of, terms)
    for value in (*terms.values(), *gradients.values()):
        assert value.dtype == torch.float32
        assert value.isfinite().all()


# kd3 and its switches


def test_a_run_with_every_component_has_three_terms():
    assert set(judged(logit_weight=1.0)) == {"feature", "logit", "contrast"}
    assert set(judged()) == {"feature", "contrast"}


def test_without_mixing_there_is_no_contrast_no_projection_and_no_second_view():
    of = new(mixing=False)
    (only,) = of.views(batch(), torch.Generator())
    assert torch.equal(only, batch())
    assert not hasattr(of, "projection")
    terms, all_terms = forward(of.train()), forward(new().train())
    assert list(terms) == ["feature"]
    assert torch.equal(terms["feature"], all_terms["feature"])


def test_the_mixed_view_is_drawn_from_the_generator_alone():
    of = new()
    state = torch.get_rng_state()
    clean, mixed = of.views(batch(), torch.Generator().manual_seed(1))
    assert torch.equal(clean, batch())
    assert mixed.shape == clean.shape
    assert not torch.equal(mixed, clean)
    assert torch.equal(mixed, of.views(batch(), torch.Generator().manual_seed(1))[1])
    assert not torch.equal(mixed, of.views(batch(), torch.Generator().manual_seed(2))[1])
    assert torch.equal(state, torch.get_rng_state())


def test_a_large_mixing_alpha_mixes_halves():
    """λ → 1/2: in the mean over many draws no image keeps its own statistics."""
    of = new(mixing_alpha=1e6)
    _, mixed = of.views(batch(), torch.Generator().manual_seed(1))
    means = batch().mean(dim=(2, 3))
    partners = 2 * mixed.mean(dim=(2, 3)) - means
    distance = torch.cdist(partners, means).amin(dim=1)
    assert distance.max() < 0.02


def test_with_alignment_the_student_loses_its_classifier():
    of = new()
    assert isinstance(of.student.fc, nn.Identity)
    assert of.transfer.transfer[0].in_channels == of.student.feature_channels


def test_without_alignment_the_student_keeps_its_classifier_and_is_deployed_as_it_is():
    of = made(alignment=False, logit_weight=1.0, mixing=False).train()
    assert not hasattr(of, "transfer")
    terms = forward(of)
    assert set(terms) == {"logit"}
    assert trained(of, terms)["student.fc.weight"].any()
    architecture = {"name": "resnet8", "num_classes": 10}
    network, description = of.deployed(architecture, {"name": "the teacher's"})
    assert network is of.student
    assert description == architecture
    with torch.no_grad():
        of.eval()
        assert torch.equal(of.predict(batch()), of.student(batch()))


def test_without_alignment_the_logit_term_is_that_of_the_students_own_classifier():
    changes = {"alignment": False, "logit_weight": 1.0, "mixing": False}
    plain, own = made(objective="kd").eval(), made(**changes).eval()
    own.student.load_state_dict(plain.student.state_dict())
    with torch.no_grad():
        assert torch.equal(forward(own)["logit"], forward(plain)["kl"])


def test_the_feature_term_is_the_square_weighted_by_disagreement():
    of = made(mixing=False).eval()
    ours, _ = maps(of)
    with torch.no_grad():
        student, target = of.teacher.classify(pool(ours.float())), of.teacher(batch())
        found = forward(of)["feature"].item()
        predicted = of.predict(batch())
    torch.testing.assert_close(predicted, student)
    weights = disagreement_weights(student.double(), target.double())
    assert 0.5 < weights.mean() < 0.9
    assert found == pytest.approx((weights * squares(of)).mean().item(), rel=1e-5)


def test_without_weighting_the_feature_term_is_the_mean_square():
    of = made(mixing=False, weighting=False).eval()
    with torch.no_grad():
        found = forward(of)["feature"].item()
    assert found == pytest.approx(functional.mse_loss(*maps(of)).item(), rel=1e-5)


@pytest.mark.parametrize("weighting", [True, False])
def test_the_relative_feature_term_is_in_units_of_the_teachers_mean_square(weighting):
    of = made(mixing=False, weighting=weighting, feature_loss="relative").eval()
    _, theirs = maps(of)
    mean = judged(mixing=False, weighting=weighting)["feature"].item()
    with torch.no_grad():
        found = forward(of)["feature"].item()
    assert found == pytest.approx(mean / theirs.square().mean().item(), rel=1e-5)


def test_a_transfer_module_that_gives_nothing_has_a_relative_feature_term_of_1():
    of = made(mixing=False, weighting=False, feature_loss="relative").eval()
    for module in of.transfer.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    with torch.no_grad():
        assert forward(of)["feature"].item() == pytest.approx(1, rel=1e-5)


def test_the_standardised_feature_term_is_in_units_of_each_channels_variance():
    of = made(mixing=False, feature_loss="standardised").eval()
    ours, theirs = maps(of)
    weights = disagreement_weights(of.predict(batch()), of.teacher(batch())).double()
    variance = theirs.var(dim=(0, 2, 3), unbiased=False)
    variance = variance.clamp(min=0.01 * variance.mean()).view(1, -1, 1, 1)
    apart = ((ours - theirs).square() / variance).mean(dim=(1, 2, 3))
    with torch.no_grad():
        found = forward(of)["feature"].item()
    assert found == pytest.approx((weights * apart).mean().item(), rel=1e-4)


def test_the_standardised_term_does_not_know_in_which_units_the_teacher_has_a_channel():
    units = torch.linspace(0.2, 5, 64).view(1, -1, 1, 1)
    with torch.no_grad():
        theirs = unsure().features(batch())
    ours, counts = theirs.roll(1, 0), torch.ones(COUNT)
    found = [
        new(feature_loss="standardised", mixing=False).train()._feature_loss(*both, counts)
        for both in ((ours, theirs), (units * ours, units * theirs))
    ]
    # but for channels at the bound, which is one of all channels
    assert found[1].item() == pytest.approx(found[0].item(), rel=0.2)


@pytest.mark.parametrize("mix", ["mixup", "cutmix", "half"])
def test_both_networks_are_shown_the_same_mixed_images(mix, monkeypatch):
    of = new(mixing=False)
    seen = {"student": [], "teacher": []}
    for name, network in (("student", of.student), ("teacher", of.teacher)):
        features = network.features
        monkeypatch.setattr(
            network,
            "features",
            lambda x, name=name, ask=features: seen[name].append(x.clone()) or ask(x),
        )
    section_of = section(mix=mix, mixing=False)
    views = Views(section_of, MEAN, STD)
    state = State(web(), of, views, section_of, torch.float32)
    rows = torch.arange(8)
    state.step(rows, pixels(slice(8)), 1, 0.1)
    ((ours,), (theirs,)) = seen.values()
    assert torch.equal(ours, theirs)
    plain = State(web(), of, views, section(mixing=False), torch.float32)
    plain.step(rows, pixels(slice(8)), 1, 0.1)
    assert not torch.equal(seen["teacher"][1], theirs)


@pytest.mark.parametrize(
    ("parameter", "term", "base"),
    [
        ("feature_weight", "feature", 1.0),
        ("contrast_weight", "contrast", 0.001),
        ("logit_weight", "logit", 1.0),
    ],
)
def test_a_weight_scales_its_own_term_alone(parameter, term, base):
    changes = {"logit_weight": 1.0}
    one, three = judged(**changes), judged(**changes | {parameter: 3 * base})
    for name in one:
        factor = 3 if name == term else 1
        assert three[name].item() == pytest.approx(factor * one[name].item(), rel=1e-6)
    assert one[term] > 0


def test_the_contrast_is_that_of_the_students_clean_and_mixed_views():
    of = made(contrast_weight=0.5, contrast_temperature=0.7).eval()
    clean, mixed = of.views(batch(), torch.Generator().manual_seed(7))
    with torch.no_grad():
        rows = [of.projection(pool(of.student.features(view))) for view in (clean, mixed)]
        expected = 0.5 * nt_xent(*(view.double() for view in rows), 0.7)
        assert forward(of)["contrast"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_logit_term_is_the_divergence_of_the_classifiers_logits():
    of = made(logit_weight=0.5, mixing=False).eval()
    with torch.no_grad():
        found = forward(of)["logit"].item()
        kl = divergences(of.predict(batch()), of.teacher(batch()), 4)
    assert found == pytest.approx(0.5 * kl.mean().item(), rel=1e-4)


def test_the_contrast_is_computed_in_float32_under_autocast(monkeypatch):
    seen = {}

    def recorded(a: Tensor, b: Tensor, temperature: float) -> Tensor:
        seen["rows"] = torch.cat([a, b]).detach()
        seen["exact"] = nt_xent(a.double(), b.double(), temperature).item()
        seen["found"] = nt_xent(a, b, temperature)
        return seen["found"]

    monkeypatch.setattr(kd3, "nt_xent", recorded)
    of = new().train()
    with torch.autocast("cpu", torch.bfloat16):
        forward(of)
    assert seen["rows"].dtype == torch.float32
    lengths = seen["rows"].double().norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths), rtol=0, atol=1e-6)
    assert seen["found"].item() == pytest.approx(seen["exact"], rel=1e-5)


# the others


def test_simkd_is_kd3_with_alignment_alone():
    settings = OBJECTIVES.load("simkd").settings
    assert settings["selection"] == "none"
    own, same = made(objective="simkd", weighting=True), made(objective="kd3", **settings)
    terms, expected = forward(own), forward(same)
    assert set(terms) == {"feature"}
    assert torch.equal(terms["feature"], expected["feature"])
    gradients, theirs = trained(own, terms), trained(same, expected)
    assert gradients.keys() == theirs.keys()
    assert all(torch.equal(gradient, theirs[name]) for name, gradient in gradients.items())


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_plain_distillation_is_the_divergence_of_softened_logits(temperature):
    of = made(objective="kd", kd_temperature=temperature).eval()
    with torch.no_grad():
        expected = divergences(of.student(batch()), of.teacher(batch()), temperature)
        found = forward(of)
    assert set(found) == {"kl"}
    assert found["kl"].item() == pytest.approx(expected.mean().item(), rel=1e-4)


def test_a_student_that_is_the_teacher_has_nothing_to_learn():
    of = new(objective="kd").eval()
    of.student.load_state_dict(unsure().state_dict())
    with torch.no_grad():
        assert forward(of)["kl"].item() == pytest.approx(0, abs=1e-5)


def test_the_noise_of_dfnd_starts_near_none_and_its_rows_are_distributions():
    noise = new(objective="dfnd").noise_logits.softmax(dim=1)
    assert noise.shape == (10, 10)
    torch.testing.assert_close(noise.sum(dim=1), torch.ones(10))
    torch.testing.assert_close(noise.diagonal(), torch.full((10,), 0.9))
    torch.testing.assert_close(noise[0, 1:], torch.full((9,), 0.1 / 9))


def test_dfnd_is_the_divergence_and_the_teachers_label_through_the_noise():
    of = made(objective="dfnd").eval()
    torch.manual_seed(5)
    nn.init.normal_(of.noise_logits)  # neither symmetric nor near the identity
    with torch.no_grad():
        student, target = of.student(batch()), of.teacher(batch())
        found = forward(of)
    noisy = exact(student) @ exact(of.noise_logits)
    rows = torch.arange(COUNT)
    unlikely = -noisy[rows, target.argmax(dim=1)].log().detach()
    assert found["noisy_label"].item() == pytest.approx(unlikely.mean().item(), rel=1e-4)
    kl = divergences(student, target, 4).mean().item()
    assert found["kl"].item() == pytest.approx(kl, rel=1e-4)


def test_dfnd_learns_its_noise_and_its_student():
    of = new(objective="dfnd").train()
    gradients = trained(of, {"noisy_label": forward(of)["noisy_label"]})
    assert gradients["noise_logits"].any()
    assert gradients["student.conv1.weight"].any()
    noise = of.noise_logits
    torch.testing.assert_close(noise.grad.sum(dim=1), torch.zeros(10), rtol=0, atol=1e-6)


def test_dfnd_trains_on_the_images_of_which_the_teacher_is_sure():
    assert OBJECTIVES.load("dfnd").settings["selection"] == "confident"
