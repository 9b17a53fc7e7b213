"""Common options of the stages' commands, and the start of one."""

import json
import os
from typing import Annotated, Any

import typer

from kd3_pipeline.console import Console
from kd3_pipeline.memory import allow
from kd3_pipeline.paramfile import read_params
from kd3_pipeline.params import Params
from kd3_stages.paths import PARAMS
from kd3_stages.steps.consent import consented

Set = Annotated[
    list[str] | None,
    typer.Option("--set", "-S", metavar="KEY.PATH=VALUE", help="Change a parameter; repeatable."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]


def start(
    stage: str, overrides: list[str] | None, quiet: bool, as_json: bool, **options: Any
) -> tuple[Params, Console]:
    """The parameters and the console of one command.

    `options` are the command's own options by the name of their parameter; None means not given.
    """
    given = [
        f"{stage}.{name}={json.dumps(value)}"
        for name, value in options.items()
        if value is not None
    ]
    changes = [*(overrides or []), *given]
    params = read_params(PARAMS, changes)
    consented(params)
    allow(params.crawl.picture_memory)
    console = Console(quiet=quiet, as_json=as_json)
    if changes and "DVC_STAGE" not in os.environ and params != read_params(PARAMS):
        console.note(
            f"{', '.join(changes)} for this run only; `dvc repro` goes back to params.yaml"
        )
    return params, console
