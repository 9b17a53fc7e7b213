import hashlib
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest

from kd3_pipeline.dedup import shards as module
from kd3_pipeline.dedup.fingerprints import ARRAYS, COLUMNS, fingerprint_images
from kd3_pipeline.dedup.shards import fingerprint_shards
from kd3_pipeline.engine import Engine
from kd3_pipeline.errors import ExternalError, UserError
from kd3_pipeline.memory import MEGABYTES, allow
from kd3_pipeline.store import StoredImage, shard_path, write_shards
from tests.dedup.pictures import encoded, jpeg, scene

HERE = Engine()


def stored(data, label=0):
    return StoredImage(hashlib.sha256(data).hexdigest(), data, label, 70, 50, "PNG")


def shards(folder, *contents):
    paths = []
    for number, data in enumerate(contents):
        write_shards(folder / str(number), [stored(one, row) for row, one in enumerate(data)], [])
        paths.append(shard_path(folder / str(number), 0))
    return paths


def same(a, b):
    assert a.images.equals(b.images)
    for name in ARRAYS:
        assert np.array_equal(getattr(a, name), getattr(b, name)), name


@pytest.mark.parametrize("kind", ["phash", "whash"])
def test_prints_are_in_the_order_of_shards_and_rows_and_bad_images_are_named(tmp_path, kind):
    good = [encoded(scene(index, 80, 60)) for index in range(4)]
    cut = jpeg(scene(1, 700, 500))
    bad = [good[0][: len(good[0]) // 2], b"<html>", b"", cut[: len(cut) // 2]]
    contents = [[good[0], bad[0], good[1], bad[1]], [], [bad[2], good[2], bad[3], good[3]]]
    seen = []
    found = fingerprint_shards(
        shards(tmp_path, *contents), kind, False, tmp_path / "c", HERE, seen.append
    )
    assert found.images.schema.names == list(COLUMNS)
    data = [*contents[0], *contents[2]]
    table = found.images.to_pydict()
    assert table["id"] == [hashlib.sha256(one).hexdigest() for one in data]
    assert table["shard"] == [0] * 4 + [2] * 4
    assert table["row"] == table["label"] == [0, 1, 2, 3] * 2
    assert table["size"] == [len(one) for one in data]
    assert (table["width"][0], table["height"][0]) == (70, 50)
    broken = np.array([one in bad for one in data])
    assert [bool(error) for error in table["error"]] == broken.tolist()
    assert all("truncated" in table["error"][row] for row in (1, 6))
    for name in ARRAYS:
        assert not getattr(found, name)[broken].any()
    alone, _ = fingerprint_images(good, kind, False)
    for name in ARRAYS:
        assert np.array_equal(getattr(found, name)[~broken], getattr(alone, name)), name
    assert sum(seen) == 8


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_picture_may_take_holds_in_every_process_and_for_what_is_kept(tmp_path, workers):
    paths = shards(tmp_path, [encoded(scene(1, 200, 150), "WEBP"), encoded(scene(2, 80, 60))])
    told = []
    try:
        for megabytes in (0.4, 1, 0.4):
            allow(megabytes)
            with Engine(workers) as engine:
                found = fingerprint_shards(paths, "phash", False, tmp_path / "cache", engine)
            told.append(found.images["error"].to_pylist())
    finally:
        allow(MEGABYTES)
    heavy = ["200 x 150: to decode it takes 1 MB, more than 0", ""]
    assert told == [heavy, ["", ""], heavy]


def test_no_image_and_one_image(tmp_path):
    for paths in ([], shards(tmp_path / "none", [])):
        found = fingerprint_shards(paths, "phash", False, tmp_path / "cache", HERE)
        assert found.images.num_rows == 0
        assert found.images.schema.names == list(COLUMNS)
        assert [getattr(found, name).shape for name in ARRAYS] == [
            (0, *shape) for _, shape in ARRAYS.values()
        ]
    paths = shards(tmp_path / "one", [encoded(scene(1))])
    assert fingerprint_shards(paths, "phash", False, tmp_path / "cache", HERE).grey.shape == (
        1,
        64,
        64,
    )


def test_workers_give_what_one_process_gives(tmp_path):
    data = [encoded(scene(index, 40, 40)) for index in range(230)]
    paths = shards(tmp_path, data[:120], [], [*data[120:], b"no image"])
    alone = fingerprint_shards(paths, "phash", False, tmp_path / "one", HERE)
    done = []
    with Engine(2) as engine:
        about = (paths, "phash", False, tmp_path / "two")
        together = fingerprint_shards(*about, engine, done.append)
    same(alone, together)
    assert sum(done) == 231
    assert alone.images["error"].to_pylist()[:230] == [""] * 230


def test_a_finished_shard_is_not_decoded_again(tmp_path, monkeypatch):
    data = [encoded(scene(index, 40, 40)) for index in range(6)]
    first, second = shards(tmp_path, data[:3], data[3:])
    decoded = []
    monkeypatch.setattr(
        module, "_stored", lambda group: decoded.append(group.path) or stored_group(group)
    )
    cache = tmp_path / "cache"
    fingerprint_shards([first], "phash", False, cache, HERE)
    done = []
    both = fingerprint_shards([second, first], "phash", False, cache, HERE, done.append)
    assert decoded == [first, second]
    assert sum(done) == 6
    assert both.images["shard"].to_pylist() == [0] * 3 + [1] * 3
    fingerprint_shards([first], "phash", True, cache, HERE)
    fingerprint_shards([first], "dhash", False, cache, HERE)
    assert decoded == [first, second, first, first]
    write_shards(first.parent, [stored(data[5])], [])
    assert fingerprint_shards([first], "phash", False, cache, HERE).images.num_rows == 1
    assert decoded == [first, second, first, first, first]
    assert len(list(cache.iterdir())) == 1  # what others left is gone


def test_an_interruption_keeps_the_shards_that_are_finished(tmp_path, monkeypatch):
    data = [encoded(scene(index, 40, 40)) for index in range(6)]
    paths, cache = shards(tmp_path, data[:2], data[2:4], data[4:]), tmp_path / "cache"
    done = []

    def interrupted(n):
        done.append(n)
        if len(done) == 2:  # the second shard is decoded and not stored yet
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fingerprint_shards(paths, "phash", False, cache, HERE, interrupted)
    decoded = []
    monkeypatch.setattr(
        module, "_stored", lambda group: decoded.append(group.path) or stored_group(group)
    )
    resumed = fingerprint_shards(paths, "phash", False, cache, HERE)
    assert decoded == paths[1:]
    same(resumed, fingerprint_shards(paths, "phash", False, tmp_path / "fresh", HERE))


stored_group = module._stored

CHILD = """
import sys, time
from pathlib import Path
from kd3_pipeline.dedup.shards import fingerprint_shards
from kd3_pipeline.engine import Engine
cache, *paths = map(Path, sys.argv[1:])
def advance(n):
    print(n, flush=True)
    time.sleep(0.2)

with Engine(2) as engine:
    fingerprint_shards(paths, "phash", False, cache, engine, advance)
"""


def children(pid):
    found = []
    for path in os.listdir("/proc"):
        if path.isdigit():
            try:
                with open(f"/proc/{path}/stat") as file:
                    state, parent = file.read().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if int(parent) == pid and state != "Z":
                found.append(int(path))
    return found


def gone(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="reads Linux's list of processes")
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_after_an_end_at_any_moment_no_process_is_left_and_work_goes_on(
    tmp_path, monkeypatch, sent
):
    data = [encoded(scene(index, 40, 40)) for index in range(9)]
    paths = shards(tmp_path, data[:3], data[3:6], data[6:])
    cache = tmp_path / "cache"
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, cache, *paths],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    child.stdout.readline()
    child.stdout.readline()  # two shards are done, the second is not stored yet
    workers = children(child.pid)
    assert len(workers) >= 2
    if sent == signal.SIGKILL:
        child.kill()
    else:
        os.killpg(child.pid, sent)  # as Ctrl-C does
    _, said = child.communicate(timeout=30)
    assert child.returncode != 0
    assert said.count("Traceback") <= (sent == signal.SIGINT)
    until = time.monotonic() + 10
    while not all(map(gone, workers)) and time.monotonic() < until:
        time.sleep(0.02)
    assert all(map(gone, workers))

    finished = {path for path in cache.iterdir() if not path.name.startswith(".")}
    assert len(finished) == 1
    decoded = []
    monkeypatch.setattr(
        module, "_stored", lambda group: decoded.append(group.path) or stored_group(group)
    )
    (cache / ".half.tmp1").mkdir()
    resumed = fingerprint_shards(paths, "phash", False, cache, HERE)
    assert decoded == paths[1:]
    assert not list(cache.glob(".*"))
    same(resumed, fingerprint_shards(paths, "phash", False, tmp_path / "fresh", HERE))


def test_a_row_group_that_kills_its_worker_is_named_and_the_shards_before_it_are_kept(
    tmp_path, monkeypatch
):
    good, bad = encoded(scene(1, 40, 40)), encoded(scene(2, 40, 40))
    paths, cache = shards(tmp_path, [good], [bad, good]), tmp_path / "cache"
    monkeypatch.setattr(module, "_fingerprinted", _die_of_two)
    with Engine(2) as engine, pytest.raises(ExternalError) as caught:
        fingerprint_shards(paths, "phash", False, cache, engine)
    told = f"{paths[1]}, row group 0: the process at work on it died 3 times (exit code 9)"
    assert str(caught.value).startswith(told)
    assert [len(list(folder.iterdir())) for folder in cache.iterdir()] == [len(ARRAYS) + 1]


def _die_of_two(table, **settings):
    if table.num_rows == 2:
        os._exit(9)
    return fingerprinted(table, **settings)


fingerprinted = module._fingerprinted


def test_a_file_that_is_no_shard_is_told_before_anything_is_decoded(tmp_path):
    (good,) = shards(tmp_path, [encoded(scene(1, 40, 40))])
    table = pq.read_table(good)
    wrong = tmp_path / "images-00001.parquet"
    pq.write_table(table.set_column(2, "label", table["label"].cast("int32")), wrong)
    with pytest.raises(UserError, match=r"images-00001.parquet: column 'label': expected int64"):
        fingerprint_shards([good, wrong], "phash", False, tmp_path / "cache", HERE)
    assert not (tmp_path / "cache").exists()


def test_the_large_arrays_are_files_and_hold_no_memory(tmp_path):
    paths = shards(tmp_path, [encoded(scene(1, 40, 40))])
    found = fingerprint_shards(paths, "phash", False, tmp_path / "cache", HERE)
    assert isinstance(found.grey, np.memmap)
    assert isinstance(found.colour, np.memmap)
    assert len(list((tmp_path / "cache").iterdir())) == 1
