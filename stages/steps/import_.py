"""Step of `pipeline import`: results of another machine, checked, copied and known to DVC."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kd3_pipeline.console import Console
from kd3_pipeline.errors import ExternalError, UserError
from kd3_pipeline.paramfile import read_params
from kd3_pipeline.runkey import digest_of
from kd3_pipeline.runrecord import RunRecord, digests, read_record
from kd3_pipeline.store import replacing
from kd3_stages import paths
from kd3_stages.steps.consent import consented
from kd3_stages.steps.distill_record import READ, WRITTEN, record_of
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
from kd3_stages.steps.to_run import mapping, outputs_of, read

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
    """

    made: RunRecord
    ours: Callable[[], RunRecord]
    digest: Callable[[Path], str]
    files: tuple[Path, ...]


def run(folder: Path, any_version: bool, console: Console) -> None:
    """Copies from `folder` the outputs of every stage that fit, in order, and commits them.

    Raises:
        UserError: there are none, or some and none fits.
        ExternalError: DVC does not take them.
    """
    if folder.resolve() == Path.cwd().resolve():
        raise UserError(f"{folder} is this project", "name the copy that came from elsewhere")
    if not (folder / paths.LOCK).is_file() and not (folder / paths.DISTILLED).is_file():
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
        ExternalError: DVC does not take them.
    """
    declared = mapping(read(paths.DVC), "stages")[stage]
    first = folder / outputs_of(declared)[0]
    if not first.exists():
        return f"{first} not found", False
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
    _check_whole(folder, results)
    for path in results.files:
        with replacing(path) as temporary:  # a new file: DVC's cache may have a link to the old
            source = folder / path
            (shutil.copytree if source.is_dir() else shutil.copyfile)(source, temporary)
    if dvc("commit", "--quiet", "--force", stage):
        raise ExternalError(
            f"the files of {stage} are in place, and `dvc commit -f {stage}` failed",
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
    if stage == DISTILL and (folder / paths.DISTILLED).is_file():
        made = read_record(folder / paths.DISTILLED)
        return Results(made, _distilled_here, digest_of, (*WRITTEN, paths.DISTILLED))
    made = record_there(folder, stage)
    files = tuple(outputs_of(declared))
    return Results(made, lambda: record_here(stage, declared, noted), dvc_digest, files)


def _distilled_here() -> RunRecord:
    for path in READ:
        if not path.exists():
            raise UserError(f"{path} is not here, so whether it is of that cannot be told", MISSING)
    return record_of(read_params(paths.PARAMS), digests(READ), "", {})


def _check_whole(folder: Path, results: Results) -> None:
    """Raises a UserError unless the folder holds what the run wrote, to the byte."""
    wrote = results.made.outputs
    if set(wrote) != {path.as_posix() for path in results.files if path != paths.DISTILLED}:
        raise UserError("what its run wrote is not what this version writes", "run it again there")
    for path, digest in wrote.items():
        if not (folder / path).exists():
            raise UserError(f"{folder / path} not found", "copy it from the other machine, too")
        if results.digest(folder / path) != digest:
            raise UserError(
                f"{folder / path} is not what the run wrote",
                "copy it again, whole; or another run has written over part of it there",
            )


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
