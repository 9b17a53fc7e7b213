import math

import pytest
import torch
from torch import Tensor

from pipeline.distill import neighbourhood
from pipeline.distill.neighbourhood import on_topic_share


def directions(*degrees: float) -> Tensor:
    """Unit vectors in the plane."""
    angles = torch.tensor(degrees) * (math.pi / 180)
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def by_hand(features: Tensor, labels: Tensor, neighbours: int) -> list[float]:
    """One image at a time; float64."""
    found = []
    for own in range(len(features)):
        cosine = torch.cosine_similarity(features[own].double()[None], features.double())
        order = [row for row in cosine.argsort(descending=True).tolist() if row != own]
        nearest = order[:neighbours]
        found.append(sum(labels[row] == labels[own] for row in nearest).item() / len(nearest))
    return found


def scattered(count: int = 40, classes: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    labels = torch.randint(classes, (count,), generator=generator)
    features = torch.randn(count, 6, generator=generator)
    features[:, :classes] += 1.5 * torch.nn.functional.one_hot(labels, classes)
    return features, labels


def test_an_image_among_those_of_another_class_is_off_topic():
    features = directions(0, 2, 5, 90, 92, 95, 3)
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 1])  # the last is among the first
    found = on_topic_share(features, labels, neighbours=2)
    # nearest to 5° are 3° and 2°, to 0° are 2° and 3°, to 2° are 3° and 0°
    assert found.tolist() == [0.5, 0.5, 0.5, 1, 1, 1, 0]
    assert found.dtype == torch.float32


def test_nearness_is_that_of_directions_not_of_lengths():
    features, labels = scattered()
    lengths = torch.linspace(0.01, 100, len(features))[:, None]
    found = on_topic_share(features * lengths, labels)
    assert torch.equal(found, on_topic_share(features, labels))


@pytest.mark.parametrize("neighbours", [1, 3, 10])
def test_the_share_is_exact(neighbours):
    features, labels = scattered()
    found = on_topic_share(features, labels, neighbours)
    assert found.tolist() == pytest.approx(by_hand(features, labels, neighbours))
    assert 0 < found.mean() < 1


@pytest.mark.parametrize("chunk", [1, 7, 39, 40, 41])
def test_the_share_does_not_depend_on_how_many_are_compared_at_a_time(monkeypatch, chunk):
    features, labels = scattered()
    expected = on_topic_share(features, labels)
    monkeypatch.setattr(neighbourhood, "CHUNK", chunk)
    assert torch.equal(on_topic_share(features, labels), expected)


def test_an_image_is_not_its_own_neighbour_but_its_copy_is():
    labels = torch.tensor([0, 1, 0, 1])
    assert on_topic_share(directions(0, 10, 90, 100), labels, 1).tolist() == [0, 0, 0, 0]
    assert on_topic_share(directions(0, 90, 0, 90), labels, 1).tolist() == [1, 1, 1, 1]


def test_of_fewer_images_than_neighbours_all_others_count():
    labels = torch.tensor([0, 0, 1])
    assert on_topic_share(directions(0, 10, 20), labels).tolist() == [0.5, 0.5, 0]
    assert on_topic_share(directions(0, 10), labels[1:]).tolist() == [0, 0]


@pytest.mark.parametrize("count", [0, 1])
def test_an_image_without_any_other_is_on_topic(count):
    features, labels = scattered()
    assert on_topic_share(features[:count], labels[:count]).tolist() == [1.0] * count


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_features_of_any_precision_are_compared_in_float32(dtype):
    features, labels = scattered()
    rounded = features.to(dtype)
    found = on_topic_share(rounded, labels)
    assert found.dtype == torch.float32
    assert torch.equal(found, on_topic_share(rounded.float(), labels))


def test_features_of_nothing_but_zeros_give_shares_all_the_same():
    found = on_topic_share(torch.zeros(5, 3), torch.arange(5) % 2)
    assert found.isfinite().all()
    assert ((found >= 0) & (found <= 1)).all()
