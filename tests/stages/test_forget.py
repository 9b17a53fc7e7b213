"""`pipeline forget`: images are gone, stay gone, and it is told what was made of them."""

import datetime
import hashlib
import io
import json
import os
import shutil
import signal
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import imagehash
import pyarrow.parquet as pq
import pytest
from PIL import Image

from kd3_pipeline.crawl.journal import Journal
from kd3_pipeline.crawl.removal.drop import drop, planned
from kd3_pipeline.crawl.removal.targets import find, removals_of
from kd3_pipeline.embeddings import write_images
from kd3_pipeline.manifest import LATER
from kd3_pipeline.store import StoredImage, read_shard, shard_paths, write_shards
from tests.crawl.hosts import Host, image, picture, serving
from tests.crawl.stored import (
    World,
    candidate,
    crawled,
    files,
    holding,
    labels_of,
    manifest_of,
    project,
)
from tests.export.world import DROPPED, HELD_OUT, LEAKED, NEVER, TWICE, USED, write_world
from tests.stages.workspace import ROOT, inside, invoke, run

IDS = {index: hashlib.sha256(picture(index)).hexdigest() for index in range(8)}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Five images of two classes: picture 1 is at two hosts, for both classes."""
    hosts = [
        Host({"/1.jpg": image(1), "/2.jpg": image(2)}),
        Host({"/3.jpg": image(3), "/1.jpg": image(1)}),
        Host({"/4.jpg": image(4), "/5.jpg": image(5)}),
    ]
    candidates = [
        candidate(0, 0, "http://0.test/1.jpg#top", "http://shows.example/one"),
        candidate(0, 1, "http://0.test/2.jpg", "http://shows.example/two"),
        candidate(0, 2, "http://0.test/missing.jpg"),
        candidate(0, 3, "http://2.test/4.jpg", original="http://full.1.test/4.jpg"),
        candidate(1, 0, "http://1.test/3.jpg"),
        candidate(1, 1, "http://1.test/1.jpg"),
        candidate(1, 2, "http://2.test/5.jpg"),
    ]
    folder = project(tmp_path / "project")
    with serving(*hosts) as table:
        crawled(folder, candidates, table)
        yield World(folder, hosts, table, candidates)


def dropped(world: World, *targets: str) -> dict:
    return json.loads(invoke(world.folder, "forget", *targets, "--json").stdout)


def assert_gone(world: World, *numbers: int) -> None:
    """No file has these pictures, and a crawl neither asks for them nor brings them back."""
    for _ in range(2):
        for number in range(1, 6):
            there = holding(world.folder, picture(number))
            assert bool(there) == (number not in numbers), there
            assert (IDS[number] in labels_of(world.folder)) == (number not in numbers)
        assert world.again() == []


def test_a_host_goes_with_all_that_it_gave_and_stays_away(world: World) -> None:
    said = dropped(world, "0.test")
    assert set(said["ids"]) == {IDS[1], IDS[2]}
    assert said["bytes"] == len(picture(1)) + len(picture(2))
    assert_gone(world, 1, 2)
    outcomes = manifest_of(world.folder)
    assert outcomes == {
        "http://0.test/1.jpg#top": "forgotten",
        "http://0.test/2.jpg": "forgotten",
        "http://0.test/missing.jpg": "http_error",
        "http://2.test/4.jpg": "stored",
        "http://1.test/3.jpg": "stored",
        "http://1.test/1.jpg": "forgotten",  # the same picture
        "http://2.test/5.jpg": "stored",
    }
    summary = json.loads((world.folder / "reports/crawl.json").read_text())
    assert (summary["stored"], summary["outcomes"]["forgotten"]) == (3, 3)
    assert [one["stored"] for one in summary["classes"]] == [1, 2]


def test_the_manifest_says_when_and_why(world: World) -> None:
    invoke(world.folder, "forget", IDS[3], "--why", "letter of 3 May\x1b[2J")
    rows = pq.read_table(world.folder / "data/crawl/manifest.parquet").to_pylist()
    (row,) = [row for row in rows if row["outcome"] == "forgotten"]
    assert row["url"] == "http://1.test/3.jpg"
    assert (row["id"], row["format"], row["size"]) == (None, "", 0)
    date, why, rule, hash = row["detail"].split("; ")[0].split(": ") + row["detail"].split("; ")[1:]
    assert date.count("-") == 2
    assert (why, rule, hash) == ("letter of 3 May[2J", f"id {IDS[3]}", f"SHA-256 {IDS[3]}")


@pytest.mark.parametrize(
    ("target", "numbers"),
    [
        ("http://0.test/1.jpg", [1]),
        ("http://0.test/1.jpg#top", [1]),
        ("HTTP://0.TEST:80/a/../1.jpg#x", [1]),
        ("http://shows.example/two", [2]),
        ("shows.example", [1, 2]),
        ("http://full.1.test/4.jpg", [4]),
        ("full.1.test", [4]),
        ("1.TEST.", [1, 3, 4]),
        (IDS[5][:8].upper(), [5]),
    ],
)
def test_a_target_is_an_address_a_host_or_an_id(
    world: World, target: str, numbers: list[int]
) -> None:
    assert dropped(world, target)["images"] == len(numbers)
    assert_gone(world, *numbers)


@pytest.mark.parametrize(
    "target",
    [
        "http://0.test/",
        "9.test",
        "est",
        "test",
        "::1",
        "0" * 64,
        IDS[1][:7],
        "http://",
        "",
        "a b",
        "0.test/1.jpg",
    ],
)
def test_an_unknown_target_is_one_line_and_nothing_happens(world: World, target: str) -> None:
    before = state(world.folder)
    result = invoke(world.folder, "forget", "1.test", target, check=False)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "nothing in the crawl has" in result.stderr
    assert state(world.folder) == before


def blocking(folder: Path, *rules: str) -> str:
    (folder / "blocked.txt").write_text("\n".join(rules))
    return "--set=crawl.blocklist=blocked.txt"


@pytest.mark.parametrize(
    ("rules", "numbers"),
    [
        (["1.test"], [1, 3, 4]),  # 4 for the host of its original
        ([IDS[2], "# a comment", "9.example"], [2]),
        ([str(imagehash.phash(Image.open(io.BytesIO(picture(5)))))], [5]),
        (["9.example", "0" * 16], []),
    ],
)
def test_what_a_blocklist_refuses_goes_and_its_rows_name_no_place(
    world: World, rules: list[str], numbers: list[int]
) -> None:
    option = blocking(world.folder, *rules)
    told = json.loads(
        invoke(world.folder, "forget", "--blocklist", option, "--dry-run", "--json").stdout
    )
    assert told["images"] == len(numbers)
    invoke(world.folder, "forget", "--blocklist", option)
    for number in range(1, 6):
        assert bool(holding(world.folder, picture(number))) == (number not in numbers)
    rows = pq.read_table(world.folder / "data/crawl/manifest.parquet").to_pylist()
    blocked = [row for row in rows if row["outcome"] == "blocked"]
    assert bool(blocked) == bool(numbers)
    for row in blocked:
        assert not [row[name] for name in ("url", "page_url", "final_url", "original", "id")
                    if row[name]]  # fmt: skip
        assert all(id not in str(row) for id in IDS.values())
    counted = json.loads((world.folder / "reports/crawl.json").read_text())["outcomes"]
    assert counted.get("blocked", 0) == len(blocked)


def test_the_crawl_stage_obeys_the_list_from_its_first_image_to_what_it_has(
    tmp_path: Path,
) -> None:
    folder = project(tmp_path / "own")
    for number in (1, 2, 3):
        path = folder / f"own/cat/{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    crawl = ["crawl", "--engine", "files", "--source", "own"]
    option = blocking(folder, IDS[1])
    said = json.loads(invoke(folder, *crawl, option, "--json").stdout)
    assert (said["stored"], said["blocked"]) == (2, 1)
    assert not holding(folder / ".cache", picture(1))
    option = blocking(folder, IDS[1], IDS[2])
    assert json.loads(invoke(folder, *crawl, option, "--json").stdout)["stored"] == 1
    assert set(labels_of(folder)) == {IDS[3]}
    assert not holding(folder / ".cache", picture(2))
    option = blocking(folder, "nonsense")
    result = invoke(folder, *crawl, option, check=False)
    assert (result.exit_code, "line 1" in result.stderr) == (2, True)
    assert json.loads(invoke(folder, *crawl, "--json").stdout)["stored"] == 3


def test_perceptual_hashes_are_remembered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    option = blocking(world.folder, "0" * 16)
    invoke(world.folder, "forget", "--blocklist", option)
    monkeypatch.setattr(
        "kd3_pipeline.crawl.removal.phash_cache.decode", lambda data: pytest.fail("decoded again")
    )
    invoke(world.folder, "forget", "--blocklist", option)
    monkeypatch.undo()
    (world.folder / ".cache/crawl/phash.sqlite").write_bytes(b"no database" * 1000)
    invoke(world.folder, "forget", "--blocklist", option)


def test_a_wrong_line_of_a_blocklist_is_an_error_with_its_place(world: World) -> None:
    option = blocking(world.folder, "a.example", "nonsense")
    result = invoke(world.folder, "forget", "--blocklist", option, check=False)
    assert result.exit_code == 2
    assert "blocked.txt, line 2: no host name: 'nonsense'" in result.stderr


def test_nothing_named_is_an_error(world: World) -> None:
    for options in ([], ["--blocklist"]):
        assert invoke(world.folder, "forget", *options, check=False).exit_code == 2


def state(folder: Path) -> dict[str, str]:
    """Content of every file."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files(folder)
    }


