import numpy as np
import pytest

from kd3_pipeline.embed import index as index_module
from kd3_pipeline.embed.index import build_index, search
from kd3_pipeline.errors import UserError

FEATURES = np.random.default_rng(0).standard_normal((200, 24)).astype(np.float16)
KINDS = ("flat", "ivf", "hnsw", "ivfpq")


def clustered(count: int = 3000, width: int = 24) -> np.ndarray:
    """Features in 30 classes, float16."""
    draws = np.random.default_rng(3)
    centres = draws.standard_normal((30, width)) * 3
    near = draws.standard_normal((count, width))
    return (centres[draws.integers(0, 30, count)] + near).astype(np.float16)


CLUSTERED = clustered()


@pytest.fixture
def index(tmp_path):
    path = tmp_path / "index.faiss"
    build_index(FEATURES, path)
    return path


def exact(features: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and cosines of the nearest, by their definition."""
    unit, asked = (
        values / np.linalg.norm(values, axis=1, keepdims=True)
        for values in (features.astype(np.float64), queries.astype(np.float64))
    )
    cosines = asked @ unit.T
    order = np.argsort(-cosines, axis=1)[:, :k]
    return order, np.take_along_axis(cosines, order, axis=1)


def test_each_row_is_nearest_to_itself(index):
    rows, cosines = search(index, FEATURES, 1)
    assert rows[:, 0].tolist() == list(range(200))
    np.testing.assert_allclose(cosines, 1, atol=1e-5)


def test_the_answers_are_exact(index):
    queries = np.random.default_rng(1).standard_normal((30, 24)) * 50
    rows, cosines = search(index, queries, 7)
    expected_rows, expected = exact(FEATURES, queries, 7)
    assert np.array_equal(rows, expected_rows)
    np.testing.assert_allclose(cosines, expected, atol=1e-5)


def test_no_more_neighbours_are_given_than_there_are_rows(index):
    rows, _ = search(index, FEATURES[:2], 1000)
    assert rows.shape == (2, 200)
    assert sorted(rows[0].tolist()) == list(range(200))


def test_a_feature_of_zeros_is_near_to_nothing(tmp_path):
    build_index(np.vstack([np.zeros(24), FEATURES[:3]]), tmp_path / "index.faiss")
    _, cosines = search(tmp_path / "index.faiss", np.zeros((1, 24)), 4)
    assert cosines.tolist() == [[0] * 4]


@pytest.mark.parametrize("kind", KINDS)
def test_building_twice_writes_the_same_bytes(kind, tmp_path):
    reports = [build_index(CLUSTERED, tmp_path / name, kind) for name in ("a", "b")]
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert reports[0].recall_at_10 == reports[1].recall_at_10


@pytest.mark.parametrize(
    ("kind", "name", "least"),
    [("flat", "Flat", 1), ("ivf", "IVF219,Flat nprobe=", 0.99), ("hnsw", "HNSW32,Flat ef", 0.99)],
)
def test_the_recall_in_the_report_is_that_of_the_file(kind, name, least, tmp_path):
    report = build_index(CLUSTERED, tmp_path / "index", kind)
    assert report.kind.startswith(name)
    assert least <= report.recall_at_10 <= 1
    assert report.build_seconds > 0 and report.query_ms > 0
    rows = np.arange(0, 3000, 3)
    found, _ = search(tmp_path / "index", CLUSTERED[rows], 11)
    nearest, _ = exact(CLUSTERED, CLUSTERED[rows], 11)
    hits = [
        len(set(a) & set(b) - {row})
        for a, b, row in zip(found.tolist(), nearest.tolist(), rows.tolist(), strict=True)
    ]
    assert abs(np.mean(hits) / 10 - report.recall_at_10) < 0.005


def test_the_recall_of_a_poor_index_is_poor(tmp_path):
    report = build_index(CLUSTERED, tmp_path / "index", "ivfpq")
    assert report.kind == "IVF219,PQ3 nprobe=64"
    assert 0.1 < report.recall_at_10 < 0.9


def test_recall_is_counted_by_nearness_where_images_are_copies(tmp_path):
    copies = np.repeat(CLUSTERED[:60], 25, axis=0)
    assert build_index(copies, tmp_path / "index", "ivf").recall_at_10 == 1


def test_an_index_is_flat_until_that_is_slow(tmp_path, monkeypatch):
    assert build_index(CLUSTERED, tmp_path / "index").kind == "Flat"
    monkeypatch.setattr(index_module, "FLAT_VALUES", CLUSTERED.size)
    assert build_index(CLUSTERED, tmp_path / "index").kind == "Flat"
    monkeypatch.setattr(index_module, "FLAT_VALUES", CLUSTERED.size - 1)
    assert build_index(CLUSTERED, tmp_path / "index").kind.startswith("IVF219,Flat")
    monkeypatch.undo()
    monkeypatch.setattr(index_module, "FLAT_ROWS", 2999)
    assert build_index(CLUSTERED, tmp_path / "index").kind.startswith("IVF219,Flat")


def test_an_index_is_flat_where_lists_are_of_no_use(tmp_path, monkeypatch):
    monkeypatch.setattr(index_module, "FLAT_VALUES", 0)
    noise = np.random.default_rng(0).standard_normal((2000, 100))
    assert build_index(noise, tmp_path / "index").kind == "Flat"
    assert build_index(noise, tmp_path / "index", "ivf").recall_at_10 >= 0.99


@pytest.mark.parametrize("kind", ["auto", "flat", "ivf", "hnsw"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_images_are_enough(kind, count, tmp_path, capfd):
    report = build_index(FEATURES[:count], tmp_path / "index", kind)
    assert report.recall_at_10 == 1
    rows, _ = search(tmp_path / "index", FEATURES[:1], 3)
    assert rows[0, 0] == 0
    assert capfd.readouterr() == ("", "")


def test_too_few_images_for_a_product_quantizer_are_an_error_of_the_user(tmp_path):
    with pytest.raises(UserError, match="'ivfpq' needs 256 images, not 200: take 'flat'"):
        build_index(FEATURES, tmp_path / "index", "ivfpq")


def test_a_missing_index_is_an_error_of_the_user(tmp_path):
    with pytest.raises(UserError, match=r"none\.faiss cannot be read: .*dvc repro embed"):
        search(tmp_path / "none.faiss", FEATURES[:1], 1)


@pytest.mark.parametrize("length", [0, 3, 20, 1000])
def test_a_cut_off_index_is_an_error_of_the_user(index, length):
    index.write_bytes(index.read_bytes()[:length])
    with pytest.raises(UserError, match=r"index\.faiss cannot be read") as caught:
        search(index, FEATURES[:1], 1)
    assert "\n" not in str(caught.value)


def test_another_kind_of_file_is_no_index(index):
    index.write_bytes(b"PAR1" + bytes(5000))
    with pytest.raises(UserError, match=r"index\.faiss cannot be read"):
        search(index, FEATURES[:1], 1)


def test_a_query_of_another_teacher_is_an_error_of_the_user(index):
    with pytest.raises(UserError, match="has 24 dimensions, the query 64"):
        search(index, np.zeros((1, 64)), 1)
