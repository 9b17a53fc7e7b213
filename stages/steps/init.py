"""Step of `pipeline init`: the files of a new project."""

import os
import shlex
import subprocess
from pathlib import Path

from kd3_pipeline.console import Console
from kd3_pipeline.errors import UserError
from kd3_pipeline.presets import runs_alone, whole_file
from kd3_pipeline.store import write_text
from kd3_pipeline.version import __version__
from kd3_stages import paths
from kd3_stages.code import ROOT

TEMPLATES = Path(__file__).parent.parent / "project"
PLOTS = [f"plots/{name}" for name in ("answers.json", "curve.json", "matrix.json", "page.html")]
COPIES = {  # file of the project: its template
    ".dvc/.gitignore": "dvc-gitignore",
    ".dvc/config": "dvc-config",
    **{f".dvc/{name}": name for name in PLOTS},
    ".dvcignore": "dvcignore",
    str(paths.DVC): "dvc.template.yaml",  # DVC takes every dvc.yaml for one of its own
}
IGNORED = Path(".gitignore")  # lines that one of the user's own lacks are added to it
WITHOUT_GIT = "    no_scm = true\n"


def run(folder: Path, preset: str, git: bool, console: Console) -> None:
    """Writes the files, and commits them if `git`.

    Raises:
        UserError: a file of a project is there, or the folder is the software's; no such preset;
            git does not do it.
    """
    apart = os.path.lexists(folder / ".git")  # then neither git nor DVC looks at what is around it
    if Path(os.path.realpath(folder)).is_relative_to(ROOT) and not apart:
        raise UserError(
            f"{folder} is inside the software's own folder, {ROOT}",
            f"make it elsewhere, as in `pipeline init {shlex.quote(f'../{folder.name}')}` there",
        )
    if os.path.lexists(folder) and not os.path.isdir(folder):
        raise UserError(f"{folder} is no folder", "nothing was written; name another")
    files = project_files(preset)
    if there := [name for name in files if os.path.lexists(folder / name)]:
        raise UserError(
            f"{folder} has {', '.join(there)} already",
            "nothing was written; `pipeline preset NAME` changes the params.yaml of a project, and"
            f" `pipeline init --renew {_quoted(folder)}` its other files after an upgrade",
        )
    lacking_in(folder / IGNORED)  # which is refused before anything is written
    around = next((one for one in (folder, *folder.absolute().parents) if one.is_dir()), folder)
    inside = (_git(around, "rev-parse", "--is-inside-work-tree") or "").strip() == "true"
    own = os.path.abspath(folder / paths.DVC)
    if inside and _git(around, "check-ignore", "--quiet", "--", own) is not None:
        raise UserError(
            f"{folder} is ignored by the git repository around it, and DVC sees no stages where"
            " git sees nothing",
            "make it elsewhere, or take it out of that repository's .gitignore",
        )
    try:
        (folder / ".dvc/plots").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{error.filename} cannot be made: {error.strerror}") from None
    if git and not inside and _git(folder, "init", "--quiet") is None:
        raise UserError("git cannot be run", "install it, or leave --git out")
    if not (inside or git):
        files[".dvc/config"] = files[".dvc/config"].replace("[core]\n", f"[core]\n{WITHOUT_GIT}")
        console.note(
            f"{folder} is in no git repository: DVC works without one here, but without"
            " experiments; --git makes one"
        )
    for name, text in files.items():
        write_text(folder / name, text)
    written = [*files, *add_ignored(folder / IGNORED)]
    if git:
        _commit(folder, written)
    enter = "" if folder.resolve() == Path.cwd() else f"cd {_quoted(folder)}; "
    then = "repro" if runs_alone(preset) else "check, which says what is still wanted"
    console.result(
        f"init: {folder}, preset {preset}; next: {enter}pipeline {then}",
        {"folder": str(folder), "preset": preset, "files": sorted(written), "git": inside or git},
    )


def project_files(preset: str) -> dict[str, str]:
    """Texts of a new project's files by name, all but .gitignore.

    Raises:
        UserError: no such preset.
    """
    files = {str(paths.PARAMS): whole_file(preset)}
    files |= {name: (TEMPLATES / of).read_text("utf-8") for name, of in COPIES.items()}
    readme = (TEMPLATES / "README.md").read_text("utf-8")
    return files | {"README.md": readme.format(version=__version__, preset=preset)}


def add_ignored(path: Path) -> list[str]:
    """Adds what git has to ignore and `path` lacks; its name if there was something to add.

    It goes to the file's end, so that what a person wrote there stays to the byte.
    """
    lacking = lacking_in(path)
    if not lacking:
        return []
    with path.open("ab") as file:
        file.write(lacking)
    return [path.name]


def lacking_in(path: Path) -> bytes:
    """What git has to ignore and the file at `path` does not, as it is to be added.

    Raises:
        UserError: it is no file that can be read.
    """
    try:
        old = path.read_bytes()
    except FileNotFoundError:
        if path.is_symlink():
            raise UserError(f"{path} is a link to nothing", "nothing was written") from None
        old = b""
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror}", "nothing was written; move it away"
        ) from None
    known = set(old.splitlines())
    wanted = (TEMPLATES / "gitignore").read_bytes().splitlines()
    lacking = [line for line in wanted if line not in known]
    begun = b"\n" * bool(lacking and old and not old.endswith(b"\n"))
    return begun + b"".join(line + b"\n" for line in lacking)


def _commit(folder: Path, files: list[str]) -> None:
    """Commits these files alone.

    Raises:
        UserError: git says no, as where it does not know who commits.
    """
    for command in (
        ("add", "--force", "--", *files),
        ("commit", "--quiet", "--message", "A project of kd3-pipeline", "--", *files),
    ):
        done = subprocess.run(["git", *command], cwd=folder, capture_output=True, text=True)
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["no reason given"]
            raise UserError(
                f"git {command[0]}: {said[-1]}",
                f"the files are in {folder}, not committed; `git commit` there says more",
            )


def _quoted(folder: Path) -> str:
    """A folder as a shell takes it after a command: one with a leading dash is no option."""
    name = str(folder)
    return shlex.quote(f"./{name}" if name.startswith("-") else name)


def _git(folder: Path, *arguments: str) -> str | None:
    """What a git command says; None if it fails, or there is no git."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
    except OSError:
        return None
    return None if done.returncode else done.stdout
