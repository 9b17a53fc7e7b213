"""Step of `pipeline import`: results of another machine, checked, copied and known to DVC."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kd3_pipeline.console import Console
from kd3_pipeline.diskerrors import disk_trouble
from kd3_pipeline.errors import ExternalError, UserError
from kd3_pipeline.paramfile import read_params
from kd3_pipeline.runkey import digest_of
from kd3_pipeline.runrecord import RunRecord, digests, read_record
from kd3_pipeline.store import beside, clear_leftovers, remove
from kd3_stages import paths
from kd3_stages.steps.consent import consented
from kd3_stages.steps.distill_record import READ, WRITTEN, record_of
from kd3_stages.steps.dvcfiles import mapping, outputs_of, read_yaml
from kd3_stages.steps.inputs import note_inputs
from kd3_stages.steps.links import own_copies
from kd3_stages.steps.lock_record import (
    MISSING,
    dvc_digest,
    is_current,
    record_here,
    record_there,
)
from kd3_stages.steps.run_dvc import dvc

DISTILL = "distill"  # notes what its run was made of, so that no DVC is needed where it ran
HERE = "up to date here"


@dataclass(frozen=True)
class Results:
    """What another machine has of a stage.

    Attributes:
        made: the record of the run that wrote it.
        ours: the record that a run here would have, made when it is asked for.
        digest: of a file or a folder, as both records have it.
        files: all that is to be copied.
        outputs: of DVC, which the files are, or lie in.
    """

    made: RunRecord
    ours: Callable[[], RunRecord]
    digest: Callable[[Path], str]
    files: tuple[Path, ...]
    outputs: tuple[Path, ...]


@dataclass(frozen=True)
class Copies:
    """Where copies lie until they take their places: of files, and of the outputs that these make.

    Nothing may lie in an output while DVC takes it, so they are beside, each under its own name.
    """

    files: dict[Path, Path]
    outputs: dict[Path, Path]


def run(folder: Path, any_version: bool, console: Console) -> None:
    """Copies from `folder` the outputs of every stage that fit, in order, and commits them.

    Raises:
        UserError: there are none, or some and none fits.
        ExternalError: there is no room for them, or DVC does not take them.
    """
    if folder.resolve() == Path.cwd().resolve():
        raise UserError(f"{folder} is this project", "name the copy that came from elsewhere")
    if not (folder / paths.LOCK).exists() and not (folder / paths.DISTILLED).exists():
        raise UserError(
            f"{folder} has no results: neither {paths.LOCK} nor {paths.DISTILLED} found",
            "copy back all that the stage wrote; results of an older version have no such file",
        )
    consented(read_params(paths.PARAMS))
    noted = note_inputs(Console(quiet=True))
    said: dict[str, str] = {}
    taken: list[str] = []
    refused: dict[str, str] = {}
    with console.progress("import: comparing and copying", len(noted)) as advance:
        for stage in noted:
            try:
                said[stage], fits = _bring(stage, folder, noted[stage], any_version)
                taken += [stage] if fits else []
            except UserError as error:
                said[stage] = refused[stage] = str(error)
            except ExternalError as error:
                before = f" ({', '.join(taken)} taken before)" if taken else ""
                raise ExternalError(f"{stage}{before}: {error}") from error
            advance(note=stage)
    own_copies()  # which DVC has just made links of
    if refused and not taken:
        raise UserError(
            f"nothing of {folder} was taken:\n"
            + "\n".join(f"{stage}: {why}" for stage, why in refused.items())
        )
    for stage, why in refused.items():
        console.warn(f"{stage} was not taken: {why}")
    lines = [f"  {stage}: {what}" for stage, what in said.items() if stage not in refused]
    head = f"import: {', '.join(taken) or 'nothing new'} from {folder}; next: pipeline repro"
    console.result(
        "\n".join([head, *lines]), {"folder": str(folder), "taken": taken, "stages": said}
    )


def _bring(
    stage: str, folder: Path, noted: Mapping[str, Any], any_version: bool
) -> tuple[str, bool]:
    """Takes the outputs of one stage if they are there and needed: what is told, whether taken.

    Raises:
        UserError: they are not whole, or of other parameters, inputs or code.
        ExternalError: there is no room for them, or DVC does not take them.
    """
    declared = mapping(mapping(read_yaml(paths.DVC), "stages"), stage)
    outputs = outputs_of(declared)
    if not outputs:
        return f"{paths.DVC} declares no outputs of it", False
    if not (folder / outputs[0]).exists():
        return f"{folder / outputs[0]} not found", False
    current = is_current(stage)
    try:
        results = _results(stage, folder, declared, noted)
    except UserError:  # it does not say what of
        if current:
            return HERE, False
        raise
    _check_ours(results, any_version)
    if current:
        return HERE, False
    _check_files(folder, results)
    with _copies(folder, results) as copies:
        _check_whole(folder, results, copies)
        with _in_place(copies):
            if dvc("commit", "--quiet", "--force", stage):
                raise ExternalError(
                    f"`dvc commit -f {stage}` failed, so the results that were here are back",
                    "mend what DVC says, and run it again",
                )
    made = results.made
    where = f", made on {made.place} by kd3-pipeline {made.version}" if made.place else ""
    return f"taken{where}", True


def _results(
    stage: str, folder: Path, declared: Mapping[str, Any], noted: Mapping[str, Any]
) -> Results:
    """What the folder has of a stage.

    Raises:
        UserError: it has no record of the run.
    """
    outputs = tuple(outputs_of(declared))
    if stage == DISTILL and (folder / paths.DISTILLED).exists():
        made = read_record(folder / paths.DISTILLED)
        return Results(made, _distilled_here, digest_of, (*WRITTEN, paths.DISTILLED), outputs)
    made = record_there(folder, stage)
    ours = partial(record_here, stage, declared, noted)
    return Results(made, ours, partial(dvc_digest, ignoring=False), outputs, outputs)


def _distilled_here() -> RunRecord:
    for path in READ:
        if not path.exists():
            raise UserError(f"{path} is not here, so whether it is of that cannot be told", MISSING)
    return record_of(read_params(paths.PARAMS), digests(READ), "", {})


def _check_ours(results: Results, any_version: bool) -> None:
    """Raises a UserError unless the run was one with this project's parameters and inputs."""
    made, ours = results.made, results.ours()
    if different := made.differences(ours):
        raise UserError(
            f"not of this project as it is now: {'; '.join(different)}",
            "make it the same here, or run it again there",
        )
    if made.code != ours.code and not any_version:
        versions = f" (version {made.version} there, {ours.version} here)" if made.version else ""
        raise UserError(
            f"other code of the software made it{versions}",
            "run it again there with this version, or take it with --any-version",
        )


