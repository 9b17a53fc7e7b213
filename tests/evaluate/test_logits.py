import numpy as np
import pytest
import torch

from kd3_pipeline.errors import UserError
from kd3_pipeline.evaluate.logits import logits_of
from kd3_pipeline.models import build

CPU = torch.device("cpu")
MEAN, STD = [0.5] * 3, [0.25] * 3


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)


def test_logits_do_not_depend_on_the_batch_size():
    torch.manual_seed(0)
    network = build("resnet8", 6).eval()
    steps: list[int] = []
    found = [
        logits_of(network, images(23), MEAN, STD, size, CPU, steps.append)
        for size in (1, 7, 23, 64)
    ]
    assert found[0].dtype == np.float32
    assert found[0].shape == (23, 6)
    for other in found[1:]:
        np.testing.assert_allclose(found[0], other, atol=1e-5)
    assert sum(steps) == 4 * 23


def test_logits_are_those_of_the_network_on_normalised_images():
    torch.manual_seed(0)
    network = build("resnet8", 6).eval()
    inputs = (torch.from_numpy(images(5)).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    with torch.no_grad():
        expected = network(inputs).numpy()
    np.testing.assert_allclose(
        logits_of(network, images(5), MEAN, STD, 2, CPU), expected, atol=1e-5
    )


def test_a_memory_map_is_read_like_an_array(tmp_path):
    network = build("resnet8", 6).eval()
    np.save(tmp_path / "pixels.npy", images(5))
    mapped = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    np.testing.assert_array_equal(
        logits_of(network, mapped, MEAN, STD, 2, CPU),
        logits_of(network, images(5), MEAN, STD, 2, CPU),
    )


def test_a_network_that_answers_nonsense_is_told():
    network = build("resnet8", 6).eval()
    with torch.no_grad():
        network.classifier.bias[2] = float("nan")
    with pytest.raises(UserError, match="not finite"):
        logits_of(network, images(3), MEAN, STD, 2, CPU)
