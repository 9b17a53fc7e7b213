"""Images on their way from the journal into shards: once on the disk, and nowhere lost."""

import hashlib
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from kd3_pipeline import store
from kd3_pipeline.crawl.gather import Gathered
from kd3_pipeline.crawl.journal import Journal
from kd3_pipeline.crawl.pack import pack
from kd3_pipeline.manifest import Candidate
from kd3_pipeline.store import replacing
from tests.crawl.hosts import Host, crawl, picture, reply, serving
from tests.crawl.stored import candidate, crawled, files

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tests.crawl.stored", "pytest"])
ROWS = 4  # of a shard
COUNT = 15  # images, of which the last three are in a shard of their own
SIDE = 96  # pixels: beside a picture of 28 KB the rest of a shard is little


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SHARD_ROWS", ROWS)


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    yield Host({f"/{n}.bmp": reply(picture(n, "BMP", SIDE)) for n in range(COUNT + 5)})


@pytest.fixture(scope="module")
def hosts(host: Host) -> Iterator[dict[str, tuple[str, int]]]:
    with serving(host) as table:
        yield table


def listed(numbers: range | list[int] = range(COUNT)) -> list[Candidate]:
    """Each picture by its address, the first ten cats, the others dogs; one comes twice."""
    found = [
        candidate(int(number >= 10), number, f"http://0.test/{number}.bmp") for number in numbers
    ]
    return [*found, candidate(1, 99, found[0].url)]


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory, hosts: Any) -> Path:
    """A project whose images are all downloaded, and none is in a shard."""
    folder = tmp_path_factory.mktemp("fetched")
    crawl(folder / ".cache/crawl", listed(), hosts)
    return folder


def copied(fetched: Path, folder: Path) -> Path:
    shutil.copytree(fetched, folder)
    return folder


def outputs(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files(folder / "data/crawl")
    }


def loose(folder: Path) -> list[Path]:
    return list(files(folder / ".cache/crawl/objects"))


def all_held(folder: Path) -> bool:
    """Whether the journal has every image of a record, with the bytes that its id says."""
    with Journal(folder / ".cache/crawl") as journal:
        ids = [one.id for one in journal.records.values() if one.id is not None]
        return len(ids) >= COUNT and all(
            journal.holds(one) and hashlib.sha256(journal.read(one.id)).hexdigest() == one.id
            for one in journal.records.values()
            if one.id is not None
        )


def on_disk(*folders: Path) -> int:
    """Bytes below folders; what has two links is there once."""
    found = {}
    for folder in folders:
        for path in files(folder):
            about = path.stat()
            found[about.st_ino] = about.st_size
    return sum(found.values())


def dying(folder: str, hosts: Any, after: int) -> None:
    """Crawls, and is killed before the move on the disk that comes after so many."""
    store.SHARD_ROWS = ROWS
    left = [after]

    def counted(work: Callable[..., Any]) -> Callable[..., Any]:
        def move(*words: Any, **options: Any) -> Any:
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return work(*words, **options)

        return move

    for name in ("link", "unlink", "replace", "mkdir", "rmdir"):
        setattr(os, name, counted(getattr(os, name)))
    pq.ParquetWriter.close = counted(pq.ParquetWriter.close)  # type: ignore[method-assign]
    store._exchanged = counted(store._exchanged)
    crawled(Path(folder), listed(), hosts)


@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_a_crawl_that_is_killed_at_any_move_on_the_disk_loses_no_image(
    tmp_path: Path, fetched: Path, host: Host, hosts: Any, step: int
) -> None:
    crawled(copied(fetched, tmp_path / "whole"), listed(), hosts)
    asked, kills = len(host.targets), 0
    for moves in range(0, 1000, step):
        folder = copied(fetched, tmp_path / str(moves))
        process = SERVER.Process(target=dying, args=(str(folder), hosts, moves))
        process.start()
        process.join(60)
        kills += process.exitcode == -signal.SIGKILL
        assert process.exitcode in (0, -signal.SIGKILL)
        assert all_held(folder), moves
        crawled(folder, listed(), hosts)
        assert outputs(folder) == outputs(tmp_path / "whole"), moves
        assert loose(folder) == [], moves
        assert len(host.targets) == asked, moves
        if process.exitcode == 0:
            break
    assert kills >= 35 // step


