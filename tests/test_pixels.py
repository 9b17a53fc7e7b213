import numpy as np
import pytest
import torch

from pipeline.pixels import normalise, pad_crop, resized_crop

SIDE = 16


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


def test_a_resized_crop_of_everything_is_the_identity(monkeypatch):
    def draw(values: torch.Tensor, low: float, high: float, generator: object) -> torch.Tensor:
        return values.fill_(1.0 if low == 0.08 else 0.0)  # all of the area, as a square

    monkeypatch.setattr(torch.Tensor, "uniform_", draw)
    assert torch.equal(resized_crop(pixels(), source(), False), pixels())


def test_resized_crops_have_the_areas_and_shapes_of_random_resized_crop():
    side = 18
    crops = resized_crop(ramps(400, side), source(), True).double().numpy() / (255 // (side - 1))
    inner = slice(4, side - 4)  # away from the border, where half a pixel is reflected
    width = (crops[:, 9, side - 5, 0] - crops[:, 9, 4, 0]) / (side - 9) * side
    height = (crops[:, side - 5, 9, 1] - crops[:, 4, 9, 1]) / (side - 9) * side
    flipped = width < 0
    width = np.abs(width)
    assert 150 < flipped.sum() < 250
    assert (height > 0).all()
    area, ratio = width * height / side**2, width / height
    assert 0.06 < area.min() < 0.12
    assert 0.9 < area.max() < 1.03
    assert 0.7 < ratio.min() < 0.8
    assert 1.25 < ratio.max() < 1.4
    assert area.mean() == pytest.approx(0.54, abs=0.05)
    # a column says the same in every row, and a row in every column: nothing is turned or sheared
    assert np.ptp(crops[:, inner, :, 0], axis=1).max() == 0
    assert np.ptp(crops[:, :, inner, 1], axis=2).max() == 0


def test_resized_crops_without_flip_are_not_mirrored():
    crops = resized_crop(ramps(100), source(), False).int()
    assert (crops[:, 8, -1, 0] > crops[:, 8, 0, 0]).all()
