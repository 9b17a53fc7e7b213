"""Step of `pipeline import`: results of another machine, checked, copied and known to DVC."""

import shutil
from pathlib import Path

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
from kd3_stages.steps.run_dvc import dvc

STAGE = "distill"


def run(folder: Path, any_version: bool, console: Console) -> None:
    """Copies the outputs of `distill` from `folder` into the project, and commits them with DVC.

    Raises:
        UserError: the results belong to other parameters, inputs or code, or are not whole.
        ExternalError: DVC does not take them.
    """
    if folder.resolve() == Path.cwd().resolve():
        raise UserError(f"{folder} is this project", "name the copy that came from elsewhere")
    record = read_record(folder / paths.DISTILLED)
    with console.progress("import: comparing") as advance:
        _check_whole(folder, record)
        advance()
        _check_ours(record, any_version)
        advance()
    for path in (*WRITTEN, paths.DISTILLED):
        with replacing(path) as temporary:  # a new file: DVC's cache may have a link to the old
            source = folder / path
            (shutil.copytree if source.is_dir() else shutil.copyfile)(source, temporary)
    note_inputs(Console(quiet=True))
    if dvc("commit", "--quiet", "--force", STAGE):
        raise ExternalError(
            f"the files are in place, and `dvc commit -f {STAGE}` failed",
            "mend what DVC says, and run it again",
        )
    own_copies()  # which DVC has just made links of
    console.result(
        f"import: a student made on {record.place} by kd3-pipeline {record.version}"
        f" → {paths.STUDENT}; next: pipeline repro",
        {"folder": str(folder), "version": record.version, "place": record.place}
        | {"files": [str(path) for path in (*WRITTEN, paths.DISTILLED)]},
    )


def _check_whole(folder: Path, record: RunRecord) -> None:
    """Raises a UserError unless the folder holds what the run wrote, to the byte."""
    wanted = {path.as_posix() for path in WRITTEN}
    if set(record.outputs) != wanted:
        raise UserError(
            f"{folder / paths.DISTILLED} does not say what was written",
            "distil again with this version there",
        )
    for path, sha256 in record.outputs.items():
        if not (folder / path).exists():
            raise UserError(f"{folder / path} not found", "copy it from the other machine, too")
        if digest_of(folder / path) != sha256:
            raise UserError(
                f"{folder / path} is not what the run wrote",
                "copy it again, whole; or another run has written over part of it there",
            )


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
