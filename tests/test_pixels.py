import numpy as np
import pytest
import torch
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.functional import resized_crop as torchvision_crop

from kd3_pipeline.pixels import draw_boxes, normalise, pad_crop, parts, to_device
from tests.crops import resized_crop

SIDE = 16
SCALES = [(0.08, 1.0), (0.95, 1.0)]  # of the latter few tries fit
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


def pixels(count: int = 40, side: int = SIDE) -> torch.Tensor:
    generator = torch.Generator().manual_seed(9)
    return torch.randint(0, 256, (count, side, side, 3), generator=generator, dtype=torch.uint8)


def ramps(count: int, side: int = SIDE) -> torch.Tensor:
    """Images that say where each pixel is: column in the first channel, row in the second."""
    place = (torch.arange(side) * (255 // (side - 1))).to(torch.uint8)
    image = torch.zeros(side, side, 3, dtype=torch.uint8)
    image[..., 0], image[..., 1] = place[None, :], place[:, None]
    return image.expand(count, side, side, 3).contiguous()


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_normalise_uses_the_statistics_of_each_channel():
    mean, std = [0.5, 0.25, 0.1], [0.25, 0.5, 0.2]
    images = pixels(3)
    expected = (images.numpy().astype(np.float64) / 255 - mean) / std
    found = normalise(images, mean, std)
    assert found.shape == (3, 3, SIDE, SIDE)
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    np.testing.assert_allclose(found.numpy(), expected.transpose(0, 3, 1, 2), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("mean", "std"),
    [([0.5071, 0.4865, 0.4409], [0.2673, 0.2564, 0.2762]), ([0.1, 0.9, 0.5], [0.2, 0.229, 1.0])],
)
def test_normalise_is_exact_to_a_millionth_for_every_value(mean, std):
    images = torch.arange(256, dtype=torch.uint8).repeat(3).view(1, SIDE, 48, 1)
    images = images.expand(1, SIDE, 48, 3)
    exact = (images.double() / 255 - torch.tensor(mean).double()) / torch.tensor(std).double()
    torch.testing.assert_close(
        normalise(images, mean, std).double(), exact.permute(0, 3, 1, 2), rtol=0, atol=1e-6
    )


def test_no_padding_and_no_mirror_is_the_identity():
    images = pixels()
    assert torch.equal(pad_crop(images, source(), 0, False), images)


def shifts_of(image: np.ndarray, pad: int) -> dict[bytes, tuple[int, int, bool]]:
    """All crops of the image, padded by reflection, each also in the mirror."""
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
    found = {}
    for top in range(2 * pad + 1):
        for left in range(2 * pad + 1):
            crop = padded[top : top + SIDE, left : left + SIDE]
            found[crop.tobytes()] = (top, left, False)
            found[crop[:, ::-1].tobytes()] = (top, left, True)
    return found


@pytest.mark.parametrize("pad", [1, 2, 4])
def test_crops_are_windows_of_the_reflected_image(pad):
    images = pixels(200)
    crops = pad_crop(images, source(), pad, True).numpy()
    seen = [
        shifts_of(image, pad)[crop.tobytes()]
        for image, crop in zip(images.numpy(), crops, strict=True)
    ]
    assert {top for top, _, _ in seen} == set(range(2 * pad + 1))
    assert {left for _, left, _ in seen} == set(range(2 * pad + 1))
    assert 70 < sum(mirrored for _, _, mirrored in seen) < 130


def test_without_flip_nothing_is_mirrored():
    images = pixels(60)
    crops = pad_crop(images, source(), 2, False).numpy()
    for image, crop in zip(images.numpy(), crops, strict=True):
        assert not shifts_of(image, 2)[crop.tobytes()][2]


def test_a_mirror_alone_gives_the_image_or_its_mirror():
    images = pixels()
    crops = pad_crop(images, source(), 0, True)
    mirrored = (crops == images.flip(2)).flatten(1).all(dim=1)
    plain = (crops == images).flatten(1).all(dim=1)
    assert (mirrored ^ plain).all()
    assert 0 < mirrored.sum() < len(images)


@pytest.mark.parametrize(
    "crop", [lambda x, g: pad_crop(x, g, 2, True), lambda x, g: resized_crop(x, g, True)]
)
def test_crops_are_of_the_generator_alone(crop):
    images, state = pixels(), torch.get_rng_state()
    first = crop(images, source(1))
    assert torch.equal(first, crop(images, source(1)))
    assert not torch.equal(first, crop(images, source(2)))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(images, pixels())


def test_resized_crops_keep_shape_type_and_the_range_of_the_values():
    images = 60 + pixels() // 4
    crops = resized_crop(images, source(), True)
    assert crops.shape == images.shape
    assert crops.dtype == torch.uint8
    assert crops.min() >= images.min()
    assert crops.max() <= images.max()


def test_resized_crops_of_plain_images_and_of_single_pixels_are_the_identity():
    plain = torch.arange(40, dtype=torch.uint8).view(-1, 1, 1, 1).expand(40, SIDE, SIDE, 3)
    assert torch.equal(resized_crop(plain, source(), True), plain)
    single = pixels(side=1)
    assert torch.equal(resized_crop(single, source(), True), single)


def test_a_resized_crop_of_everything_is_the_identity():
    assert torch.equal(resized_crop(pixels(), source(), False, (1.0, 1.0)), pixels())


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("side", [7, 16, 32])
@pytest.mark.parametrize("scale", SCALES)
def test_resized_crops_are_torchvisions_for_the_same_boxes(side, scale, flip):
    images = pixels(100, side)
    boxes = draw_boxes(len(images), side, source(3), scale)
    found = resized_crop(images, source(3), flip, scale).int()
    mirrored = 0
    for image, box, crop in zip(images, boxes.T.tolist(), found, strict=True):
        expected = torchvision_crop(image.permute(2, 0, 1), *box, [side, side])
        expected = expected.permute(1, 2, 0).int()
        distance = (crop - expected).abs().max()
        if flip and distance > 1:
            distance = (crop - expected.flip(1)).abs().max()
            mirrored += 1
        assert distance <= 1
    assert (30 < mirrored < 70) == flip


def test_resized_crops_read_nothing_outside_of_their_box():
    """What is outside is white, and shows nowhere in the crops of what is black."""
    boxes = draw_boxes(60, SIDE, source(3), (0.08, 1.0))
    images = torch.full((60, SIDE, SIDE, 3), 255, dtype=torch.uint8)
    for image, (top, left, height, width) in zip(images, boxes.T.tolist(), strict=True):
        image[top : top + height, left : left + width] = 0
    assert images.any()
    assert not resized_crop(images, source(3), True).any()


def largest_gap(one: np.ndarray, other: np.ndarray) -> float:
    """Between the cumulative distributions of two samples (Kolmogorov and Smirnov)."""
    places = np.union1d(one, other)
    below = [
        np.searchsorted(np.sort(values), places, "right") / len(values) for values in (one, other)
    ]
    return np.abs(below[0] - below[1]).max()


@pytest.mark.parametrize("scale", SCALES)
def test_boxes_are_distributed_as_torchvisions(scale):
    count, side = 5000, 24
    found = draw_boxes(count, side, source(), scale).double().numpy()
    image = torch.zeros(3, side, side)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        theirs = [RandomResizedCrop.get_params(image, scale, (3 / 4, 4 / 3)) for _ in range(count)]
    expected = np.array(theirs, dtype=np.float64).T
    limit = 1.95 * np.sqrt(2 / count)  # passed by one of a thousand pairs of equal distributions
    for measure in (
        lambda top, left, height, width: height * width,
        lambda top, left, height, width: width / height,
        lambda top, left, height, width: height,
        lambda top, left, height, width: width,
        lambda top, left, height, width: top,
        lambda top, left, height, width: left,
        lambda top, left, height, width: top + height / 2,
        lambda top, left, height, width: left + width / 2,
    ):
        assert largest_gap(measure(*found), measure(*expected)) < limit


def test_boxes_fill_their_range_and_stay_within_the_image():
    top, left, height, width = draw_boxes(3000, 5, source(), (0.08, 1.0))
    for start, length in ((top, height), (left, width)):
        assert length.min() >= 1
        assert set((start + length).tolist()) <= set(range(1, 6))
        for size in (1, 2, 3, 4, 5):
            assert set(start[length == size].tolist()) == set(range(6 - size))


def test_where_no_try_fits_the_box_is_the_whole_image():
    # all of the area fits as a square alone; ten random ratios are often too far from it
    boxes = draw_boxes(500, 64, source(), (1.0, 1.0))
    assert boxes.T.tolist() == [[0, 0, 64, 64]] * 500


def test_resized_crops_without_flip_are_not_mirrored():
    crops = resized_crop(ramps(100), source(), False).int()
    assert (crops[:, 8, -1, 0] > crops[:, 8, 0, 0]).all()


@needs_cuda
def test_on_cuda_everything_is_as_on_the_cpu_and_nothing_waits_for_the_device():
    device, images, statistics = torch.device("cuda"), pixels(300, 32), ([0.5] * 3, [0.25] * 3)
    there = images.to(device)

    def made(images: torch.Tensor) -> list[torch.Tensor]:
        return [
            normalise(images, *statistics),
            pad_crop(images, source(1), 4, True),
            resized_crop(images, source(1), True),
            to_device(torch.arange(9), images.device),
        ]

    made(there)  # the statistics are copied once
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = made(there)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert found[0].is_contiguous(memory_format=torch.channels_last)
    for one, other in zip(found, made(images), strict=True):
        allowed = 1 if one.dtype == torch.uint8 else 1e-6
        assert (one.cpu().double() - other.double()).abs().max() <= allowed


@pytest.mark.parametrize(
    ("side", "device", "sizes"),
    [
        (4, "cpu", [5, 5, 2]),
        (300, "cpu", [1] * 12),
        (300, "cuda", [5, 5, 2]),
        (200, "cpu", [2] * 6),
    ],
)
def test_batches_are_smaller_where_a_cpu_would_hold_gigabytes(monkeypatch, side, device, sizes):
    monkeypatch.setattr("kd3_pipeline.pixels.AT_ONCE", 80_000)
    pixels = np.arange(12, dtype=np.uint8)[:, None, None, None] * np.ones((side, side, 3), np.uint8)
    found = list(parts(pixels, 5, torch.device(device)))
    assert [len(part) for part in found] == sizes
    assert np.array_equal(np.concatenate(found), pixels)
