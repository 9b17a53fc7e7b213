"""The published step and selection, done naively, against what the pipeline computes."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks import published
from benchmarks.published import Losses, Modules, published_selection, published_step
from kd3_pipeline.kd3 import (
    disagreement_weights,
    mix_distribution,
    nt_xent,
    select,
    weighted_feature_loss,
)
from kd3_pipeline.models import build
from kd3_pipeline.models.network import pool

CPU = torch.device("cpu")
CLASSES = 4


def modules(teacher: str = "resnet8", dtype: torch.dtype = torch.float64) -> Modules:
    torch.manual_seed(0)
    both = published.modules(build("resnet8", CLASSES), build(teacher, CLASSES), CPU)
    return Modules(*(module.to(dtype) for module in both))


def views(count: int = 8, side: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, 3, side, side, generator=generator, dtype=torch.float64)
    return images, mix_distribution(images, alpha=1.0, generator=generator)


def pixels(count: int = 40) -> np.ndarray:
    """Noise around a colour of each image's own."""
    draws = np.random.default_rng(2)
    colours = draws.integers(0, 256, (count, 1, 1, 3))
    noise = draws.normal(0, 30, (count, 32, 32, 3))
    return np.clip(colours + noise, 0, 255).astype(np.uint8)


def tell_apart(of: Modules) -> None:
    """Sets batch statistics and the classifier so that random networks differ between images."""
    images = torch.stack(list(published.Crops(pixels())))
    everything = torch.nn.ModuleList([of.student, of.teacher, of.transfer]).train()
    for module in everything.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        ours, theirs = of.transfer(of.student.features(images), of.teacher.features(images))
        weight, bias = of.teacher.classifier.weight, of.teacher.classifier.bias
        weight.normal_(std=3.0)
        bias.copy_(-weight @ (pool(ours) + pool(theirs)).mean(dim=0) / 2)


def our_step(of: Modules, images: Tensor, mixed: Tensor) -> Losses:
    """The same terms by `kd3_pipeline.kd3`, gradients left in the modules."""
    student_features = of.student.features(images)
    with torch.no_grad():
        teacher_features = of.teacher.features(images)
        teacher_views = [pool(teacher_features), pool(of.teacher.features(mixed))]
    student_map, teacher_map = of.transfer(student_features, teacher_features)
    logits = [of.teacher.classify(pool(found)) for found in (student_map, teacher_features)]
    feature = weighted_feature_loss(student_map, teacher_map, disagreement_weights(*logits))
    student_views = [pool(student_features), pool(of.student.features(mixed))]
    student_term = nt_xent(*map(of.student_projection, student_views))
    teacher_term = nt_xent(*map(of.teacher_projection, teacher_views))
    total = feature + 0.001 * (student_term + teacher_term)
    total.backward()
    return Losses(*(term.item() for term in (total, feature, student_term, teacher_term)))


def gradients(of: Modules) -> dict[str, Tensor]:
    return {
        f"{field}.{name}": parameter.grad
        for field in ("student", "transfer", "student_projection", "teacher_projection")
        for name, parameter in getattr(of, field).named_parameters()
        if parameter.grad is not None
    }


@pytest.mark.parametrize("teacher", ["resnet8", "resnet8x4"])
def test_the_naive_step_has_the_terms_and_gradients_of_ours(teacher):
    naive = modules(teacher)
    ours = copy.deepcopy(naive)
    found, expected = published_step(naive, *views()), our_step(ours, *views())
    assert found == pytest.approx(expected, rel=1e-9)
    assert min(found) > 0
    naive_gradients, our_gradients = gradients(naive), gradients(ours)
    # all but the backbone's own classifier, which no loss touches
    trained = {name for name, _ in ours.student.named_parameters()} - {"fc.weight", "fc.bias"}
    assert {f"student.{name}" for name in trained} < set(our_gradients)
    assert naive_gradients.keys() == our_gradients.keys()
    for name, gradient in naive_gradients.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(gradient, our_gradients[name], rtol=1e-7, atol=1e-12, msg=name)
    for module, other in zip(naive.trained(), ours.trained(), strict=True):
        for buffer, expected_buffer in zip(module.buffers(), other.buffers(), strict=True):
            assert torch.equal(buffer, expected_buffer)


