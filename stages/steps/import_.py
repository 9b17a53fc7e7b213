"""Step of `pipeline import`: results of another machine, checked, copied and known to DVC."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from kd3_pipeline.console import Console
from kd3_pipeline.errors import ExternalError, UserError
from kd3_pipeline.paramfile import read_params
from kd3_pipeline.runkey import digest_of
from kd3_pipeline.runrecord import RunRecord, digests, read_record
from kd3_pipeline.store import clear_leftovers, remove
from kd3_stages import paths
from kd3_stages.steps.consent import consented
from kd3_stages.steps.distill_record import READ, WRITTEN, record_of
from kd3_stages.steps.inputs import note_inputs
from kd3_stages.steps.links import own_copies
from kd3_stages.steps.run_dvc import dvc

STAGE = "distill"
# replaced whole: nothing may lie in an output of DVC while DVC takes it
WHOLE = (paths.STUDENT, paths.DISTILLED.parent, paths.CURVES, paths.summary(STAGE))


def run(folder: Path, any_version: bool, console: Console) -> None:
    """Copies the outputs of `distill` from `folder` into the project, and commits them with DVC.

    Raises:
        UserError: the results belong to other parameters, inputs or code, or are not whole.
        ExternalError: DVC does not take them.
    """
    if folder.resolve() == Path.cwd().resolve():
        raise UserError(f"{folder} is this project", "name the copy that came from elsewhere")
    record = read_record(folder / paths.DISTILLED)
    outputs = (*WRITTEN, paths.DISTILLED)
    _check_files(folder, record)
    with console.progress("import: comparing") as advance:
        _check_ours(record, any_version)
        advance()
    with _copies(folder, outputs) as copies:
        for path in WRITTEN:
            if digest_of(copies[path]) != record.outputs[path.as_posix()]:
                raise UserError(
                    f"{folder / path} is not what the run wrote",
                    "copy it again, whole; or another run has written over part of it there",
                )
        if read_record(copies[paths.DISTILLED]) != record:
            raise UserError(f"{folder / paths.DISTILLED} has just changed", "run it again")
        with _in_place(copies):
            note_inputs(Console(quiet=True))
            if dvc("commit", "--quiet", "--force", STAGE):
                raise ExternalError(
                    f"`dvc commit -f {STAGE}` failed, so the results that were here are back",
                    "mend what DVC says, and run it again",
                )
    own_copies()  # which DVC has just made links of
    console.result(
        f"import: a student made on {record.place} by kd3-pipeline {record.version}"
        f" → {paths.STUDENT}; next: pipeline repro",
        {"folder": str(folder), "version": record.version, "place": record.place}
        | {"files": [str(path) for path in outputs]},
    )


def _check_files(folder: Path, record: RunRecord) -> None:
    """
    Raises:
        UserError: the folder has not all that the run wrote, or has what no run writes there.
        ExternalError: it is more than there is room for.
    """
    if set(record.outputs) != {path.as_posix() for path in WRITTEN}:
        raise UserError(
            f"{folder / paths.DISTILLED} does not say what was written",
            "distil again with this version there",
        )
    size = 0
    for path in WRITTEN:
        if not (folder / path).exists():
            raise UserError(f"{folder / path} not found", "copy it from the other machine, too")
        for one in [folder / path, *(folder / path).rglob("*")]:
            if one.is_dir() and (one == folder / path or not one.is_symlink()):
                continue
            if not one.is_file():  # a pipe or a device, or a link to nothing or to a folder
                raise UserError(f"{one} is no file that a run writes", "copy its results again")
            size += one.stat().st_size
    if size > (free := shutil.disk_usage(Path.cwd()).free):
        raise ExternalError(
            f"{folder} has {size / 1e9:,.1f} GB of results, and {free / 1e9:,.1f} GB are free",
            "make room, or look whether these are the files of a run",
        )


@contextmanager
def _copies(folder: Path, outputs: Sequence[Path]) -> Iterator[dict[Path, Path]]:
    """New files with the content of the folder's, by their places here: DVC's cache may have links
    to those that are here. Each is under its own name in a folder beside what it will replace."""
    holders = {whole: whole.with_name(f".{whole.name}.tmp{os.getpid()}") for whole in WHOLE}
    try:
        for whole, holder in holders.items():
            holder.parent.mkdir(parents=True, exist_ok=True)
            clear_leftovers(whole)
            holder.mkdir()
        copies = {}
        for path in outputs:
            whole = next(one for one in WHOLE if path.is_relative_to(one))
            copies[path] = holders[whole] / path.relative_to(whole.parent)
            copies[path].parent.mkdir(exist_ok=True)
            source = folder / path
            (shutil.copytree if source.is_dir() else shutil.copyfile)(source, copies[path])
        yield copies
    finally:
        for holder in holders.values():
            remove(holder)


@contextmanager
def _in_place(copies: dict[Path, Path]) -> Iterator[None]:
    """Gives the copies their places, and all of them back to what was there if the block fails."""
    wholes = {whole: copies.get(whole, copies[paths.DISTILLED].parent) for whole in WHOLE}
    aside = {whole: whole.with_name(f".{whole.name}.old{os.getpid()}") for whole in WHOLE}
    done = list[Path]()
    try:
        for path, copy in wholes.items():
            if os.path.lexists(path):
                os.replace(path, aside[path])
            done.append(path)
            os.replace(copy, path)
        yield
    except BaseException:
        for path in done:
            remove(path)
            if os.path.lexists(aside[path]):
                os.replace(aside[path], path)
        raise
    finally:
        for one in aside.values():
            remove(one)


def _check_ours(record: RunRecord, any_version: bool) -> None:
    """Raises a UserError unless the run was one with this project's parameters and inputs."""
    params = read_params(paths.PARAMS)
    consented(params)
    for path in READ:
        if not path.exists():
            raise UserError(
                f"{path} not found, so whether the student is of it cannot be told",
                "run `pipeline repro embed`, or `dvc pull`, first",
            )
    ours = record_of(params, digests(READ), "", {})
    if different := record.differences(ours):
        raise UserError(
            "these results are not of this project as it is now:\n" + "\n".join(different),
            "nothing was copied; make it the same here, or distil again there",
        )
    if record.code != ours.code and not any_version:
        raise UserError(
            f"other code of the software made these results (version {record.version} there,"
            f" {ours.version} here)",
            "nothing was copied; distil there with this version, or take them with --any-version",
        )