def _check_files(folder: Path, results: Results) -> None:
    """Looks at what is to be copied, before it is read.

    Raises:
        UserError: the folder has not all that the run wrote, or has what no run writes there.
        ExternalError: it is more than there is room for.
    """
    wrote = {path.as_posix() for path in results.files if path != paths.DISTILLED}
    if set(results.made.outputs) != wrote:
        raise UserError("what its run wrote is not what this version writes", "run it again there")
    size = 0
    for path in results.files:
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


def _check_whole(folder: Path, results: Results, copies: Copies) -> None:
    """Raises a UserError unless the copies are what the run wrote, to the byte.

    What is in the folder may change while it is read, and the copies do not.
    """
    for path, digest in results.made.outputs.items():
        if results.digest(copies.files[Path(path)]) != digest:
            raise UserError(
                f"{folder / path} is not what the run wrote",
                "copy it again, whole; or another run has written over part of it there",
            )
    if (
        paths.DISTILLED in results.files
        and read_record(copies.files[paths.DISTILLED]) != results.made
    ):
        raise UserError(f"{folder / paths.DISTILLED} has just changed", "run it again")


@contextmanager
def _copies(folder: Path, results: Results) -> Iterator[Copies]:
    """New files with the content of the folder's: DVC's cache may have links to those here."""
    of = {
        path: next((one for one in results.outputs if path.is_relative_to(one)), path)
        for path in results.files
    }
    holders = {output: beside(output, "tmp") for output in of.values()}
    copies = {path: holders[of[path]] / path.relative_to(of[path].parent) for path in results.files}
    try:
        for output, holder in holders.items():
            output.parent.mkdir(parents=True, exist_ok=True)
            clear_leftovers(output)
            holder.mkdir()
        for path, copy in copies.items():
            copy.parent.mkdir(parents=True, exist_ok=True)
            source = folder / path
            (shutil.copytree if source.is_dir() else shutil.copyfile)(source, copy)
        yield Copies(copies, {output: holders[output] / output.name for output in holders})
    except shutil.Error as error:  # of a folder: all that failed in it
        source, _, why = error.args[0][0]
        trouble = disk_trouble(error) or ExternalError(f"{source} cannot be copied: {why}")
        raise trouble from None
    finally:
        for holder in holders.values():
            remove(holder)


@contextmanager
def _in_place(copies: Copies) -> Iterator[None]:
    """Gives the copies their places, and all of them back to what was there if the block fails."""
    aside = {output: beside(output, "old") for output in copies.outputs}
    done = list[Path]()
    try:
        for output, copy in copies.outputs.items():
            if os.path.lexists(output):
                os.replace(output, aside[output])
            done.append(output)
            os.replace(copy, output)
        yield
    except BaseException:
        for output in done:
            remove(output)
            if os.path.lexists(aside[output]):
                os.replace(aside[output], output)
        raise
    finally:
        for one in aside.values():
            remove(one)
