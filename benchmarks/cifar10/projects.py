"""Projects in which rows run: made by `pipeline init`, one embed each, a row a DVC experiment."""

import json
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from benchmarks.cifar10.rows import DATA, KEPT, Row, Settings, nested
from kd3_pipeline import manifest
from kd3_pipeline.errors import ExternalError, UserError
from kd3_pipeline.params import Teacher
from kd3_pipeline.presets import whole_file
from kd3_pipeline.store import (
    claim,
    read_shard,
    replacing,
    row_count,
    shard_paths,
    write_json,
    write_shards,
    write_text,
)
from kd3_pipeline.verdicts import read_verdicts
from kd3_stages import paths
from kd3_stages.code import ROOT

GIT = {"user.name": "table", "user.email": "table@localhost", "gc.auto": "0"}
LAST_LINES = 15  # of a log, shown when a command fails
STORE = "store"  # what the times of a project's embed are kept under


class Projects:
    """All projects of a table in one folder, with one DVC cache.

    What two projects have in common, as the crawl and dedup of a pool, DVC takes from there.

    Args:
        work: their folder; where interrupted work goes on.
        data: the folder of data sets that `DATA/` stands for.
    """

    def __init__(self, work: Path, data: Path) -> None:
        self.work = work.resolve()
        self.data = data.resolve()
        self._ready: set[str] = set()  # projects whose store was looked at by this process

    def folder(self, row: Row) -> Path:
        """The folder of a row's project."""
        return self.work / "projects" / row.project

    def run(self, row: Row, originals: Row | None = None, again: bool = False) -> Path:
        """Runs a row in its project, from where it was interrupted; returns the folder.

        Args:
            originals: for a row with labels, one of the same pool without.
            again: compute it even if DVC has its result.

        Raises:
            ExternalError: a command failed; its log is named.
            UserError: another process is at work in the project; fewer images than a batch.
        """
        kept = self.kept(originals) if originals else None
        with self._claimed(row) as folder:
            if kept:
                self._init(folder, row)
            else:
                self._embed(folder, row)
            own = row.own | {at: str(kept) for at, value in row.own.items() if value == KEPT}
            own |= _epochs(row, kept) if kept else {}
            _git(folder, "reset", "--quiet", "--hard")  # an earlier row's parameters and figures
            _write_params(folder, nested(self._params(row), self._placed(own)))
            self._forget(folder, row, again)
            stages = ["teacher"] if kept else ["distill", "evaluate"]
            # forced, DVC would compute every stage before these, and take none from its cache
            how = ["--force", "--single-item", *stages] if again else stages[-1:]
            command = ("exp", "run", "--quiet", "--name", row.name, *how)
            self._timed(row.key, folder, row.name, "dvc", *command)
        return folder

    def kept(self, originals: Row) -> Path:
        """Folder of the labelled images that dedup has left in a pool, as shards.

        So a student that is trained on labels sees no image that shows a test image, either.
        """
        folder = self.work / "kept" / originals.project
        if folder.exists():
            return folder
        with self._claimed(originals) as project:
            self._embed(project, originals)
            verdicts = read_verdicts(project / paths.DEDUP, ["id", "kept"])
            names = manifest.class_names(project / paths.MANIFEST)
            wanted = set(verdicts.filter(verdicts["kept"])["id"].to_pylist())
            images = (
                image
                for shard in shard_paths(project / paths.CRAWL)
                for image in read_shard(shard)
                if image.id in wanted and image.label >= 0
            )
            with replacing(folder) as moved:
                write_shards(moved, images, [names[label] for label in sorted(names)])
        return folder

    def seconds(self, row: Row, of: str) -> tuple[float, int]:
        """Seconds of wall clock that a row's experiment (its key) or `STORE` took, and starts."""
        times = _read_times(_times(self.folder(row), of))
        return times["seconds"], times["starts"]

    @contextmanager
    def _claimed(self, row: Row) -> Iterator[Path]:
        """The folder of a row's project, for this process alone."""
        folder = self.folder(row)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (folder.parent / f"{folder.name}.lock").open("ab") as file:
            claim(file)
            yield folder

    def _embed(self, folder: Path, row: Row) -> None:
        """Makes the row's project, and all that its rows share; once a process."""
        if row.project in self._ready:
            return
        self._init(folder, row)
        _git(folder, "reset", "--quiet", "--hard")
        self._timed(STORE, folder, f"{row.project}.embed", "kd3_stages", "repro", "embed")
        _git(folder, "add", "--all")
        _git(folder, "commit", "--quiet", "--allow-empty", "--message", "What all rows share")
        self._ready.add(row.project)

    def _forget(self, folder: Path, row: Row, again: bool) -> None:
        """Frees the row's name for an experiment, and with `again` forgets what it took."""
        named = _git(folder, "for-each-ref", "--format=%(refname)", "refs/exps")
        if any(at.endswith(f"/{row.name}") for at in named.splitlines()):
            self._command(folder, row.name, "dvc", "exp", "remove", "--quiet", row.name)
        if again:
            _times(folder, row.key).unlink(missing_ok=True)

    def _init(self, folder: Path, row: Row) -> None:
        """A project with the parameters that its rows share, under git, if it is not there."""
        if (folder / paths.DVC).exists():
            return
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / ".git").exists():
            _git(folder, "init", "--quiet")
        for name, value in GIT.items():
            _git(folder, "config", name, value)
        log, preset = f"{row.project}.init", ("--preset", row.preset)
        self._command(folder, log, "kd3_stages", "init", ".", *preset)
        cache = os.path.relpath(self.work / "cache", folder / ".dvc")
        self._command(folder, log, "dvc", "config", "cache.dir", cache)
        _write_params(folder, self._params(row))
        _git(folder, "add", "--all")
        _git(folder, "commit", "--quiet", "--message", "A project of the table")

    def _params(self, row: Row) -> dict[str, Any]:
        """All parameters of the row's project by section, with paths of this machine."""
        return nested(yaml.safe_load(whole_file(row.preset)), self._placed(row.shared))

    def _placed(self, settings: Settings) -> Settings:
        """Settings with paths of this machine."""
        return {
            at: value.replace(DATA, f"{self.data}/", 1)
            if isinstance(value, str) and value.startswith(DATA)
            else value
            for at, value in settings.items()
        }

    def _timed(self, of: str, folder: Path, log: str, *command: str) -> None:
        """Runs a command and adds its seconds to those of earlier starts."""
        path = _times(folder, of)
        before = _read_times(path)
        times = {"seconds": before["seconds"], "starts": before["starts"] + 1}
        write_json(path, times)  # a start counts even if this process is killed
        began = time.monotonic()
        try:
            self._command(folder, log, *command)
        finally:
            times["seconds"] = round(before["seconds"] + time.monotonic() - began, 1)
            write_json(path, times)

    def _command(self, folder: Path, log: str, *module: str) -> None:
        """Runs a module of this environment in a project; what it says goes to a log."""
        path = self.work / "logs" / f"{log}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        env = os.environ | {
            "PATH": os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]]),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            "PIPELINE_CHECK": "off",  # the rows of a project differ in nothing that it looks at
        }
        command = (sys.executable, "-m", *module)
        with path.open("ab") as file:
            done = subprocess.run(command, cwd=folder, env=env, stdout=file, stderr=file)
        if done.returncode:
            said = path.read_text("utf-8", "replace").splitlines()[-LAST_LINES:]
            raise ExternalError(
                f"{log}: `{' '.join(module)}` ended with code {done.returncode}",
                "\n".join([f"the end of {path}:", *said]),
            )


def _epochs(row: Row, kept: Path) -> Settings:
    """The epochs of labelled images, whole ones, that are nearest to the steps of a row."""
    images = sum(map(row_count, shard_paths(kept)))
    batch = row.settings.get("teacher.batch_size", Teacher().batch_size)
    if images < batch:
        raise UserError(
            f"{row.name}: {images} images are fewer than a batch of {batch}",
            "give its pool more images, or set a smaller teacher.batch_size",
        )
    return {"teacher.epochs": max(1, round((row.steps or 0) / (images // batch)))}


def _times(folder: Path, of: str) -> Path:
    return folder / paths.CACHE / "table" / f"{of}.json"


def _read_times(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {"seconds": 0.0, "starts": 0}


def _write_params(folder: Path, params: dict[str, Any]) -> None:
    write_text(folder / paths.PARAMS, yaml.safe_dump(params, sort_keys=False, allow_unicode=True))


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise ExternalError(f"git {arguments[0]} in {folder}: {done.stderr.strip()}")
    return done.stdout