def test_in_float32_the_naive_step_has_our_terms():
    naive = modules(dtype=torch.float32)
    ours = copy.deepcopy(naive)
    both = [view.float() for view in views()]
    found, expected = published_step(naive, *both), our_step(ours, *both)
    assert found == pytest.approx(expected, rel=1e-5)
    for name, gradient in gradients(naive).items():
        theirs = gradients(ours)[name]
        assert (gradient - theirs).norm() <= 1e-4 * theirs.norm(), name


def test_the_teachers_contrast_gives_the_student_no_gradient():
    whole, without = modules(), modules()
    with_term = published_step(whole, *views())
    without_term = published_step(without, *views(), teacher_contrast=False)
    assert with_term.teacher_contrast > 0 == without_term.teacher_contrast
    assert with_term.total > without_term.total
    kept, all_gradients = gradients(without), gradients(whole)
    assert {name for name in all_gradients if name not in kept} == {
        "teacher_projection.linear.weight",
        "teacher_projection.linear.bias",
    }
    for name, gradient in kept.items():
        assert torch.equal(gradient, all_gradients[name]), name


def test_the_naive_mixture_is_ours():
    images, _ = views()
    lam, other = torch.rand(8, dtype=torch.float64), torch.arange(8).roll(3)
    found, expected = published.mix(images, lam, other), mix_distribution(images, lam, other)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert not torch.equal(published.mix(images), images)


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_the_naive_selection_is_ours(alpha):
    of = modules(dtype=torch.float32)
    torch.manual_seed(3)
    tell_apart(of)
    torch.manual_seed(4)
    found = published_selection(of, pixels(), alpha, CPU, batch_size=15, workers=0)

    torch.manual_seed(4)  # the same crops again
    parts = []
    with torch.no_grad():
        for images in DataLoader(published.Crops(pixels()), 15):
            maps = (of.teacher.features(images), of.student.features(images))
            carried, _ = of.transfer(maps[1], maps[0])
            parts.append([of.teacher.classify(pool(features)) for features in (maps[0], carried)])
    logits = [torch.cat(batches) for batches in zip(*parts, strict=True)]
    expected = select(*logits, alpha)
    assert found == expected.mask.nonzero().flatten().tolist()
    assert (expected.counts > 0).sum() > 1
    assert 0 < len(found) < len(pixels())


def test_selection_leaves_no_gradient_and_judges_in_evaluation_mode():
    of = modules(dtype=torch.float32)
    before = copy.deepcopy([module.state_dict() for module in (of.student, of.transfer)])
    published_selection(of, pixels(), 0.5, CPU, workers=0)
    assert not gradients(of)
    for module, state in zip((of.student, of.transfer), before, strict=True):
        for name, value in module.state_dict().items():
            assert torch.equal(value, state[name])


def test_an_epoch_by_several_workers_trains_on_the_kept_images_alone():
    of = modules(dtype=torch.float32)
    before = copy.deepcopy([module.state_dict() for module in of.trained()])
    teacher = copy.deepcopy(of.teacher.state_dict())
    loader = published.train_loader(pixels(), [0, 3, 5, 7, 8, 9, 11], batch_size=4, workers=2)
    assert torch.equal(
        torch.from_numpy(loader.dataset.pixels), torch.from_numpy(pixels()[[0, 3, 5, 7, 8, 9, 11]])
    )
    losses = published.train_epoch(of, published.optimizer(of), loader, CPU)
    assert all(np.isfinite(losses)) and min(losses) > 0
    weighted = losses.feature + 0.001 * (losses.student_contrast + losses.teacher_contrast)
    assert losses.total == pytest.approx(weighted, rel=1e-6)
    for name, value in of.teacher.state_dict().items():
        assert torch.equal(value, teacher[name])
    for module, state in zip(of.trained(), before, strict=True):
        changed = [
            name for name, value in module.state_dict().items() if (value != state[name]).any()
        ]
        assert set(state) - set(changed) <= {"fc.weight", "fc.bias"}