def test_what_a_killed_crawl_had_written_is_not_written_again(
    tmp_path: Path, fetched: Path, hosts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied(fetched, tmp_path / "killed")
    taken: list[int] = []
    take = Journal.take

    def twice(journal: Journal, shard: Path) -> None:
        if len(taken) == 2:
            raise KeyboardInterrupt
        take(journal, shard)
        taken.append(shard.stat().st_ino)

    monkeypatch.setattr(Journal, "take", twice)
    with pytest.raises(KeyboardInterrupt):
        crawled(folder, listed(), hosts)
    assert not (folder / "data/crawl").exists()
    monkeypatch.setattr(Journal, "take", take)
    crawled(folder, listed(), hosts)
    shards = sorted((folder / "data/crawl").glob("images-*"))
    assert [shard.stat().st_ino for shard in shards][:2] == taken
    assert len(shards) == 4


def test_the_disk_never_has_more_than_the_images_and_one_shard(
    tmp_path: Path, fetched: Path, hosts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied(fetched, tmp_path / "measured")
    images = sum(path.stat().st_size for path in loose(folder))
    seen, take = [], Journal.take

    def measured(journal: Journal, shard: Path) -> None:
        seen.append(on_disk(folder))
        take(journal, shard)
        seen.append(on_disk(folder))

    monkeypatch.setattr(Journal, "take", measured)
    crawled(folder, listed(), hosts)
    one, more = images * ROWS / COUNT, 40_000  # the journal, and what shards say of themselves
    assert len(seen) == 8
    assert max(seen) < images + one + more
    assert max(seen[1::2]) < images + more  # after each of the shards
    assert on_disk(folder) < images + more


def test_a_crawl_that_finds_nothing_new_leaves_every_shard_alone(
    tmp_path: Path, fetched: Path, hosts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied(fetched, tmp_path / "again")

    def shards() -> dict[str, tuple[int, int]]:
        found = (folder / "data/crawl").glob("images-*")
        return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}

    crawled(folder, listed(), hosts)
    first, before = shards(), outputs(folder)
    monkeypatch.setattr(Journal, "read", None)  # nor is an image looked at
    for _ in range(2):
        crawled(folder, listed(), hosts)
        assert shards() == first
        assert outputs(folder) == before
    monkeypatch.undo()
    monkeypatch.setattr(store, "SHARD_ROWS", ROWS)
    shutil.rmtree(folder / "data/crawl")  # as DVC does before it runs a stage
    crawled(folder, listed(), hosts)
    assert shards() == first


def test_only_shards_that_come_out_otherwise_are_written(
    tmp_path: Path, fetched: Path, hosts: Any
) -> None:
    folder = copied(fetched, tmp_path / "changed")

    def inodes() -> list[int]:
        return [
            path.stat().st_ino for path in sorted((folder / "data/crawl").glob("images-*.parquet"))
        ]

    def written(project: Path) -> dict[str, str]:  # the manifest has the time of each request
        return {name: one for name, one in outputs(project).items() if name.startswith("images")}

    def fresh(name: str, numbers: Any) -> dict[str, str]:
        crawled(tmp_path / name, listed(numbers), hosts)
        return written(tmp_path / name)

    crawled(folder, listed(), hosts)
    first = inodes()
    crawled(folder, listed(range(COUNT + 3)), hosts)  # fills the last shard, and begins another
    grown = inodes()
    assert grown[:3] == first[:3] and first[3] not in grown and len(grown) == 5
    assert written(folder) == fresh("grown", range(COUNT + 3))
    left = [number for number in range(COUNT) if number != 6]
    crawled(folder, listed(left), hosts)  # all after it move up
    assert inodes()[:1] == grown[:1] and not set(inodes()[1:]) & set(grown)
    assert written(folder) == fresh("left", left)
    assert all_held(folder)  # what the crawl has no more, the journal still has


def packed(folder: Path, fetched: Path, names: list[str], label: int = 0, **more: Any) -> list[int]:
    """Inodes of the shards of a crawl with these names of classes, and one label for all."""
    if not folder.exists():
        copied(fetched, folder)
    with Journal(folder / ".cache/crawl") as journal:
        found = {
            Candidate(label, "cat", "test", "", rank, url): record
            for rank, (url, record) in enumerate(journal.records.items())
        }
        with replacing(folder / "data/crawl") as target:
            pack(target, Gathered(list(found), found, {}), journal, names)
            journal.seal(target)
    return [path.stat().st_ino for path in sorted((folder / "data/crawl").glob("images-*"))]


def test_a_shard_that_says_something_else_of_its_images_is_written(
    tmp_path: Path, fetched: Path
) -> None:
    first = packed(tmp_path / "one", fetched, ["cat", "dog"])
    assert packed(tmp_path / "one", fetched, ["cat", "dog"]) == first
    second = packed(tmp_path / "one", fetched, ["cat", "wolf"])
    assert not set(first) & set(second)
    third = packed(tmp_path / "one", fetched, ["cat", "wolf"], label=1)
    assert not set(second) & set(third)
    packed(tmp_path / "two", fetched, ["cat", "wolf"], label=1)
    assert outputs(tmp_path / "one") == outputs(tmp_path / "two")


def test_without_second_links_a_crawl_is_the_same_and_keeps_its_files(
    tmp_path: Path, fetched: Path, hosts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    crawled(copied(fetched, tmp_path / "links"), listed(), hosts)

    def refused(*paths: Any, **options: Any) -> None:
        raise OSError

    monkeypatch.setattr(os, "link", refused)
    folder = copied(fetched, tmp_path / "none")
    for _ in range(2):
        crawled(folder, listed(), hosts)
        assert outputs(folder) == outputs(tmp_path / "links")
        assert len(loose(folder)) == COUNT
        assert all_held(folder)
