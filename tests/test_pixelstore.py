"""Stored pixels: JPEGs in one file, indexed as an array is, and the centres of either store."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from kd3_pipeline import pixelstore
from kd3_pipeline.demo.domains import original_images
from kd3_pipeline.errors import UserError
from kd3_pipeline.pixelstore import JpegPixels, Taken, WithCrops, centred, decode_jpeg, encode_jpeg

SIDE, COUNT = 24, 13
PIXELS, _ = original_images("train", COUNT, SIDE, 3)


@pytest.fixture
def store(tmp_path) -> JpegPixels:
    jpegs = [encode_jpeg(image, 90) for image in PIXELS]
    (tmp_path / "pixels.jpegs").write_bytes(b"".join(jpegs))
    return JpegPixels.open(tmp_path / "pixels.jpegs", np.cumsum([len(one) for one in jpegs]))


def decoded() -> np.ndarray:
    return np.stack([decode_jpeg(encode_jpeg(image, 90), SIDE) for image in PIXELS])


@pytest.mark.parametrize("cores", [1, 3])
@pytest.mark.parametrize(
    "rows",
    [
        slice(None),
        slice(2, 9, 3),
        slice(-2, None),
        slice(4, 4),
        np.array([5, 0, 5, 12]),
        np.array([], np.int64),
        np.arange(COUNT) % 2 == 1,
        [1, -1],
        7,
        np.int64(-1),
    ],
    ids=str,
)
def test_jpegs_are_indexed_as_an_array_is(store, rows, cores, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    found = store[rows]
    assert found.dtype == np.uint8
    assert np.array_equal(found, decoded()[rows])
    assert (len(store), store.shape) == (COUNT, (COUNT, SIDE, SIDE, 3))


def test_a_row_that_is_not_there_is_an_error(store):
    for rows in (COUNT, np.array([0, COUNT]), [-COUNT - 1]):
        with pytest.raises(IndexError):
            store[rows]


def test_a_better_quality_takes_more_bytes_and_loses_less():
    sizes, errors = [], []
    for quality in (50, 90, 100):
        data = encode_jpeg(PIXELS[0], quality)
        sizes.append(len(data))
        errors.append(np.abs(decode_jpeg(data, SIDE).astype(int) - PIXELS[0]).mean())
    assert sizes == sorted(sizes) and errors == sorted(errors, reverse=True)
    assert errors[-1] < 1


def test_colours_keep_their_resolution():
    stripes = np.zeros((16, 16, 3), np.uint8)
    stripes[:, ::2, 0], stripes[:, 1::2, 2] = 255, 255
    off = np.abs(decode_jpeg(encode_jpeg(stripes, 95), 16).astype(int) - stripes)
    assert off.mean() < 12  # 60 and more at half the resolution


@pytest.mark.parametrize("stored", [24, 25])
@pytest.mark.parametrize("side", [24, 16, 15])
def test_the_centre_is_the_same_of_both_stores(tmp_path, stored, side):
    pixels = np.random.default_rng(0).integers(0, 256, (3, stored, stored, 3), np.uint8)
    jpegs = [encode_jpeg(image, 100) for image in pixels]
    (tmp_path / "a").write_bytes(b"".join(jpegs))
    store = JpegPixels.open(tmp_path / "a", np.cumsum([len(one) for one in jpegs]))
    margin = (stored - side) // 2
    for one in (store[:], store):
        found = centred(one, side)
        assert (len(found), found.shape) == (3, (3, side, side, 3))
        assert np.array_equal(
            found[[2, 0]],
            store[[2, 0]][:, margin : margin + side, margin : margin + side],
        )


def test_images_have_no_centre_that_is_larger(store):
    with pytest.raises(ValueError, match="24 pixels have no centre of 25"):
        centred(store, 25)


def test_taken_rows_are_read_when_they_are_asked_for(store, monkeypatch):
    asked = []
    decode = pixelstore.decode_jpeg
    monkeypatch.setattr(
        pixelstore, "decode_jpeg", lambda data, side: asked.append(1) or decode(data, side)
    )
    taken = Taken(store, np.array([9, 3, 1]))
    assert (len(taken), taken.shape, asked) == (3, (3, SIDE, SIDE, 3), [])
    assert np.array_equal(taken[1:], decoded()[[3, 1]])
    assert len(asked) == 2


def jpeg(**changes) -> bytes:
    out = io.BytesIO()
    image = Image.new(changes.pop("mode", "RGB"), changes.pop("size", (SIDE, SIDE)))
    image.save(out, changes.pop("format", "JPEG"))
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (jpeg(size=(SIDE, 25)), "RGB 24 x 25, not RGB 24"),
        (jpeg(mode="L"), "L 24 x 24, not RGB"),
        (jpeg(format="PNG"), "no whole JPEG"),
        (jpeg()[:-20], "no whole JPEG"),
        (b"nonsense", "no whole JPEG"),
    ],
    ids=["wide", "grey", "png", "cut short", "nonsense"],
)
def test_what_is_no_such_jpeg_is_named_by_its_row(tmp_path, data, text):
    jpegs = [encode_jpeg(PIXELS[0], 90), data]
    (tmp_path / "pixels.jpegs").write_bytes(b"".join(jpegs))
    store = JpegPixels.open(tmp_path / "pixels.jpegs", np.cumsum([len(one) for one in jpegs]))
    store[0]
    with pytest.raises(UserError, match=rf"pixels\.jpegs: row 1: {text}.*: run `dvc repro embed`"):
        store[:]


@pytest.mark.parametrize(
    ("data", "ends"),
    [(b"abc", [2, 4]), (b"abc", [3, 3]), (b"abc", [-1, 3]), (b"abc", [2]), (b"abc", []), (b"", [])],
)
def test_bytes_that_are_not_those_of_the_ends_are_refused(tmp_path, data, ends):
    (tmp_path / "pixels.jpegs").write_bytes(data)
    with pytest.raises(UserError, match=r"pixels\.jpegs .*run `dvc repro embed`"):
        JpegPixels.open(tmp_path / "pixels.jpegs", np.array(ends, np.int64))
    with pytest.raises(UserError, match="cannot be read"):
        JpegPixels.open(tmp_path / "none", np.array([1]))


@pytest.mark.parametrize(
    "places",
    [slice(None), slice(2, 11, 3), np.array([11, 0, 8, 4, 11]), np.array([1, 3]), np.arange(4, 12)],
    ids=str,
)
def test_crop_k_of_image_r_is_at_place_kn_plus_r(store, places):
    images, crops = PIXELS[:4], PIXELS[4:12]  # two crops each, those of an image side by side
    every = np.concatenate([images, crops[0::2], crops[1::2]])
    found = WithCrops(images, crops)
    assert np.array_equal(found[places], every[places])
    assert (len(found), found.shape) == (12, (12, SIDE, SIDE, 3))


def test_a_place_that_is_not_there_is_an_error():
    with pytest.raises(IndexError):
        WithCrops(PIXELS[:4], PIXELS[4:12])[np.array([12])]
