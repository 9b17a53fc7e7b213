import errno
import hashlib
import json
import resource
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.crawl.candidates import Fetched
from pipeline.crawl.journal import Journal


def record(number, **more):
    return Fetched(f"http://0.test/{number}.jpg", "http_error", "Not Found", 404, **more)


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


def test_half_images_of_a_killed_process_are_removed(tmp_path):
    (tmp_path / "objects" / "ab").mkdir(parents=True)
    half = tmp_path / "objects" / "ab" / "abc.123.tmp"
    half.write_bytes(b"half")
    with Journal(tmp_path):
        assert not half.exists()


def test_a_disk_that_fills_up_is_an_error_and_not_a_half_record(tmp_path):
    with Journal(tmp_path) as journal:
        journal.add(record(1))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        size = (tmp_path / "journal.jsonl").stat().st_size
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, hard))  # the kernel's short write
            with pytest.raises(OSError) as caught:
                journal.add(record(2))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert caught.value.errno == errno.ENOSPC
        assert list(journal.records) == [record(1).url]
    with Journal(tmp_path) as journal:
        assert list(journal.records) == [record(1).url]
        journal.add(record(3))
    assert [json.loads(line)["url"] for line in lines(tmp_path)[:-1]] == [
        record(1).url,
        record(3).url,
    ]