def test_a_trace_of_what_was_forgotten_says_so(world: World) -> None:
    dropped(world, IDS[3])
    for target in (IDS[3], IDS[3][:8], "http://1.test/3.jpg"):
        text = invoke(world.folder, "trace", target).output
        assert text.startswith("no image")
        assert f"forgotten ({datetime.date.today().isoformat()}: asked for;" in text


def test_a_dry_run_says_the_same_and_changes_nothing(world: World) -> None:
    before = state(world.folder)
    told = json.loads(invoke(world.folder, "forget", "0.test", "--dry-run", "--json").stdout)
    assert state(world.folder) == before
    said = dropped(world, "0.test")
    assert told == said | {"dry_run": True}


def test_a_folder_of_single_commands_needs_no_pipeline(world: World) -> None:
    (world.folder / "dvc.yaml").unlink()
    said = dropped(world, "0.test")
    assert (said["images"], said["stale"], said["run"]) == (2, [], [])
    assert_gone(world, 1, 2)


def test_what_is_forgotten_twice_was_dropped_before(world: World) -> None:
    dropped(world, "0.test")
    after = state(world.folder)
    for target in ("0.test", IDS[1], "http://0.test/2.jpg"):
        said = dropped(world, target)
        assert (said["images"], said["candidates"]) == (0, 0)
        assert said["already"]
    assert state(world.folder) == after


