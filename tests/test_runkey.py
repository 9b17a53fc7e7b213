import sys
from pathlib import Path

import pytest

from kd3_pipeline import console, runkey, store
from kd3_pipeline.runkey import run_key, sources_of


@pytest.fixture
def inputs(tmp_path):
    (tmp_path / "folder" / "cat").mkdir(parents=True)
    (tmp_path / "folder" / "cat" / "1.jpg").write_bytes(b"one")
    (tmp_path / "folder" / "2.jpg").write_bytes(b"two")
    (tmp_path / "file").write_bytes(b"file")
    return tmp_path


def key(folder, **parameters):
    return run_key(parameters, [folder / "folder", folder / "file"], [Path(runkey.__file__)])


def test_a_key_is_sixteen_hex_digits_and_always_the_same(inputs):
    found = key(inputs, lr=0.1, seed=3)
    assert found == key(inputs, seed=3, lr=0.1)
    assert len(found) == 16 and int(found, 16)


def test_a_key_does_not_depend_on_where_the_inputs_are(inputs):
    before = key(inputs)
    assert key(inputs.rename(inputs.with_name("moved"))) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "file").write_bytes(b"filE"),
        lambda folder: (folder / "folder" / "3.jpg").write_bytes(b""),
        lambda folder: (folder / "folder" / "2.jpg").unlink(),
        lambda folder: (folder / "folder" / "2.jpg").rename(folder / "folder" / "0.jpg"),
        lambda folder: (folder / "folder" / "cat").rename(folder / "folder" / "dog"),
        lambda folder: (folder / "folder" / "cat" / "1.jpg").rename(folder / "folder" / "1.jpg"),
    ],
    ids=["content", "added", "removed", "renamed", "folder renamed", "moved"],
)
def test_every_change_of_the_inputs_changes_the_key(inputs, change):
    before = key(inputs)
    change(inputs)
    assert key(inputs) != before


def test_every_change_of_a_parameter_changes_the_key(inputs):
    keys = {key(inputs), key(inputs, lr=0.1), key(inputs, lr=0.2), key(inputs, momentum=0.1)}
    assert len(keys) == 4
    assert key(inputs, path=Path("x")) == key(inputs, path=Path("x"))


def test_every_change_of_the_code_changes_the_key(tmp_path):
    source = tmp_path / "code.py"
    source.write_text("1")
    before = run_key({}, [], [source])
    source.write_text("2")
    assert run_key({}, [], [source]) != before


def test_sources_are_what_is_loaded_of_this_project():
    found = sources_of(__file__)
    assert Path(store.__file__) in found
    assert found[-1] == Path(__file__)
    root = Path(runkey.__file__).parent
    assert all(root in path.parents for path in found[:-1])
    assert found[:-1] == sorted(found[:-1])
    assert Path(sys.modules["pytest"].__file__) not in found


def test_what_only_words_and_draws_throws_no_checkpoint_away():
    found = sources_of(__file__)
    assert Path(console.__file__) not in found
    assert Path(runkey.__file__) not in found
    root = Path(runkey.__file__).parent.parent
    assert not {root / name for name in runkey.NO_RESULT} & set(found)
