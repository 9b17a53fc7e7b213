"""`pipeline dag`: the stages and what each waits for, as narrow as they can be drawn."""

from kd3_pipeline.console import Console
from kd3_stages.command import Json, Quiet


def dag(quiet: Quiet = False, as_json: Json = False) -> None:
    """Draw the graph of the stages in dvc.yaml, without arrows that follow from others.

    `dvc dag` draws all of them, which is three terminals wide.
    """
    from kd3_stages.steps.dag import run

    run(Console(quiet=quiet, as_json=as_json))