def test_an_image_comes_back_when_a_crawl_retries_what_was_forgotten(world: World) -> None:
    dropped(world, IDS[3])
    assert world.again(retry=frozenset(["forgotten"])) == ["1/3.jpg"]
    assert IDS[3] in labels_of(world.folder)


def test_a_manifest_of_an_earlier_version_is_understood(world: World) -> None:
    path = world.folder / "data/crawl/manifest.parquet"
    pq.write_table(pq.read_table(path).drop_columns(list(LATER)), path)
    assert dropped(world, "0.test")["images"] == 2
    assert_gone(world, 1, 2)


def test_candidates_that_were_not_needed_are_not_asked_in_their_place(world: World) -> None:
    late = candidate(0, 9, "http://0.test/late.jpg")
    world.hosts[0].routes["/late.jpg"] = image(6)
    table = pq.read_table(world.folder / "data/crawl/manifest.parquet")
    row = table.to_pylist()[0] | {"url": late.url, "id": None, "outcome": "not_needed"}
    more = type(table).from_pylist([*table.to_pylist(), row], schema=table.schema)
    pq.write_table(more, world.folder / "data/crawl/manifest.parquet")
    dropped(world, "0.test")
    world.candidates.append(late)
    assert world.again() == []
    assert manifest_of(world.folder)[late.url] == "forgotten"


def test_images_of_an_earlier_crawl_go_from_the_journal(world: World) -> None:
    last, every = [one for one in world.candidates if "2.test" in one.url], world.candidates
    crawled(world.folder, last, world.table)
    assert holding(world.folder, picture(3))
    assert dropped(world, "http://1.test/3.jpg")["images"] == 1
    assert dropped(world, IDS[2])["images"] == 1
    assert [number for number in range(1, 6) if holding(world.folder, picture(number))] == [1, 4, 5]
    world.candidates = every
    assert world.again() == []
    assert_gone(world, 2, 3)


