"""`pipeline inputs`: files outside the project, noted so that DVC sees a change."""

from typing import Any

from kd3_pipeline.console import Console
from kd3_stages.command import Json, Quiet


def inputs(quiet: Quiet = False, as_json: Json = False) -> None:
    """Note the content of files outside the project that params.yaml names, into data/inputs.

    `dvc repro` runs this before all else; a stage whose file there has changed runs again. Then it
    looks at what would fail later (`pipeline check`).
    """
    from kd3_stages.steps.inputs import run
    from kd3_stages.steps.links import own_copies
    from kd3_stages.steps.to_run import to_look_at

    own_copies()  # what `dvc checkout` or the run before has left as links
    console = Console(quiet=quiet, as_json=as_json)

    def look(found: dict[str, Any]) -> None:
        if to_run := to_look_at():
            from kd3_stages.steps.check import look_before  # late: imports all that is looked at

            look_before(found, to_run, console)

    run(console, look)
