"""A disk that is full or read-only: one line from every stage, and what was there stays."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from kd3_pipeline.diskerrors import disk_trouble
from tests.stages.workspace import STAGES, environment, fresh_copy, invoke, run
from tests.watched import can_watch

# In a mount namespace of its own: a small disk, the project on it, then every stage in turn.
ON_A_SMALL_DISK = """
import contextlib, ctypes, io, json, os, shutil, subprocess, sys
from pathlib import Path

project, how, disk, *stages = sys.argv[1:]
system = ctypes.CDLL(None, use_errno=True)
user, group = os.getuid(), os.getgid()
assert not system.unshare(0x10000000 | 0x20000)
Path("/proc/self/setgroups").write_text("deny")
Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
system.mount(b"none", b"/", None, 0x44000, None)
assert not system.mount(b"tmpfs", os.fsencode(disk), b"tmpfs", 0, b"size=256m")
shutil.copytree(project, f"{disk}/copy", symlinks=True)
os.chdir(f"{disk}/copy")

def state():
    import hashlib
    found = {}
    for file in sorted(Path(".").rglob("*")):
        if file.is_file() and not {"__pycache__", ".cache", "tmp"} & {*file.parts}:
            found[str(file)] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found

from kd3_stages.cli import app
before = state()
if how == "full":
    with contextlib.suppress(OSError), open(f"{disk}/filler", "wb", 0) as filler:
        while filler.write(bytes(4096)):
            pass
else:
    assert not system.mount(b"none", os.fsencode(disk), None, 0x20 | 0x1, None)
found = {}
for stage in stages:
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            code = app([*stage.split(), "--quiet"], standalone_mode=False)
        except SystemExit as end:
            code = end.code
    found[stage] = [code, said.getvalue()]
changed = {one for one, of in before.items() if state().get(one) != of}
json.dump([found, sorted(changed)], sys.__stdout__)
"""
needs_namespaces = pytest.mark.skipif(not can_watch(), reason="no namespaces for this user")


def on_a_small_disk(project: Path, how: str, tmp_path: Path, *stages: str) -> list:
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", ON_A_SMALL_DISK, str(project), how, str(disk), *stages],
        env=environment(project),
        text=True,
        capture_output=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@needs_namespaces
@pytest.mark.slow
@pytest.mark.parametrize(
    "how, words", [("full", "No space left on device"), ("read-only", "Read-only file system")]
)
def test_every_stage_ends_with_one_line_and_leaves_what_was_there(
    how: str, words: str, project: Path, tmp_path: Path
) -> None:
    found, changed = on_a_small_disk(project, how, tmp_path, *STAGES)
    for stage, (code, said) in found.items():
        lines = said.splitlines()
        assert code == 3, f"{stage}: {code}: {said}"
        assert len(lines) == 1 and lines[0].startswith("error: "), f"{stage}: {said}"
        assert words in lines[0], f"{stage}: {said}"
    assert changed == []


@pytest.mark.parametrize("stage", ["crawl", "export", "report"])
def test_a_file_that_may_not_become_so_large_is_no_bug(
    stage: str, project: Path, tmp_path: Path
) -> None:
    folder = fresh_copy(project, tmp_path)
    limited = f"ulimit -f 8; exec {sys.executable} -m kd3_stages {stage} --quiet"
    done = run(folder, "bash", "-c", limited, check=False)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, line.startswith("error: ")) == (3, True)
    assert "File too large" in line and "ulimit -f" in line


def test_of_a_training_that_finds_no_room_the_hint_is_true(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fresh_copy(project, tmp_path)
    names = [path.relative_to(folder) for path in (folder / "models/student").iterdir()]
    before = {name: (folder / name).read_bytes() for name in names}

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "models/student")

    monkeypatch.setattr("kd3_stages.steps.distill.save_student", full)
    changes = ("--set", "distill.epochs=1", "--quiet")
    done = invoke(folder, "distill", *changes, check=False)
    (line,) = done.stderr.splitlines()
    assert done.exit_code == 3 and line.endswith("what it did not write is as it was")
    assert {name: (folder / name).read_bytes() for name in names} == before
    assert len((folder / "reports/distill.csv").read_text().splitlines()) == 2  # of the new run


@pytest.mark.parametrize("stage, place", [("inputs", ".cache"), ("dedup", "reports")])
def test_a_file_where_a_folder_has_to_be_is_named(
    stage: str, place: str, project: Path, tmp_path: Path
) -> None:
    folder = fresh_copy(project, tmp_path)
    (folder / place).rename(folder / "away")
    (folder / place).touch()
    done = run(folder, "pipeline", stage, "--quiet", check=False)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, f" {place}" in line, "move it away" in line) == (3, True, True)


def test_an_error_that_is_none_of_the_disk_is_a_bug() -> None:
    assert disk_trouble(FileNotFoundError(2, "No such file or directory", "x")) is None
    assert disk_trouble(ValueError("the file exists")) is None
