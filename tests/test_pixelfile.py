"""Pixels in a file read as the same pixels in memory."""

import numpy as np
import pytest

from kd3_pipeline.errors import ExternalError
from kd3_pipeline.pixelfile import PixelFile

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 3), np.uint8)
MASK = np.arange(9) % 3 == 0


def filled() -> PixelFile:
    found = PixelFile(4)
    for image in PIXELS:
        found.append(image)
    return found


@pytest.mark.parametrize(
    "key",
    [
        3,
        -1,
        slice(2, 7),
        slice(None, None, -2),
        slice(5, 5),
        [4, 4, 0, 1, 2],
        np.array([-1, 3]),
        MASK,
        (slice(2, 5), slice(None), slice(None, None, -1)),
        (1, slice(None), 0),
        (slice(None), 0, 0, 0),
        np.array([], np.int64),
    ],
    ids=str,
)
def test_an_index_gives_what_it_gives_of_an_array(key):
    found = filled()[key]
    assert found.dtype == np.uint8
    assert np.array_equal(found, PIXELS[key])


def test_it_is_as_long_and_large_as_the_array():
    found = filled()
    assert (len(found), found.shape, found.nbytes) == (9, PIXELS.shape, PIXELS.nbytes)
    assert np.array_equal(np.asarray(found), PIXELS)


def test_a_row_that_is_not_there_is_an_index_error():
    with pytest.raises(IndexError):
        filled()[9]


def test_an_image_of_another_size_is_no_image_of_it():
    with pytest.raises(ValueError, match=r"\(5, 5, 3\)"):
        filled().append(np.zeros((5, 5, 3), np.uint8))


def test_a_full_disk_is_told_with_the_folder():
    with open("/dev/full", "r+b", buffering=0) as full:
        found = PixelFile(4)
        found._file = full
        with pytest.raises(ExternalError, match="no more can be written: No space left"):
            found.append(PIXELS[0])