def test_without_a_crawl_the_journal_alone_forgets(world: World) -> None:
    shutil.rmtree(world.folder / "data")
    assert dropped(world, "1.test")["images"] == 2
    assert not (world.folder / "data/crawl").exists()
    assert_gone_after = [number for number in range(1, 6) if holding(world.folder, picture(number))]
    assert assert_gone_after == [2, 4, 5]
    assert world.again() == []


def test_without_a_journal_the_crawl_alone_forgets(world: World) -> None:
    shutil.rmtree(world.folder / ".cache")
    dropped(world, "1.test")
    assert not holding(world.folder, picture(3))
    asked = world.again()
    assert "1/3.jpg" not in asked
    assert "0/2.jpg" in asked


def test_a_folder_without_dvc_forgets_as_well_and_is_told_nothing_of_dvc(world: World) -> None:
    (world.folder / "dvc.yaml").unlink()
    said = invoke(world.folder, "forget", IDS[3]).stdout
    assert said.startswith("forget: 1 image (0.0 MB) dropped, 1 candidate marked")
    assert "dvc" not in said.lower()
    assert_gone(world, 3)


def test_a_crawl_may_lose_all_of_its_images(world: World) -> None:
    invoke(world.folder, "forget", "0.test", "1.test", "2.test")
    (shard,) = shard_paths(world.folder / "data/crawl")
    assert list(read_shard(shard)) == []
    assert b"huggingface" in pq.read_schema(shard).metadata
    assert json.loads((world.folder / "reports/crawl.json").read_text())["stored"] == 0


def test_a_member_of_an_archive_goes_alone_and_an_archive_whole(world: World) -> None:
    shutil.copytree(world.folder, world.folder.with_name("files"))
    folder = world.folder.with_name("files")
    shutil.rmtree(folder / ".cache")
    (folder / "own").mkdir()
    with tarfile.open(folder / "own/some.tar", "w") as tar:
        for number in (1, 2, 3):
            (folder / f"{number}.jpg").write_bytes(picture(number))
            tar.add(folder / f"{number}.jpg", f"{number}.jpg")
    crawl = ["crawl", "--engine", "files", "--source", "own"]
    invoke(folder, *crawl)
    (name,) = [name for name in manifest_of(folder) if name.endswith("2.jpg")]
    assert "#" in name
    invoke(folder, "forget", name)
    assert [number for number in range(1, 4) if IDS[number] in labels_of(folder)] == [1, 3]
    invoke(folder, "forget", name.partition("#")[0])
    assert labels_of(folder) == {}


def test_shards_stay_in_a_row_and_those_without_a_change_are_links(tmp_path: Path) -> None:
    folder = project(tmp_path / "project")
    routes = {f"/{number}.jpg": image(number) for number in range(1, 7)}
    with serving(Host(routes)) as table:
        urls = [f"http://0.test{path}" for path in routes]
        crawled(folder, [candidate(0, rank, url) for rank, url in enumerate(urls)], table)
    crawl = folder / "data/crawl"
    stored = [image for shard in shard_paths(crawl) for image in read_shard(shard)]
    (crawl / "images-00000.parquet").unlink()
    for number in range(3):
        write_shards(crawl / "part", stored[2 * number : 2 * number + 2], ["cat", "dog"])
        os.replace(crawl / "part/images-00000.parquet", crawl / f"images-{number:05d}.parquet")
    (crawl / "part").rmdir()
    last = crawl / "images-00002.parquet"
    before = last.stat().st_ino
    invoke(folder, "forget", stored[0].id, stored[2].id, stored[3].id)
    assert [path.name for path in shard_paths(crawl)] == [
        "images-00000.parquet",
        "images-00001.parquet",
    ]
    assert (crawl / "images-00001.parquet").stat().st_ino == before
    left = [image for shard in shard_paths(crawl) for image in read_shard(shard)]
    assert left == [stored[1], stored[4], stored[5]]


def test_a_kill_at_any_moment_leaves_what_the_same_command_ends(
    world: World, tmp_path: Path
) -> None:
    clean = tmp_path / "clean"
    shutil.copytree(world.folder, clean)
    invoke(clean, "forget", "0.test")
    wanted = logical(clean)
    before = logical(world.folder)
    moments = 0
    while True:
        folder = tmp_path / "killed"
        shutil.copytree(world.folder, folder)
        alive = forget_until(folder, moments)
        now = logical(folder)
        assert now["crawl"] in (before["crawl"], wanted["crawl"])
        invoke(folder, "forget", "0.test")
        assert logical(folder) == wanted
        shutil.rmtree(folder)
        if alive:
            break
        moments += 1
    assert moments > 8


