"""Step of `pipeline tune`: trials, and their table."""

import json
import os
import shlex
from functools import partial
from pathlib import Path
from typing import Any

import torch

from kd3_pipeline.console import Console
from kd3_pipeline.device import resolve_device, resolve_precision
from kd3_pipeline.distill import tune
from kd3_pipeline.distill.budget import seconds_of
from kd3_pipeline.distill.objectives.objective import fitting, with_own_settings
from kd3_pipeline.distill.trials import HELD_OUT
from kd3_pipeline.distill.web import WebImages, load_web_images
from kd3_pipeline.errors import TrainingError, UserError
from kd3_pipeline.models.checkpoint import load_model
from kd3_pipeline.paramfile import load_yaml
from kd3_pipeline.params import Distill
from kd3_pipeline.registry import OBJECTIVES
from kd3_pipeline.runkey import run_key, sources_of
from kd3_pipeline.store import write_csv
from kd3_stages import paths
from kd3_stages.steps.views import answers_folder

TABLE = Path("reports/tune.csv")
JOURNAL = "journal.log"


def run(
    section: Distill,
    console: Console,
    trials: int,
    epochs: int | None,
    search: list[str] | None,
    space_by_default: tuple[str, ...],
    overrides: list[str],
) -> None:
    """Runs trials until there are `trials`, and writes reports/tune.csv."""
    space = search_space(section, search, epochs, space_by_default)
    device = resolve_device(section.device)
    teacher, config = load_model(paths.TEACHER, device)
    teacher.requires_grad_(False)
    section, fallback = fitting(section, teacher)
    if fallback:
        console.note(f"objective {fallback}")
    web = _web_images(section, device)
    rest = {name: value for name, value in section.model_dump().items() if name not in space}
    own = {"device": device.type, "precision": str(resolve_precision(section.precision, device))}
    key = run_key(
        rest | own | {"space": space},
        inputs=[paths.EMBED, paths.TEACHER],
        sources=sources_of(__file__),
    )
    folder = paths.CACHE / "tune" / key
    study = tune.open_study(folder / JOURNAL, space, section.model_dump())
    answers = partial(answers_folder, web.ids, device)
    judge = tune.Runs(section, web, teacher, config, device, folder, answers)
    with console.progress("tune", trials) as advance:
        tune.search(study, space, section.seed, trials, judge, advance)

    rows = tune.results(study, space)
    write_csv(TABLE, list(rows[0]), [list(row.values()) for row in rows])
    best = rows[0]
    if best["failed"]:
        raise TrainingError(f"tune: all {len(rows)} trials failed: {best['failed']}")
    values = {name: best[name] for name in space}
    commands = _commands(overrides, values)
    told = ", ".join(f"{name} {_text(value)}" for name, value in values.items())
    console.note(f"all trials: {TABLE}, and as charts: optuna-dashboard {folder / JOURNAL}")
    console.result(
        f"tune: {best['agreement']:.1%} agreement with the teacher on {len(web.held_out)}"
        f" {web.yardstick.told}, the best of {len(rows)} trials, with {told}\n"
        + "\n".join(commands),
        {
            "best": best,
            "trials": rows,
            "commands": commands,
            "journal": str(folder / JOURNAL),
        },
    )


def search_space(
    section: Distill, search: list[str] | None, epochs: int | None, by_default: tuple[str, ...]
) -> tune.Space:
    """Space to search, after all that can be wrong with it."""
    fixed = OBJECTIVES.load(section.objective).settings
    default = [text for text in by_default if text.partition("=")[0] not in fixed]
    space = tune.read_space(search or default, section.objective)
    if section.lr == "auto" and "lr" not in space:
        raise UserError("tune: distill.lr is 'auto'", "--search lr=0.1:2, or --set distill.lr=0.6")
    if epochs is not None and "epochs" in space:
        raise UserError("tune: --epochs and --search epochs", "give one of them")
    if section.budget and seconds_of(section.budget) is not None:
        raise UserError(
            f"tune: distill.budget {section.budget} is the time of one run, and runs that are"
            " compared have equally many steps",
            "give --epochs, or set distill.budget to steps, as '9000 steps'",
        )
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UserError("tune runs in one process", "start it without torchrun")
    return space


def _web_images(section: Distill, device: torch.device) -> WebImages:
    """The web images, with enough of them held out to judge by."""
    web = load_web_images(paths.EMBED, with_own_settings(section), device)
    web = web.holding_out(max(section.held_out, HELD_OUT))
    if len(web.held_out) == 0:
        raise UserError("tune: no web image is held out to judge by", "crawl more")
    return web


def _commands(overrides: list[str], values: dict[str, Any]) -> list[str]:
    """The two ways to use `values`; DVC wants a `+` before a key that params.yaml lacks."""
    changes = [*overrides, *(f"distill.{name}={_text(value)}" for name, value in values.items())]
    known = load_yaml(paths.PARAMS.read_text("utf-8"), paths.PARAMS.name)[1]
    lacking = [change.partition("=")[0] not in known for change in changes]
    of_dvc = [f"{'+' * lacks}{change}" for lacks, change in zip(lacking, changes, strict=True)]
    return [
        f"{command} {' '.join(f'{option} {shlex.quote(change)}' for change in told)}"
        for command, option, told in (
            ("pipeline distill", "--set", changes),
            ("dvc exp run", "-S", of_dvc),
        )
    ]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
