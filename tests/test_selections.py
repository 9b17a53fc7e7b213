import numpy as np
import pyarrow as pa
import pytest

from kd3_pipeline import selections
from kd3_pipeline.errors import UserError
from kd3_pipeline.selections import read_history, read_selection
from kd3_pipeline.store import write_table


def test_the_history_is_a_row_an_image_and_a_column_an_epoch(tmp_path):
    path = tmp_path / "selection.parquet"
    write_table(path, pa.table({"kept": [[True, False, True], [False, False, True]]}))
    assert np.array_equal(read_history(path), [[True, False, True], [False, False, True]])
    write_table(path, pa.table({"kept": pa.array([[], []], pa.list_(pa.bool_()))}))
    assert read_history(path).shape == (2, 0)


@pytest.mark.parametrize(
    "kept",
    [[[True], [True, False]], [None, [True]], ["yes"]],
    ids=["two lengths", "no list", "text"],
)
def test_lists_that_are_no_history_are_named(tmp_path, kept):
    path = tmp_path / "selection.parquet"
    write_table(path, pa.table({"kept": kept}))
    with pytest.raises(UserError, match=r"selection\.parquet: column 'kept': .*dvc repro distill"):
        read_history(path)


def test_a_lacking_column_is_named_with_the_stage(tmp_path):
    path = tmp_path / "selection.parquet"
    write_table(path, pa.table({"id": ["a"]}))
    with pytest.raises(UserError, match="no column 'kept': run `dvc repro distill`"):
        read_selection(path, ["id", "kept"])


def test_a_history_is_read_a_bit_at_a_time(tmp_path, monkeypatch):
    path = tmp_path / "selection.parquet"
    monkeypatch.setattr(selections, "ROWS", 2)
    kept = np.random.default_rng(1).random((7, 3)) < 0.5
    write_table(path, pa.table({"kept": kept.tolist()}))
    assert np.array_equal(read_history(path), kept)
    write_table(path, pa.table({"kept": [[True, False], [True, False], [True], [False]]}))
    with pytest.raises(UserError, match="column 'kept'"):
        read_history(path)
    write_table(path, pa.table({"kept": pa.array([], pa.list_(pa.bool_()))}))
    assert read_history(path).shape == (0, 0)
    write_table(path, pa.table({"id": ["a"]}))
    with pytest.raises(UserError, match="no column 'kept': run `dvc repro distill`"):
        read_history(path)
