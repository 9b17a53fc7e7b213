import hashlib
import json
import os
import subprocess
import sys
import weakref

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kd3_pipeline import store
from kd3_pipeline.errors import UserError
from kd3_pipeline.store import (
    StoredImage,
    claim,
    read_shard,
    read_table,
    replacing,
    shard_path,
    shard_paths,
    write_csv,
    write_json,
    write_shards,
    write_table,
    write_text,
)


def stored(index, size=100):
    data = (hashlib.sha256(str(index).encode()).digest() * (size // 32 + 1))[:size]
    return StoredImage(hashlib.sha256(data).hexdigest(), data, index % 3, 30, 20 + index, "JPEG")


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_shards_read_back_as_they_were_written(tmp_path):
    images = [stored(index) for index in range(250)]
    assert write_shards(tmp_path, iter(images), ["a", "b", "c"]) == 250
    assert list(read_shard(shard_path(tmp_path, 0))) == images
    assert pq.ParquetFile(shard_path(tmp_path, 0)).num_row_groups == 3


def test_shards_are_the_same_bytes_every_time(tmp_path):
    for name in ("first", "second"):
        write_shards(tmp_path / name, (stored(index) for index in range(250)), ["a", "b", "c"])
    assert bytes_of(tmp_path / "first") == bytes_of(tmp_path / "second")


def test_a_shard_holds_at_most_two_thousand_rows(tmp_path):
    assert write_shards(tmp_path, (stored(index, 1) for index in range(4001)), []) == 4001
    counts = [len(list(read_shard(path))) for path in shard_paths(tmp_path)]
    assert counts == [2000, 2000, 1]
    assert [path.name for path in shard_paths(tmp_path)] == [
        "images-00000.parquet",
        "images-00001.parquet",
        "images-00002.parquet",
    ]


def test_a_shard_holds_at_most_so_many_bytes_but_always_a_row(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "SHARD_BYTES", 250)
    sizes = [100, 100, 50, 1, 300, 300, 249]
    write_shards(tmp_path, (stored(index, size) for index, size in enumerate(sizes)), [])
    shards = [[len(image.data) for image in read_shard(path)] for path in shard_paths(tmp_path)]
    assert shards == [[100, 100, 50], [1], [300], [300], [249]]


def test_no_images_give_one_empty_shard(tmp_path):
    assert write_shards(tmp_path, [], ["a"]) == 0
    assert list(read_shard(shard_path(tmp_path, 0))) == []


def test_shards_say_to_hugging_face_what_they_hold(tmp_path):
    write_shards(tmp_path, [stored(0)], ["cat", "日本"])
    schema = pq.read_schema(shard_path(tmp_path, 0))
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert features["label"] == {"names": ["cat", "日本"], "_type": "ClassLabel"}
    assert list(features) == schema.names
    row = pq.read_table(shard_path(tmp_path, 0)).to_pylist()[0]
    assert row["image"] == {"bytes": stored(0).data, "path": f"{stored(0).id}.jpeg"}


def test_labels_without_names_are_numbers(tmp_path):
    write_shards(tmp_path, [stored(0)], [])
    metadata = pq.read_schema(shard_path(tmp_path, 0)).metadata[b"huggingface"]
    assert json.loads(metadata)["info"]["features"]["label"]["dtype"] == "int64"


@pytest.mark.parametrize(
    ("column", "change", "message"),
    [
        ("label", None, "column 'label': expected int64, found None"),
        ("width", pa.int64(), "column 'width': expected int32, found int64"),
        ("id", pa.large_string(), "column 'id': expected string, found large_string"),
    ],
)
def test_a_wrong_shard_is_named_with_its_column(tmp_path, column, change, message):
    write_shards(tmp_path, [stored(0)], [])
    path = shard_path(tmp_path, 0)
    table = pq.read_table(path)
    index = table.schema.get_field_index(column)
    if change is None:
        table = table.drop_columns([column])
    else:
        table = table.set_column(index, column, table[column].cast(change))
    pq.write_table(table, path)
    with pytest.raises(UserError) as caught:
        list(read_shard(path))
    assert str(caught.value) == f"{path}: {message}"


def test_columns_that_nobody_knows_are_left_alone(tmp_path):
    write_shards(tmp_path, [stored(0)], [])
    path = shard_path(tmp_path, 0)
    pq.write_table(pq.read_table(path).append_column("more", pa.array([1])), path)
    assert list(read_shard(path)) == [stored(0)]


@pytest.mark.parametrize("data", [b"", b"PAR1", b"<html>", bytes(1000)])
def test_what_is_no_parquet_is_named(tmp_path, data):
    path = tmp_path / "x.parquet"
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"x\.parquet cannot be read as Parquet"):
        read_table(path)


def test_damage_behind_a_whole_end_is_named_with_what_to_do(tmp_path):
    path = tmp_path / "x.parquet"
    write_table(path, pa.table({"a": range(1000)}))
    data = bytearray(path.read_bytes())
    data[4:200] = bytes(196)
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"x\.parquet cannot be read as Parquet: .*: do so"):
        read_table(path, hint="do so")


def test_missing_files_are_named_with_what_to_run(tmp_path):
    with pytest.raises(UserError, match=r"x\.parquet not found: run `dvc repro`"):
        read_table(tmp_path / "x.parquet")
    with pytest.raises(UserError, match=r"no image shards in .*pipeline crawl"):
        shard_paths(tmp_path)


