import hashlib
import json
import os
import resource
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from kd3_pipeline.crawl.incoming import IN_MEMORY
from kd3_pipeline.crawl.journal import SYNC_EVERY, Journal
from kd3_pipeline.errors import ExternalError, UserError
from kd3_pipeline.manifest import Fetched


def record(number, **more):
    return Fetched(f"http://0.test/{number}.jpg", "http_error", "Not Found", status=404, **more)


def lines(folder):
    return (folder / "journal.jsonl").read_bytes().split(b"\n")


def test_records_are_there_the_next_time(tmp_path):
    with Journal(tmp_path / "deep" / "folder") as journal:
        journal.add(record(1))
        journal.add(Fetched("http://0.test/ä\ud800\n", "ok", id="ab", width=3, height=4))
    with Journal(tmp_path / "deep" / "folder") as journal:
        assert list(journal.records.values()) == [
            record(1),
            Fetched("http://0.test/ä\ud800\n", "ok", id="ab", width=3, height=4),
        ]


def test_the_last_record_of_an_address_counts(tmp_path):
    with Journal(tmp_path) as journal:
        journal.add(record(1))
        journal.add(record(1, final_url="x"))
        assert journal.records == {record(1).url: record(1, final_url="x")}
    with Journal(tmp_path) as journal:
        assert journal.records == {record(1).url: record(1, final_url="x")}


@pytest.mark.parametrize("torn", [b"{", b'{"url": "http://0.test/3.jpg", "outcome', b"\x00" * 50])
def test_a_torn_last_line_is_cut_off(tmp_path, torn):
    with Journal(tmp_path) as journal:
        journal.add(record(1))
    with (tmp_path / "journal.jsonl").open("ab") as file:
        file.write(torn)
    with Journal(tmp_path) as journal:
        assert list(journal.records.values()) == [record(1)]
        journal.add(record(2))
    with Journal(tmp_path) as journal:
        assert list(journal.records.values()) == [record(1), record(2)]
    assert len(lines(tmp_path)) == 3


@pytest.mark.parametrize(
    "line", [b"{", b"\x00\xff", b"[]", b'{"url": 3}', b'{"url": "x", "outcome": "ok", "new": 1}']
)
def test_a_line_that_is_no_record_loses_only_itself(tmp_path, line):
    with Journal(tmp_path) as journal:
        journal.add(record(1))
    with (tmp_path / "journal.jsonl").open("ab") as file:
        file.write(line + b"\n")
    with Journal(tmp_path) as journal:
        journal.add(record(2))
    with Journal(tmp_path) as journal:
        assert list(journal.records.values()) == [record(1), record(2)]


def test_an_image_is_a_file_named_by_its_content(tmp_path):
    with Journal(tmp_path) as journal:
        name = journal.keep(b"picture")
        assert name == hashlib.sha256(b"picture").hexdigest()
        assert journal.path(name).read_bytes() == b"picture"
        before = journal.path(name).stat().st_mtime_ns
        assert journal.keep(b"picture") == name
        assert journal.path(name).stat().st_mtime_ns == before


def test_many_threads_may_keep_the_same_image(tmp_path):
    with Journal(tmp_path) as journal, ThreadPoolExecutor(8) as threads:
        bodies = [bytes([n % 5]) * 100_000 for n in range(80)]
        names = list(threads.map(journal.keep, bodies))
        for name, body in zip(names, bodies, strict=True):
            assert journal.path(name).read_bytes() == body
    assert list(tmp_path.rglob("*.tmp")) == []


def test_a_large_image_is_a_temporary_file_until_it_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("kd3_pipeline.crawl.incoming.IN_MEMORY", 2)
    with Journal(tmp_path) as journal:
        with journal.incoming() as one, journal.incoming() as other:
            one.write(b"pic")
            other.write(b"other")
            assert len({path.name for path in tmp_path.rglob("*.tmp")}) == 2
            one.write(b"ture")
            assert one.path.read_bytes() == one.read() == b"picture"
            name = one.keep()
        assert (name, one.size) == (hashlib.sha256(b"picture").hexdigest(), 7)
        assert journal.path(name).read_bytes() == b"picture"
        assert list(tmp_path.rglob("*.tmp")) == []  # what was not kept is gone
        with journal.incoming():
            pass
        assert [path for path in tmp_path.rglob("objects/*/*") if path.is_file()] == [
            journal.path(name)
        ]


def test_an_image_is_there_if_its_bytes_are(tmp_path):
    with Journal(tmp_path) as journal:
        name = journal.keep(b"picture")
        whole = Fetched("x", "ok", id=name, size=7)
        assert journal.holds(whole)
        assert journal.holds(Fetched("x", "ok", id=name))  # its size is not on record
        assert not journal.holds(Fetched("x", "ok", id="0" * 64))
        journal.path(name).write_bytes(b"pic")  # as a power cut leaves it
        assert not journal.holds(whole)
        assert journal.keep(b"picture") == name
        assert journal.holds(whole)