def logical(folder: Path) -> dict:
    """What a crawl has, apart from how many lines its journal took."""
    with Journal(folder / ".cache/crawl") as journal:
        records = dict(journal.records)
        held = {record.id for record in records.values() if record.id and journal.holds(record)}
    return {
        "crawl": (labels_of(folder), manifest_of(folder)),
        "records": records,
        "held": held,
        "pictures": [bool(holding(folder, picture(number))) for number in range(1, 6)],
        "left": sorted(path.name for path in folder.rglob("*") if ".old" in path.name),
    }


def forget_until(folder: Path, moment: int) -> bool:
    """Forgets a host in a process that is killed at its n-th change on disk; True if it ended."""
    child = os.fork()
    if child == 0:
        try:
            _forget(folder, moment)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return not os.WIFSIGNALED(status)


def _forget(folder: Path, moment: int) -> None:
    os.chdir(folder)
    left = [moment]

    def changing(event: str, arguments: tuple) -> None:
        writes = event == "open" and isinstance(arguments[1], str) and arguments[1] != "r"
        if event in ("os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir") or writes:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    crawl = Path("data/crawl")
    with Journal(Path(".cache/crawl")) as journal:
        manifest = crawl / "manifest.parquet"
        wanted = find(["0.test"], manifest, journal)
        said = f"{datetime.date.today().isoformat()}: asked for"
        removals = removals_of(wanted, manifest, journal, "forgotten", said)
        result = planned(crawl, journal, removals)
        sys.addaudithook(changing)
        drop(crawl, journal, removals, result)
        left[0] = 10**6
    os._exit(0)


def test_under_dvc_the_old_bytes_stay_in_its_cache_and_commit_makes_the_crawl_current(
    world: World,
) -> None:
    folder = world.folder
    for name in (".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    run(folder, "git", "init", "-q")
    invoke(folder, "inputs")
    run(folder, "dvc", "commit", "--quiet", "--force", "crawl")
    shard = folder / "data/crawl/images-00000.parquet"
    assert not shard.stat().st_mode & 0o222  # a link to DVC's cache, which must not change
    invoke(folder, "forget", "0.test")
    assert not [path for path in holding(folder, picture(2)) if not path.startswith(".dvc/cache")]
    with inside(folder) as repo:
        assert "crawl" in repo.status(targets=["crawl"])
        repo.commit("crawl", force=True)
        assert "crawl" not in repo.status(targets=["crawl"])
        repo.reproduce(["crawl"], dry=True)
    assert holding(folder, picture(2))  # in the cache of DVC, as the command says
    run(folder, "dvc", "gc", "-w", "-f", "-q")
    assert not holding(folder, picture(2))


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A student, its export and all tables of what it was trained on."""
    folder = project(tmp_path / "trained")
    write_world(folder)
    ids = [USED, TWICE, NEVER, HELD_OUT, DROPPED, LEAKED]
    images = [StoredImage(id, picture(n), 0, 32, 32, "JPEG") for n, id in enumerate(ids)]
    write_shards(folder / "data/crawl", images, ["cat"])
    (folder / "reports/dedup.html").write_text("sheet")
    return folder


def test_it_says_which_students_were_trained_on_it(trained: Path) -> None:
    columns = {"row": [0, 1], "id": [USED, "f" * 64], "label": [0, 0]}
    write_images(trained / "data/embed", columns, ["cat"])
    said = json.loads(invoke(trained, "forget", "a.example", "c.example", "--json").stdout)
    assert said["students"]["models/student"] == {"trained_on": [USED, TWICE], "held_out": 1}
    # of the stages that were run here: there is neither a report nor an export
    assert said["stale"] == ["dedup", "embed", "distill", "evaluate"]
    assert said["run"] == ["dvc commit -f crawl", "dvc repro"]
    assert said["copies"] == {"data/embed": 1, "reports/dedup.html": 5}


def test_it_says_so_to_a_person_and_of_what_was_never_used(trained: Path) -> None:
    text = invoke(trained, "forget", NEVER).output
    assert "no student that is here was trained on them" in text
    text = invoke(trained, "forget", USED).output
    assert f"trained on 1 of them: models/student ({USED[:8]}" in text
    assert "dvc commit -f crawl && dvc repro" in text
    assert "dvc gc -w" in text