def test_tables_are_the_same_bytes_every_time_and_read_by_column(tmp_path):
    table = pa.table({"a": [1, 2], "b": ["x", None]})
    write_table(tmp_path / "1.parquet", table)
    write_table(tmp_path / "2.parquet", table)
    assert (tmp_path / "1.parquet").read_bytes() == (tmp_path / "2.parquet").read_bytes()
    assert read_table(tmp_path / "1.parquet") == table
    assert read_table(tmp_path / "1.parquet", ["b"]).column_names == ["b"]
    with pytest.raises(UserError, match=r"1\.parquet: no column 'c': do so"):
        read_table(tmp_path / "1.parquet", ["b", "c"], "do so")


def test_text_and_json_have_plain_line_ends(tmp_path):
    write_text(tmp_path / "a.txt", "é\n\n")
    assert (tmp_path / "a.txt").read_bytes() == b"\xc3\xa9\n\n"
    write_json(tmp_path / "deep" / "a.json", {"b": "é", "a": [1]})
    assert (tmp_path / "deep" / "a.json").read_text("utf-8") == (
        '{\n  "b": "é",\n  "a": [\n    1\n  ]\n}\n'
    )


def test_csv_has_plain_line_ends_and_an_empty_cell_for_none(tmp_path):
    rows = iter([["a, b", None, 0.1], ("日本", 3, '"')])
    write_csv(tmp_path / "deep" / "a.csv", ("name", "count", "x"), rows)
    assert (tmp_path / "deep" / "a.csv").read_bytes().decode() == (
        'name,count,x\n"a, b",,0.1\n日本,3,""""\n'
    )


# replacing


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("folder", [False, True])
def test_after_a_failure_the_old_output_is_untouched(tmp_path, folder, error):
    target = tmp_path / "out"
    inside = target / "x" if folder else target
    inside.parent.mkdir(exist_ok=True)
    inside.write_text("old")
    with pytest.raises(error), replacing(target) as temporary:
        if folder:
            temporary.mkdir()
            (temporary / "x").write_text("half")
        else:
            temporary.write_text("half")
        raise error
    assert inside.read_text() == "old"
    assert names(tmp_path) == ["out"]


def test_a_failure_where_nothing_was_leaves_nothing(tmp_path):
    with pytest.raises(ValueError), replacing(tmp_path / "out") as temporary:
        temporary.write_text("half")
        raise ValueError
    assert names(tmp_path) == []


@pytest.mark.parametrize("old", ["nothing", "file", "folder", "link"])
@pytest.mark.parametrize("new", ["file", "folder"])
def test_the_new_output_takes_the_place_of_the_old_one(tmp_path, old, new):
    target = tmp_path / "out"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").write_text("kept")
    if old == "file":
        target.write_text("old")
    elif old == "folder":
        (target / "deep").mkdir(parents=True)
        (target / "deep" / "old").write_text("old")
    elif old == "link":
        target.symlink_to(tmp_path / "elsewhere")
    with replacing(target) as temporary:
        if new == "folder":
            temporary.mkdir()
            (temporary / "new").write_text("new")
        else:
            temporary.write_text("new")
    assert names(tmp_path) == ["elsewhere", "out"]
    assert not target.is_symlink()
    assert (names(target) == ["new"]) if new == "folder" else (target.read_text() == "new")
    assert (tmp_path / "elsewhere" / "kept").read_text() == "kept"


def test_a_folder_that_cannot_take_its_place_leaves_the_old_one(tmp_path, monkeypatch):
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("old")
    really = os.replace

    def fails(source, destination):
        if ".tmp" in str(source):
            raise OSError("no space")
        really(source, destination)

    monkeypatch.setattr(os, "replace", fails)
    monkeypatch.setattr(store, "_exchanged", lambda *_: False)
    with pytest.raises(OSError, match="no space"), replacing(target) as temporary:
        temporary.mkdir()
    assert names(tmp_path) == ["out"]
    assert names(target) == ["old"]


@pytest.mark.parametrize("exchange", [True, False])
def test_a_folder_takes_the_place_of_another_with_and_without_an_exchange(
    tmp_path, monkeypatch, exchange
):
    if not exchange:
        monkeypatch.setattr(store, "_exchanged", lambda *_: False)
    target = tmp_path / "out"
    for name in ("one", "two"):
        with replacing(target) as temporary:
            temporary.mkdir()
            (temporary / name).write_text(name)
        assert names(tmp_path) == ["out"]
        assert names(target) == [name]


def test_what_a_killed_process_had_moved_aside_goes_back(tmp_path):
    left = tmp_path / f".out.old{os.getpid()}"
    left.mkdir()
    (left / "old").write_text("old")
    with pytest.raises(ValueError), replacing(tmp_path / "out"):
        raise ValueError
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["old"]


def test_what_a_killed_process_left_is_no_obstacle(tmp_path):
    left = tmp_path / f".out.tmp{os.getpid()}"
    left.mkdir()
    (left / "half").write_text("half")
    with replacing(tmp_path / "out") as temporary:
        temporary.mkdir()
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == []


CLAIMING = """
import sys
from kd3_pipeline.store import claim
file = open(sys.argv[1], "ab")
claim(file)
print("claimed", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such locks")
def test_a_file_that_another_process_writes_is_not_written_by_two(tmp_path):
    words = [sys.executable, "-c", CLAIMING, str(tmp_path / "rows")]
    other = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "claimed\n"
    with (tmp_path / "rows").open("ab") as file:
        with pytest.raises(UserError, match=r"rows is being written by another process"):
            claim(file)
        other.kill()  # however it ends
        other.wait()
        claim(file)
    with (tmp_path / "rows").open("ab") as file:
        claim(file)


def test_no_more_images_are_held_than_a_row_group_has(tmp_path):
    held, most = weakref.WeakSet(), []

    def counted():
        for index in range(450):
            image = stored(index)
            held.add(image)
            most.append(len(held))
            yield image
            del image

    write_shards(tmp_path, counted(), [])
    assert max(most) <= store.ROW_GROUP + 2
