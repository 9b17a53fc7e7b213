import os
import sqlite3

import pytest

from kd3_pipeline import content as module
from kd3_pipeline.content import Hashes, content


@pytest.fixture
def folder(tmp_path):
    found = tmp_path / "folder"
    (found / "cat").mkdir(parents=True)
    (found / "cat/1.jpg").write_bytes(b"one")
    (found / "2.jpg").write_bytes(b"two")
    return found


@pytest.fixture
def look(tmp_path):
    def at(path):
        with Hashes(tmp_path / "cache/hashes.sqlite") as hashes:
            return content(path, hashes)

    return at


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "2.jpg").write_bytes(b"owt"),
        lambda folder: (folder / "3.jpg").write_bytes(b""),
        lambda folder: (folder / "2.jpg").unlink(),
        lambda folder: (folder / "2.jpg").rename(folder / "0.jpg"),
        lambda folder: (folder / "cat").rename(folder / "dog"),
        lambda folder: (folder / "cat/1.jpg").rename(folder / "1.jpg"),
        lambda folder: (folder / os.fsdecode(b"odd\n\xff name")).write_bytes(b"x"),
    ],
    ids=["in place", "added", "removed", "renamed", "folder renamed", "moved", "odd name"],
)
def test_every_change_in_a_folder_changes_its_content(folder, look, change):
    before = look(folder)
    assert look(folder) == before
    change(folder)
    assert look(folder) != before


def test_content_is_the_same_wherever_and_whenever(folder, look, tmp_path):
    before = look(folder)
    assert (before.files, before.bytes) == (2, 6)
    for path in folder.rglob("*"):
        os.utime(path, (1, 1))
    assert look(folder.rename(tmp_path / "moved")) == before


def test_a_file_is_read_once_while_it_stays(folder, look, monkeypatch):
    monkeypatch.setattr(module, "SETTLED", -1)  # as if it were old
    before = look(folder)
    read = []
    digest = module.hashlib.file_digest
    monkeypatch.setattr(module.hashlib, "file_digest", lambda *a: read.append(a) or digest(*a))
    assert look(folder) == before
    assert not read
    (folder / "2.jpg").write_bytes(b"owt")
    assert look(folder) != before
    assert len(read) == 1


def test_a_broken_memory_is_begun_anew(folder, look, tmp_path):
    before = look(folder)
    (tmp_path / "cache/hashes.sqlite").write_bytes(b"no database" * 100)
    assert look(folder) == before


def test_a_file_that_was_just_written_is_not_remembered(folder, look, tmp_path):
    look(folder)
    with sqlite3.connect(tmp_path / "cache/hashes.sqlite") as database:
        assert database.execute("SELECT count(*) FROM hashes").fetchone() == (0,)


def test_links_are_followed_and_circles_end(folder, look, tmp_path):
    before = look(folder)
    other = tmp_path / "other"
    other.mkdir()
    (other / "3.jpg").write_bytes(b"three")
    (folder / "link").symlink_to(other)
    linked = look(folder)
    assert linked.files == 3
    (other / "back").symlink_to(folder)
    (folder / "nothing").symlink_to("gone")
    os.mkfifo(folder / "pipe")
    assert look(folder) == linked
    assert linked != before


def test_what_cannot_be_read_is_told_from_what_can(folder, look, monkeypatch):
    before = look(folder)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Hashes, "of", refuse)
    assert look(folder) != before
    assert look(folder / "2.jpg").sha256.startswith("unreadable")


def test_nothing_is_nothing(look, tmp_path):
    assert look(tmp_path / "gone") is None
    assert look(tmp_path / "\0") is None