def test_half_images_of_a_killed_process_are_removed(tmp_path):
    with Journal(tmp_path) as journal:
        half = journal.incoming()
        half.write(bytes(IN_MEMORY + 1))
        half._file.close()
    assert half.path.exists()
    with Journal(tmp_path):
        assert not half.path.exists()


@pytest.fixture
def room():
    """Limits the size of files that this process writes, as a disk that is full does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_up_is_an_error_and_not_a_half_record(tmp_path, room):
    with Journal(tmp_path) as journal:
        journal.add(record(1))
        size = (tmp_path / "journal.jsonl").stat().st_size
        room(size + 20)  # the kernel's short write
        with pytest.raises(ExternalError, match=r"journal\.jsonl: No space left") as caught:
            journal.add(record(2))
        assert "the same command goes on" in caught.value.hint
        room(resource.RLIM_INFINITY)
        assert list(journal.records) == [record(1).url]
    with Journal(tmp_path) as journal:
        assert list(journal.records) == [record(1).url]
        journal.add(record(3))
    assert [json.loads(line)["url"] for line in lines(tmp_path)[:-1]] == [
        record(1).url,
        record(3).url,
    ]


@pytest.mark.parametrize("in_memory", [0, 1000])
def test_a_disk_that_fills_up_leaves_no_half_image(tmp_path, room, monkeypatch, in_memory):
    monkeypatch.setattr("kd3_pipeline.crawl.incoming.IN_MEMORY", in_memory)
    with Journal(tmp_path) as journal:
        for size in (100, 10):  # a short write, then none at all
            room(size)
            with (
                pytest.raises(ExternalError, match=r"cannot write .*objects") as caught,
                journal.incoming() as incoming,
            ):
                incoming.write(b"x" * 50)
                incoming.write(b"x" * 100)
                incoming.keep()
            assert "the same command goes on" in caught.value.hint
        room(resource.RLIM_INFINITY)
        assert [path for path in (tmp_path / "objects").rglob("*") if path.is_file()] == []
        assert journal.path(journal.keep(b"x" * 150)).stat().st_size == 150


def test_a_folder_that_cannot_be_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ExternalError, match=r"cannot write .*file/journal"),
        Journal(tmp_path / "file" / "journal"),
    ):
        pass


def test_records_reach_the_disk_now_and_then_and_at_the_end(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(len(journal.records)))
    with Journal(tmp_path) as journal:
        for number in range(2 * SYNC_EVERY + 3):
            journal.add(record(number))
    assert synced == [SYNC_EVERY - 1, 2 * SYNC_EVERY - 1, 2 * SYNC_EVERY + 3]


def test_many_records_are_read_in_no_time(tmp_path):
    line = json.dumps(
        {
            "url": "http://0.test/%06d.jpg",
            "outcome": "ok",
            "detail": "",
            "status": 200,
            "final_url": "http://0.test/%06d.jpg",
            "id": "ab" * 32,
            "width": 640,
            "height": 480,
            "format": "JPEG",
            "size": 12345,
            "has_gps": False,
        }
    )
    text = "".join(f"{line % (number, number)}\n" for number in range(30_000))
    (tmp_path / "journal.jsonl").write_text(text)
    start = time.process_time()
    with Journal(tmp_path) as journal:
        assert len(journal.records) == 30_000
    assert time.process_time() - start < 3  # 0.3 s when nothing else runs


def test_two_at_once_are_kept_apart(tmp_path):
    with Journal(tmp_path) as journal:
        journal.add(record(1))
        with pytest.raises(UserError, match="is at work"), Journal(tmp_path):
            pass
        journal.add(record(2))
    with Journal(tmp_path) as journal:
        assert list(journal.records.values()) == [record(1), record(2)]


def test_bytes_that_are_to_go_are_gone_after_a_process_died_in_between(tmp_path):
    with Journal(tmp_path) as journal:
        ids = [journal.keep(text) for text in (b"one", b"two", b"three")]
        journal.add(Fetched("http://0.test/1.jpg", "ok", id=ids[1]))
        journal.dooms(ids[:2])
    with Journal(tmp_path) as journal:  # the record of the second still stands
        assert [journal.path(id).exists() for id in ids] == [False, True, True]
    with Journal(tmp_path) as journal:
        assert [journal.path(id).exists() for id in ids] == [False, True, True]


def test_texts_of_many_records_are_held_once(tmp_path):
    with Journal(tmp_path) as journal:
        for number in range(3):
            url = f"http://0.test/{number}.jpg"
            more = {"id": "ab" * 32, "format": "JPEG", "fetched_at": "2026-05-04T03:02:01+00:00"}
            journal.add(Fetched(url, "ok", "brightened", final_url=url, **more))
    with Journal(tmp_path) as journal:
        first, *others = journal.records.values()
        assert all(one.final_url is one.url for one in journal.records.values())
        for name in ("outcome", "detail", "format", "fetched_at"):
            assert all(getattr(one, name) is getattr(first, name) for one in others)
