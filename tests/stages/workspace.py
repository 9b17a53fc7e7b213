"""A copy of the project in which its commands and DVC run as a user's would."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
COPIED = ("pipeline", "stages", "presets", "dvc.yaml", "params.yaml", ".dvcignore", ".gitignore")
TINY = """
crawl: {per_class: 16}
dedup: {radius: 4}
teacher: {data: original.parquet, architecture: resnet8, images: 0, epochs: 1, batch_size: 32}
embed: {}
distill: {epochs: 2, batch_size: 32, lr: 0.1, held_out: 0.1, cutoff: 0.1}
evaluate: {test_set: demo, images: 60, latency: false}
export: {formats: [torch]}
report: {thumbnails: 4}
"""


def environment(folder: Path) -> dict[str, str]:
    """The environment's commands on the path, and the copy's code before the installed one."""
    scripts = sysconfig.get_path("scripts")
    own = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
    return own | {
        "PATH": os.pathsep.join([scripts, os.environ["PATH"]]),
        "PYTHONPATH": str(folder),
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
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, folder / name, ignore=ignored)
        else:
            shutil.copy(source, folder / name)
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
        command = (sys.executable, "-m", "stages", *command[1:])
    done = subprocess.run(
        command, cwd=folder, env=environment(folder), text=True, capture_output=True, timeout=200
    )
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


def stages_run(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The stages that `dvc repro` ran, in order."""
    return re.findall(r"^Running stage '(\w+)'", done.stdout, re.M)


def set_param(folder: Path, old: str, new: str) -> None:
    """Edits params.yaml as a person would."""
    path = folder / "params.yaml"
    text = path.read_text()
    assert text.count(old) == 1, text
    path.write_text(text.replace(old, new))
