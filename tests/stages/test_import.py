"""A student comes back from another machine, and what DVC has kept stays as it was."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from kd3_stages.steps.run_dvc import dvc
from tests.stages.workspace import fresh_copy, invoke, repro, run, set_param

OTHER = "distill: {epochs: 1, batch_size: 32, lr: 0.1, held_out: 0.1, cutoff: 0.1}"
HERE = "distill: {epochs: 2, batch_size: 32, lr: 0.1, held_out: 0.1, cutoff: 0.1}"
WRITTEN = ("models/student", "data/distill", "reports/distill.json", "reports/distill.csv")


@pytest.fixture(scope="module")
def away(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project on another machine, where one epoch was trained."""
    folder = fresh_copy(project, tmp_path_factory.mktemp("away"))
    changed(folder, HERE, OTHER)
    run(folder, "pipeline", "distill", "--device", "cpu", "--quiet")
    back = tmp_path_factory.mktemp("back")
    for name in WRITTEN:
        (back / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (folder / name).is_dir() else shutil.copy
        copy(folder / name, back / name)
    return back


@pytest.fixture
def home(project: Path, tmp_path: Path) -> Path:
    folder = fresh_copy(project, tmp_path)
    run(folder, "dvc", "checkout", "--relink", "--force", "--quiet")
    changed(folder, HERE, OTHER)
    return folder


def changed(folder: Path, old: str, new: str) -> None:
    text = (folder / "params.yaml").read_text()
    assert old in text
    (folder / "params.yaml").write_text(text.replace(old, new))


def cached(folder: Path) -> dict[str, str]:
    """What DVC's cache has: the hash that each file is called, and that of its content."""
    objects = (folder / ".dvc/cache/files/md5").glob("??/*")
    return {
        path.parent.name + path.name.removesuffix(".dir"): md5(path)
        for path in objects
        if path.is_file()
    }


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_the_round_trip_leaves_every_hash_of_the_cache_and_the_old_student(
    home: Path, away: Path
) -> None:
    old, before = md5(home / "models/student/model.safetensors"), cached(home)
    assert all(name == content for name, content in before.items())
    assert (home / "models/student/model.safetensors").stat().st_nlink > 1  # the trap is set
    done = run(home, "pipeline", "import", str(away))
    assert "distill: taken, made on cpu, " in done.stdout
    after = cached(home)
    assert all(name == content for name, content in after.items())
    assert before.items() <= after.items()
    new = md5(home / "models/student/model.safetensors")
    assert new == md5(away / "models/student/model.safetensors") != old
    assert "up to date" in run(home, "dvc", "status", "distill").stdout
    run(home, "git", "checkout", "-q", "dvc.lock")
    run(home, "dvc", "checkout", "--quiet", "--force", "models/student")
    assert md5(home / "models/student/model.safetensors") == old


def test_small_outputs_are_files_of_their_own_after_any_stage(home: Path) -> None:
    linked = home / "models/student/model.safetensors"
    name = md5(linked)
    invoke(home, "dedup", "--quiet")
    assert linked.stat().st_nlink == 1
    assert next((home / "data/crawl").glob("*.parquet")).stat().st_nlink > 1  # images lie once
    linked.write_bytes(b"another student, copied over this one")
    assert md5(home / f".dvc/cache/files/md5/{name[:2]}/{name[2:]}") == name


@pytest.mark.parametrize("copies", [False, True])
def test_which_files_are_links_after_a_plain_dvc_repro(
    stub: Path, tmp_path: Path, copies: bool
) -> None:
    folder = fresh_copy(stub, tmp_path)
    if copies:
        run(folder, "dvc", "config", "cache.type", "reflink,copy")
    set_param(folder, "[cat, dog]", "[cat, fox]")
    assert len(repro(folder)) == 7
    assert linked(folder) == ([] if copies else ["data/crawl/file", "reports/index.html"])
    invoke(folder, "inputs")
    assert linked(folder) == ([] if copies else ["data/crawl/file"])


def linked(folder: Path) -> list[str]:
    """Of a large output and that of the last stage the files that other names share."""
    names = ("data/crawl/file", "reports/index.html")
    return [name for name in names if (folder / name).stat().st_nlink > 1]


def refused(home: Path, folder: Path, *options: str) -> str:
    before = md5(home / "models/student/model.safetensors")
    done = invoke(home, "import", str(folder), *options, check=False)
    assert done.exit_code == 2
    assert md5(home / "models/student/model.safetensors") == before
    return done.stderr


def test_results_of_other_parameters_are_refused(home: Path, away: Path) -> None:
    changed(home, OTHER, HERE)
    assert "distill.epochs was 1 there and is 2 here" in refused(home, away)


def test_results_of_another_teacher_are_refused(home: Path, away: Path) -> None:
    os.remove(home / "models/teacher/config.json")
    (home / "models/teacher/config.json").write_text("{}")
    assert "models/teacher was another one there" in refused(home, away)


def test_a_torn_copy_is_refused(home: Path, away: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn"
    shutil.copytree(away, torn)
    weights = torn / "models/student/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "models/student is not what the run wrote" in refused(home, torn)
    weights.unlink()
    shutil.rmtree(torn / "models")
    assert "models/student not found" in refused(home, torn)


def test_results_of_other_code_are_taken_on_request(home: Path, away: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(away, other)
    record = other / "data/distill/run.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"code": "0" * 64}))
    assert "--any-version" in refused(home, other)
    invoke(home, "import", str(other), "--any-version")


def test_a_folder_that_is_none_or_this_one_is_refused(home: Path, tmp_path: Path) -> None:
    assert "has no results" in refused(home, tmp_path / "nothing")
    assert "is this project" in refused(home, Path("."))


@pytest.mark.parametrize("what", ["pipe", "device", "a link to a folder", "a link to nothing"])
def test_what_no_run_writes_is_not_copied(
    home: Path, away: Path, tmp_path: Path, what: str
) -> None:
    hostile = tmp_path / "hostile"
    shutil.copytree(away, hostile)
    extra = hostile / "models/student/extra"
    if what == "pipe":
        os.mkfifo(extra)
    else:
        aims = {"device": "/dev/zero", "a link to a folder": "/etc", "a link to nothing": "gone"}
        extra.symlink_to(aims[what])
    assert "extra is no file that a run writes" in refused(home, hostile)


@pytest.mark.parametrize("record", ["pipe", "deep", "large"])
def test_a_record_that_is_none_is_one_line(home: Path, tmp_path: Path, record: str) -> None:
    path = tmp_path / "hostile/data/distill/run.json"
    path.parent.mkdir(parents=True)
    if record == "pipe":
        os.mkfifo(path)
    elif record == "deep":
        path.write_text("[" * 100_000)
    else:
        with path.open("wb") as file:
            file.truncate(2**40)
    assert "run.json is no record of a run" in refused(home, tmp_path / "hostile")


def test_more_than_there_is_room_for_is_not_read(home: Path, away: Path, tmp_path: Path) -> None:
    large = tmp_path / "large"
    shutil.copytree(away, large)
    with (large / "models/student/model.safetensors").open("r+b") as file:
        file.truncate(2**43)  # a file with a hole
    done = invoke(home, "import", str(large), check=False)
    assert done.exit_code == 3 and "8,796.1 GB of results" in done.stderr


def test_links_to_another_cache_come_as_files(home: Path, away: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    shutil.copytree(away, linked)
    weights = linked / "models/student/model.safetensors"
    shutil.move(weights, tmp_path / "object")
    weights.symlink_to(tmp_path / "object")
    invoke(home, "import", str(linked))
    mine = home / "models/student/model.safetensors"
    assert not mine.is_symlink() and md5(mine) == md5(tmp_path / "object")


def test_where_dvc_does_not_take_them_the_results_before_are_back(home: Path, away: Path) -> None:
    names = [path for name in WRITTEN for path in [home / name, *(home / name).rglob("*")]]
    before = {path: md5(path) for path in names if path.is_file()}
    cache = cached(home)
    (home / ".dvc/cache/files/md5").rename(home / "kept")
    (home / ".dvc/cache/files/md5").write_text("no folder")
    done = invoke(home, "import", str(away), check=False)
    assert done.exit_code == 3
    assert {path: md5(path) for path in before} == before
    left = [path for part in ("models", "data", "reports") for path in (home / part).glob(".*")]
    assert left == []
    (home / ".dvc/cache/files/md5").unlink()
    (home / "kept").rename(home / ".dvc/cache/files/md5")
    assert cached(home) == cache
    invoke(home, "import", str(away))
    assert all(name == content for name, content in cached(home).items())


# all other stages: a stub's, whose results follow from what they read


@pytest.fixture(scope="module")
def ran(stub: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another machine, which has run the project with other classes."""
    folder = fresh_copy(stub, tmp_path_factory.mktemp("ran"))
    set_param(folder, "[cat, dog]", "[cat, fox]")
    assert len(repro(folder)) == 7
    return folder


@pytest.fixture
def both(stub: Path, ran: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The project here, with these classes in params.yaml and not run, and that machine's."""
    home = fresh_copy(stub, tmp_path / "home")
    set_param(home, "[cat, dog]", "[cat, fox]")
    return home, fresh_copy(ran, tmp_path / "other")


def taken(home: Path, other: Path) -> dict[str, Any]:
    return json.loads(invoke(home, "import", str(other), "--json").stdout)


def test_every_stage_that_ran_elsewhere_comes_back_and_nothing_is_left_to_run(
    both: tuple[Path, Path],
) -> None:
    home, other = both
    found = taken(home, other)
    all_but_teacher = ["crawl", "dedup", "embed", "distill", "evaluate", "export", "report"]
    assert found["taken"] == all_but_teacher
    assert found["stages"]["teacher"] == "up to date here"
    assert all(name == content for name, content in cached(home).items())
    assert repro(home) == []
    assert taken(home, other)["taken"] == []


def test_where_a_stage_ran_is_no_parameter_of_its_result(both: tuple[Path, Path]) -> None:
    home, other = both
    set_param(other, "{epochs: 2}", "{epochs: 3, device: cuda}")
    set_param(home, "{epochs: 2}", "{epochs: 3}")
    repro(other, "distill")
    found = taken(home, other)
    assert "distill" in found["taken"]
    assert found["stages"]["evaluate"].startswith(
        "not of this project"
    )  # it is of the student before
    assert repro(home)[0] == "evaluate"


def test_what_does_not_fit_is_told_and_the_rest_taken(both: tuple[Path, Path]) -> None:
    home, other = both
    set_param(home, "report: {seed: 0}", "report: {seed: 1}")
    (other / "models/export/file").write_text("torn")
    done = invoke(home, "import", str(other))
    assert "import: crawl, dedup, embed, distill, evaluate from" in done.stdout
    said = " ".join(done.stderr.split())
    assert "export was not taken" in said and "is not what the run wrote" in said
    assert "report.seed was 0 there and is 1 here" in said
    assert repro(home) == ["export", "report"]


def test_what_was_run_by_hand_is_not_taken_for_what_dvc_noted(both: tuple[Path, Path]) -> None:
    home, other = both
    lock = other / "dvc.lock"
    known = lock.read_text()
    lock.write_text(known.replace("  crawl:\n", "  crawled:\n"))
    said = invoke(home, "import", str(other), check=False).stderr
    assert "crawl: " in said and "dvc.lock does not know it" in said
    assert "embed: not of this project as it is now: data/crawl was another one there" in said
    lock.write_text(known)
    (other / "data/inputs/crawl.json").write_text("{}")
    said = invoke(home, "import", str(other), check=False).stderr
    assert "crawl.json is not what the run read" in said
    lock.write_bytes(b"\xff")
    assert "dvc.lock:1: not UTF-8" in invoke(home, "import", str(other), check=False).stderr


def test_only_paths_of_this_project_are_written(both: tuple[Path, Path], tmp_path: Path) -> None:
    home, other = both
    lock = other / "dvc.lock"
    lock.write_text(lock.read_text().replace("path: data/crawl\n", "path: ../../escaped\n"))
    done = invoke(home, "import", str(other), check=False)
    assert "crawl: what its run wrote is not what this version writes" in done.stderr
    assert done.exit_code == 2


@pytest.mark.parametrize("what", ["data/crawl/pipe", "data/inputs/crawl.json", "dvc.lock"])
def test_a_pipe_of_another_project_is_not_waited_for(both: tuple[Path, Path], what: str) -> None:
    home, other = both
    (other / what).unlink(missing_ok=True)
    os.mkfifo(other / what)
    done = invoke(home, "import", str(other), check=False)
    said = "is no file that a run writes" if what.endswith("pipe") else "is no record of a run"
    assert done.exit_code == 2 and f"{what} {said}" in done.stderr


def test_what_changes_while_it_is_copied_is_refused(
    both: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, other = both
    before = md5(home / "data/crawl/file")
    copytree = shutil.copytree

    def torn(source: Path, copy: Path) -> Path:
        copytree(source, copy)
        (copy / "file").write_text("another one")
        return copy

    monkeypatch.setattr(shutil, "copytree", torn)
    done = invoke(home, "import", str(other), check=False)
    assert "data/crawl is not what the run wrote" in done.stderr
    assert md5(home / "data/crawl/file") == before
    assert list((home / "data").glob(".*")) == []


def test_what_was_taken_before_dvc_failed_is_told(
    both: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, other = both
    before = md5(home / "data/embed/file")

    def commit(*arguments: str) -> int:
        return 2 if arguments[-1] == "embed" else dvc(*arguments)

    monkeypatch.setattr("kd3_stages.steps.import_.dvc", commit)
    done = invoke(home, "import", str(other), check=False)
    assert done.exit_code == 3
    assert "embed (crawl, dedup taken before): `dvc commit -f embed` failed" in done.stderr
    assert md5(home / "data/embed/file") == before
