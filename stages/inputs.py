"""`pipeline inputs`: files outside the project, noted so that DVC sees a change."""

from kd3_pipeline.console import Console
from kd3_stages.command import Json, Quiet


def inputs(quiet: Quiet = False, as_json: Json = False) -> None:
    """Note the content of files outside the project that params.yaml names, into data/inputs.

    `dvc repro` runs this before all else; a stage whose file there has changed runs again. Then it
    looks at what would fail later (`pipeline check`).
    """
    from kd3_stages.steps.check import look_before
    from kd3_stages.steps.inputs import run
    from kd3_stages.steps.links import own_copies

    own_copies()  # what `dvc checkout` or the run before has left as links
    run(Console(quiet=quiet, as_json=as_json), look_before)
