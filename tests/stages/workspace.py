"""A copy of the project in which its commands and DVC run as a user's would."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from dvc.repo import Repo
from typer.testing import CliRunner

from kd3_stages.cli import app

ROOT = Path(__file__).parent.parent.parent
STAGES = ("inputs", "crawl", "dedup", "teacher", "embed", "distill", "evaluate", "export", "report")
COPIED = (
    *("pipeline", "stages", "docs"),
    *("dvc.yaml", "params.yaml", ".dvcignore", ".gitignore"),
)
TINY = """
crawl: {per_class: 16}
dedup: {radius: 4}
teacher:
  {data: original.parquet, architecture: resnet8, input_size: 32, images: 0, epochs: 1,
   batch_size: 32}
embed: {}
distill: {epochs: 2, batch_size: 32, lr: 0.1, held_out: 0.1, cutoff: 0.1}
evaluate: {test_set: demo, images: 60, latency: false}
export: {formats: [safetensors]}
report: {thumbnails: 4}
"""
OUTSIDE = """
crawl: {classes: [cat, dog], engine: files, source: web}
dedup: {leaks: false}
teacher: {source: file, path: teacher/resnet8.pt, input_size: 32}
embed: {}
distill: {epochs: 2}
evaluate: {test_set: images, styles: styles}
export: {int8: none}
report: {seed: 0}
"""


def environment(folder: Path) -> dict[str, str]:
    """The environment's commands on the path, and the copy's code before the installed one."""
    scripts = sysconfig.get_path("scripts")
    own = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
    if (folder / "bin/pipeline").exists():  # a stub, whose weights and pictures are none
        own["PIPELINE_CHECK"] = "off"
    return own | {
        "PATH": os.pathsep.join([str(folder / "bin"), scripts, os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
        "GIT_AUTHOR_NAME": "t",
        "GIT_AUTHOR_EMAIL": "t@example.org",
        "GIT_COMMITTER_NAME": "t",
        "GIT_COMMITTER_EMAIL": "t@example.org",
    }


def copy_project(folder: Path, params: str) -> Path:
    """The project's files in `folder`, with `params` as its params.yaml."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.png")
            shutil.copytree(source, folder / name, ignore=ignored, symlinks=True)
        else:
            shutil.copy(source, folder / name)
    for name in ("kd3_pipeline", "kd3_stages"):
        (folder / name).symlink_to(name.removeprefix("kd3_"))
    shutil.copytree(ROOT / ".dvc/plots", folder / ".dvc/plots")
    shutil.copy(ROOT / ".dvc/config", folder / ".dvc/config")
    shutil.copy(ROOT / ".dvc/.gitignore", folder / ".dvc/.gitignore")
    (folder / "params.yaml").write_text(params)
    return folder


def fresh_copy(project: Path, folder: Path) -> Path:
    """A copy of a project, with all that was run in it, inside of `folder`."""
    copy = folder / "copy"
    shutil.copytree(project, copy, symlinks=True)
    return copy


def run(folder: Path, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs a command in the copy; `pipeline` is the copy's."""
    if command[0] == "pipeline":
        command = (sys.executable, "-m", "kd3_stages", *command[1:])
    done = subprocess.run(
        command, cwd=folder, env=environment(folder), text=True, capture_output=True, timeout=500
    )
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


def invoke(folder: Path, *arguments: str, check: bool = True) -> Result:
    """Runs a command of `pipeline` in this process, which has imported what it needs.

    Not for a test of what goes on: a run's key names the code that is loaded, and that is another
    in a process of its own.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done = CliRunner().invoke(app, arguments)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    if check:
        assert done.exit_code == 0, done.output
    return done


def stages_run(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The stages that `dvc repro` ran, in order."""
    return re.findall(r"^Running stage '(\w+)'", done.stdout, re.M)


STUB = """#!{python}
import hashlib, os, pathlib, sys
import yaml

stage = sys.argv[1]
if stage == "inputs":
    os.execv(sys.executable, [sys.executable, "-m", "kd3_stages", stage])
declared = yaml.safe_load(pathlib.Path("dvc.yaml").read_text())["stages"][stage]
params = yaml.safe_load(pathlib.Path("params.yaml").read_text())
digest = hashlib.sha256(repr([params[at.split(".")[0]] for at in declared["params"]]).encode())
for dep in map(pathlib.Path, declared["deps"]):
    for file in sorted(dep.rglob("*")) if dep.is_dir() else [dep]:
        digest.update(file.read_bytes())
number = str(int(digest.hexdigest()[:6], 16))
texts = {{".json": '{{"student": {{"accuracy": NUMBER}}}}', ".csv": "epoch,loss\\n1,NUMBER\\n"}}
for kind in ("outs", "metrics", "plots"):
    for out in declared.get(kind, []):
        path = pathlib.Path(out if isinstance(out, str) else next(iter(out)))
        path = path if path.suffix else path / "file"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(texts.get(path.suffix, "NUMBER").replace("NUMBER", number))
"""


def stub_project(folder: Path, params: str) -> Path:
    """A copy of the project whose stages do no work, with all that DVC does around them.

    What a stage writes follows from its inputs and parameters, as a result does, so that which
    stages run again can be seen in seconds. `pipeline inputs` is the real one.
    """
    copy_project(folder, params)
    program = folder / "bin/pipeline"
    program.parent.mkdir()
    program.write_text(STUB.format(python=sys.executable))
    program.chmod(0o755)
    run(folder, "git", "init", "-q")
    run(folder, "git", "add", ".")
    run(folder, "git", "commit", "-qm", "start")
    return folder


@contextmanager
def inside(folder: Path) -> Iterator[Repo]:
    """DVC's own interface on a copy, in this process: its start takes longer than its work."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, value in environment(folder).items():
            patch.setenv(name, value)
        with Repo(str(folder)) as repo:
            yield repo


def repro(folder: Path, *targets: str) -> list[str]:
    """The stages that a plain `dvc repro` runs, without `inputs`, which runs always."""
    with inside(folder) as repo:
        ran = [stage.addressing for stage in repo.reproduce(list(targets) or None)]
    assert ran[0] == "inputs"
    return ran[1:]


def status(folder: Path) -> dict[str, Any]:
    """What `dvc status` says, stage by stage."""
    with inside(folder) as repo:
        return repo.status()


def set_param(folder: Path, old: str, new: str) -> None:
    """Edits params.yaml as a person would."""
    path = folder / "params.yaml"
    text = path.read_text()
    assert text.count(old) == 1, text
    path.write_text(text.replace(old, new))
