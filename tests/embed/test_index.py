import numpy as np
import pytest

from pipeline.embed.index import build_index, neighbours
from pipeline.errors import UserError

FEATURES = np.random.default_rng(0).standard_normal((200, 24)).astype(np.float16)


@pytest.fixture
def index(tmp_path):
    path = tmp_path / "index.faiss"
    build_index(FEATURES, path)
    return path


def test_each_row_is_nearest_to_itself(index):
    rows, cosines = neighbours(index, FEATURES, 1)
    assert rows[:, 0].tolist() == list(range(200))
    np.testing.assert_allclose(cosines, 1, atol=1e-5)


def test_the_answers_are_exact(index):
    queries = np.random.default_rng(1).standard_normal((30, 24)) * 50
    rows, cosines = neighbours(index, queries, 7)
    unit = FEATURES.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    expected = (queries / np.linalg.norm(queries, axis=1, keepdims=True)) @ unit.T
    order = np.argsort(-expected, axis=1)[:, :7]
    assert np.array_equal(rows, order)
    np.testing.assert_allclose(cosines, np.take_along_axis(expected, order, axis=1), atol=1e-5)


def test_no_more_neighbours_are_given_than_there_are_rows(index):
    rows, _ = neighbours(index, FEATURES[:2], 1000)
    assert rows.shape == (2, 200)
    assert sorted(rows[0].tolist()) == list(range(200))


def test_a_feature_of_zeros_is_near_to_nothing(tmp_path):
    build_index(np.vstack([np.zeros(24), FEATURES[:3]]), tmp_path / "index.faiss")
    _, cosines = neighbours(tmp_path / "index.faiss", np.zeros((1, 24)), 4)
    assert cosines.tolist() == [[0] * 4]


def test_building_twice_writes_the_same_bytes(index, tmp_path):
    build_index(FEATURES, tmp_path / "again.faiss")
    assert (tmp_path / "again.faiss").read_bytes() == index.read_bytes()


def test_a_missing_index_is_an_error_of_the_user(tmp_path):
    with pytest.raises(UserError, match=r"none\.faiss cannot be read: .*dvc repro embed"):
        neighbours(tmp_path / "none.faiss", FEATURES[:1], 1)


@pytest.mark.parametrize("length", [0, 3, 20, 1000])
def test_a_cut_off_index_is_an_error_of_the_user(index, length):
    index.write_bytes(index.read_bytes()[:length])
    with pytest.raises(UserError, match=r"index\.faiss cannot be read") as caught:
        neighbours(index, FEATURES[:1], 1)
    assert "\n" not in str(caught.value)


def test_another_kind_of_file_is_no_index(index):
    index.write_bytes(b"PAR1" + bytes(5000))
    with pytest.raises(UserError, match=r"index\.faiss cannot be read"):
        neighbours(index, FEATURES[:1], 1)


def test_a_query_of_another_teacher_is_an_error_of_the_user(index):
    with pytest.raises(UserError, match="has 24 dimensions, the query 64"):
        neighbours(index, np.zeros((1, 64)), 1)
