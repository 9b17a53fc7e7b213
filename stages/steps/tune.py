"""Step of `pipeline tune`: trials, their table and their page."""

import csv
import io
import json
import os
import shlex
from pathlib import Path
from typing import Any

from pipeline.console import Console
from pipeline.device import resolve_device, resolve_precision
from pipeline.distill import search as searching
from pipeline.distill.objectives import OBJECTIVES
from pipeline.distill.tuning import HELD_OUT
from pipeline.distill.web import load_web_images
from pipeline.errors import TrainingError, UserError
from pipeline.models.checkpoint import load_model
from pipeline.params import Distill
from pipeline.report.tuning.page import build_tuning_page
from pipeline.runkey import run_key, sources_of
from pipeline.store import write_text
from stages import paths

TABLE = Path("reports/tune.csv")
PAGE = Path("reports/tune.html")


def run(
    section: Distill,
    console: Console,
    trials: int,
    epochs: int | None,
    search: list[str] | None,
    space_by_default: tuple[str, ...],
    overrides: list[str],
) -> None:
    """Runs trials until there are `trials`, and writes reports/tune.csv and tune.html."""
    space = _space(section, search, epochs, space_by_default)
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
    commands = _commands(overrides, values)
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


def _space(
    section: Distill, search: list[str] | None, epochs: int | None, by_default: tuple[str, ...]
) -> Any:
    """What to search, after all that can be wrong with it."""
    fixed = OBJECTIVES[section.objective].settings
    default = [text for text in by_default if text.partition("=")[0] not in fixed]
    space = searching.read_space(search or default, section.objective)
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
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(TABLE, out.getvalue())
    write_text(PAGE, build_tuning_page(rows, choices, commands, len(web.held_out)))
