"""Common options of the stages' commands, and the start of one."""

import json
import os
from typing import Annotated, Any

import typer

from kd3_pipeline.console import Console
from kd3_pipeline.errors import UserError
from kd3_pipeline.memory import allow
from kd3_pipeline.paramfile import read_params
from kd3_pipeline.params import Params
from kd3_stages.completion import keys
from kd3_stages.paths import PARAMS
from kd3_stages.steps.consent import consented
from kd3_stages.steps.run_dvc import QUIET

Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-S",
        metavar="KEY.PATH=VALUE",
        help="Change a parameter; repeatable.",
        autocompletion=keys,
    ),
]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", envvar=QUIET, help="Print nothing but errors, warnings and --json."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
USED = {  # sections, or keys of them, that a command takes values from beside its own
    "check": tuple(Params.model_fields),
    "crawl": ("embed", "teacher.input_size"),
    "dedup": ("crawl.max_bytes", *(f"evaluate.{key}" for key in ("test_set", "columns", "broken"))),
    "teacher": ("embed", "distill", "evaluate"),
    "distill": ("embed.fit",),
    "export": ("embed.fit", "evaluate"),
}
# consent to code, whoever runs it, and what every picture may take
ANYWHERE = ("teacher.trust", "distill.trust", "crawl.picture_memory")


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
    _refuse_unused(stage, changes)
    params = read_params(PARAMS, changes)
    consented(params)
    allow(params.crawl.picture_memory)
    from kd3_stages.steps.links import own_copies  # late: imports pyarrow

    own_copies()
    console = Console(quiet=quiet, as_json=as_json)
    if changes and "DVC_STAGE" not in os.environ and params != read_params(PARAMS):
        console.note(
            f"{', '.join(changes)} for this run only; `dvc repro` goes back to params.yaml"
        )
    return params, console


def by_epochs(params: Params, epochs: int | None, budget: str | None, changes: Set) -> Params:
    """The parameters without `distill.budget` where --epochs is given: the two exclude each other.

    Args:
        budget: the option of that name.
        changes: the changes of --set.

    Raises:
        UserError: both are given for this run.
    """
    if epochs is None:
        return params
    of_set = any(change.partition("=")[0].strip() == "distill.budget" for change in changes or [])
    if of_set or budget is not None:
        raise UserError("--epochs and distill.budget both say how long a run is", "give one")
    section = params.distill.model_copy(update={"budget": ""})
    return params.model_copy(update={"distill": section})


def _refuse_unused(stage: str, changes: list[str]) -> None:
    """Raises a UserError for a change of what the stage does not read: it would change nothing."""
    used = (stage, *USED.get(stage, ()))
    for change in changes:
        key = change.partition("=")[0].strip()
        section, _, name = key.partition(".")
        name = f"{section}.{name.partition('.')[0]}"  # of a key that has keys of its own
        if section in Params.model_fields and not {section, name} & {*used, *ANYWHERE}:
            raise UserError(
                f"--set {change}: nothing here reads {name}, only {', '.join(used)}",
                f"give it to `pipeline {section}`, or set it in {PARAMS}",
            )
