"""`pipeline tune`: a search for parameters of distill, judged without labels."""

import csv
import io
import json
import os
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.errors import TrainingError, UserError
from stages import paths
from stages.command import Json, Quiet, Set, start

TABLE = Path("reports/tune.csv")
PAGE = Path("reports/tune.html")
SPACE = ("lr=0.1:4", "crop=pad,resized,none", "logit_weight=0,0.1", "contrast_weight=0.0001:0.1")


def tune(
    trials: Annotated[int, typer.Option(min=1, help="Runs in all.")] = 12,
    epochs: Annotated[int | None, typer.Option(help="Of each run.")] = None,
    search: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=LOW:HIGH or NAME=A,B",
            help="A range (drawn by its logarithm) or values of a parameter of distill;"
            f" repeatable. Default: {' '.join(SPACE)}",
        ),
    ] = None,
    overrides: Set = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Search parameters of distill by agreement with the teacher on held-out web images.

    No label is read. The same command goes on where it stopped; more --trials add to it.
    """
    params, console = start("distill", overrides, quiet, as_json, epochs=epochs)
    section = params.distill
    space = _space(section, search, epochs)
    from pipeline.device import resolve_device, resolve_precision
    from pipeline.distill import search as searching
    from pipeline.distill.tuning import HELD_OUT
    from pipeline.distill.web import load_web_images
    from pipeline.models.checkpoint import load_model
    from pipeline.runkey import run_key, sources_of

    chosen = resolve_device(section.device)
    fixed = searching.with_values(section, {})
    web = load_web_images(
        paths.EMBED,
        section.held_out,
        chosen,
        section.pixels,
        fixed.off_topic_weight,
        fixed.skip_redundant,
    )
    web = web.holding_out(max(section.held_out, HELD_OUT))
    if len(web.held_out) == 0:
        raise UserError("tune: no web image is held out to judge by", "crawl more")
    teacher, config = load_model(paths.TEACHER, chosen)
    teacher.requires_grad_(False)
    rest = {name: value for name, value in section.model_dump().items() if name not in space}
    own = {"device": chosen.type, "precision": str(resolve_precision(section.precision, chosen))}
    key = run_key(
        rest | own | {"space": space},
        inputs=[paths.EMBED, paths.TEACHER],
        sources=sources_of(__file__),
    )
    folder = paths.CACHE / "tune" / key
    study = searching.open_study(folder / "journal.log", space, section.model_dump())
    judge = searching.Runs(section, web, teacher, config, chosen, folder)
    with console.progress("tune", trials) as advance:
        searching.search(study, space, section.seed, trials, judge, advance)

    rows = searching.results(study, space)
    best = rows[0]
    values = {name: best[name] for name in space}
    commands = _commands(overrides or [], values)
    _write(rows, {name: getattr(space[name], "choices", None) for name in space}, commands, web)
    if best["failed"]:
        raise TrainingError(f"tune: all {len(rows)} trials failed: {best['failed']}")
    console.note(f"all trials: {PAGE} and {TABLE}")
    told = ", ".join(f"{name} {_text(value)}" for name, value in values.items())
    console.result(
        f"tune: {best['agreement']:.1%} agreement with the teacher on {len(web.held_out)} held-out"
        f" web images, the best of {len(rows)} trials, with {told}\n" + "\n".join(commands),
        {"best": best, "trials": rows, "commands": commands},
    )


def _space(section: Any, search: list[str] | None, epochs: int | None) -> Any:
    """What to search, after all that can be wrong with it."""
    try:
        from pipeline.distill.search import read_space
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise UserError(
            "tune needs optuna", "install the extra: pip install 'kd3-pipeline[tune]'"
        ) from None
    from pipeline.distill.objectives import OBJECTIVES

    fixed = OBJECTIVES[section.objective].settings
    default = [text for text in SPACE if text.partition("=")[0] not in fixed]
    space = read_space(search or default, section.objective)
    if section.lr == "auto" and "lr" not in space:
        raise UserError("tune: distill.lr is 'auto'", "--search lr=0.1:2, or --set distill.lr=0.6")
    if epochs is not None and "epochs" in space:
        raise UserError("tune: --epochs and --search epochs", "give one of them")
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UserError("tune runs in one process", "start it without torchrun")
    return space


def _commands(overrides: list[str], values: dict[str, Any]) -> list[str]:
    """The two ways to use `values`."""
    changes = [*overrides, *(f"distill.{name}={_text(value)}" for name, value in values.items())]
    return [
        f"{command} {' '.join(f'{option} {shlex.quote(change)}' for change in changes)}"
        for command, option in (("pipeline distill", "--set"), ("dvc exp run", "-S"))
    ]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _write(
    rows: list[dict[str, Any]], choices: dict[str, Any], commands: list[str], web: Any
) -> None:
    from pipeline.report.tuning.page import build_tuning_page
    from pipeline.store import write_text

    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(TABLE, out.getvalue())
    write_text(PAGE, build_tuning_page(rows, choices, commands, len(web.held_out)))
