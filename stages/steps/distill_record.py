"""Record of a distillation, which `pipeline import` compares with the project at home."""

from pathlib import Path

from kd3_pipeline.params import Params
from kd3_pipeline.runkey import digest_of
from kd3_pipeline.runrecord import RunRecord, digests, flat
from kd3_pipeline.version import __version__
from kd3_stages import paths
from kd3_stages.code import code_hash

READ = (paths.EMBED, paths.TEACHER)
WRITTEN = (
    *(paths.STUDENT, paths.SELECTION, paths.THRESHOLDS),
    *(paths.CURVES, paths.summary("distill")),
)
PLACE = {"device", "tensorboard"}  # parameters that say where a run is and what it shows


def record_of(
    params: Params, read: dict[str, str], place: str, written: dict[str, str]
) -> RunRecord:
    """The record of a run with these parameters and the code of this machine.

    Args:
        read, written: digests of what it read in the project, and of what it wrote.
    """
    sections = {
        "distill": params.distill.model_dump(mode="json", exclude=PLACE),
        "embed": {"fit": params.embed.fit},
    }
    inputs = read | _outside(params)
    return RunRecord(__version__, code_hash("distill"), flat(sections), inputs, written, place)


def write_record(params: Params, read: dict[str, str], place: str) -> None:
    """Writes the record of the run that has just written its outputs."""
    record_of(params, read, place, digests(WRITTEN)).write(paths.DISTILLED)


def _outside(params: Params) -> dict[str, str]:
    """Digests of files of the user's own: the student's code, and weights that it starts from."""
    section = params.distill
    found = {}
    if ":" in section.student:
        from kd3_pipeline.models.own import code_files  # late: imports torch

        files = code_files(section.student)
        found = {f"distill.student: {file.name}": digest_of(file) for file in files}
    if section.starts_from_file:
        found["distill.student_weights"] = digest_of(Path(section.student_weights))
    return found
