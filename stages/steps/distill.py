"""Step of `pipeline distill`: a student from web images and the teacher, without a label."""

import time
from dataclasses import asdict
from pathlib import Path

import torch

from kd3_pipeline.console import Console
from kd3_pipeline.device import resolve_device, resolve_precision
from kd3_pipeline.distill import parallel
from kd3_pipeline.distill.budget import check_whole_epoch, length_of, seconds_of
from kd3_pipeline.distill.cautions import cost_notes, memory_notes
from kd3_pipeline.distill.objectives.objective import Objective, fitting
from kd3_pipeline.distill.outputs import (
    epoch_writer,
    save_student,
    selection_table,
    threshold_table,
    write_curves,
)
from kd3_pipeline.distill.pace import in_steps, known_steps, settle
from kd3_pipeline.distill.peak_rate import LENGTH, RATES, chosen, probe_rates, probe_steps
from kd3_pipeline.distill.pretrained import Pretrained
from kd3_pipeline.distill.run import distill, prepare, ready
from kd3_pipeline.distill.trainer import Row, Trained
from kd3_pipeline.distill.trials import HELD_OUT, Trials
from kd3_pipeline.distill.web import WebImages, load_web_images, usual_share
from kd3_pipeline.forecast import FORETELLING, forecast
from kd3_pipeline.frames import Fit
from kd3_pipeline.models.checkpoint import ModelConfig, load_model
from kd3_pipeline.models.network import Network, parameter_count
from kd3_pipeline.params import Distill, Params
from kd3_pipeline.registry import OBJECTIVES
from kd3_pipeline.runkey import begins_anew, run_key, sources_of
from kd3_pipeline.runrecord import digests
from kd3_pipeline.store import remove, write_json, write_table
from kd3_stages import paths
from kd3_stages.steps.distill_record import READ, write_record
from kd3_stages.steps.views import answers_folder, ask_teacher

FEWEST = 50  # held-out images from which an agreement is judged


def run(params: Params, console: Console) -> None:
    """Distils into models/student."""
    began = time.monotonic()
    device = resolve_device(params.distill.device)
    teacher, config = load_model(paths.TEACHER, device)
    teacher.requires_grad_(False)
    section, fallback = fitting(params.distill, teacher)
    if fallback:
        console.note(f"objective {fallback}")
    section = _with_own_settings(section, console)
    precision = resolve_precision(section.precision, device)
    world = parallel.join(device, section.batch_size)
    console.quiet = console.quiet or world.rank > 0
    web = load_web_images(paths.EMBED, section, device)
    start = _looked_at(section, web, teacher, config, precision, world, console)
    read = digests(READ)
    key = run_key(
        section.model_dump(exclude={"tensorboard"})
        | {"device": device.type, "precision": str(precision)}
        | ({"start": start.weights.sha256} if start else {}),
        inputs=map(Path, read),
        sources=sources_of(__file__),
    )
    folder = paths.CACHE / "distill" / key
    if anew := begins_anew(folder):
        console.note(anew)
    place = f"{device.type}, {precision}" + (f", {world.size} processes" * (world.size > 1))
    console.note(f"trained on {place}; pixels {web.pixels.kind}")
    answers = folder / "views"
    if section.teacher_views:
        answers = answers_folder(web.ids, device, precision)
    ask_teacher(section, web, teacher, config, precision, answers, world, console)
    given = (web, teacher, config, precision, folder, world, answers)
    section = _with_steps(section, *given, began, console)
    check_whole_epoch(section, len(web.train))
    if section.lr == "auto":
        choosing = web.holding_out(max(section.held_out, HELD_OUT))
        trials = Trials(choosing, teacher, config, precision, folder / "rates", world, answers)
        section = section.model_copy(update={"lr": _peak_rate(section, trials, console)})
    told = epoch_writer(section.tensorboard) if world.rank == 0 else None

    def report(curves: list[Row]) -> None:
        write_curves(paths.CURVES, curves)
        if told:
            told(curves[-1])

    steps = length_of(section, len(web.train)).steps
    with console.progress("distill", steps) as advance:
        objective, trained = distill(
            section, web, teacher, config, precision, folder, advance, report, world, answers
        )
    world.wait()  # nothing is removed while another process may still read it
    parallel.leave(world)
    if world.rank == 0:
        about = (section, web, config, params.embed.fit, objective, trained, start)
        _write(*about, fallback, console)
        write_record(params, read, place.replace("torch.", ""))
        remove(folder)


def _with_own_settings(section: Distill, console: Console) -> Distill:
    """The section with what its objective fixes, which is told where it differs."""
    fixed = OBJECTIVES.load(section.objective).settings
    own = {name: value for name, value in fixed.items() if getattr(section, name) != value}
    if own:
        console.note(
            f"objective '{section.objective}' sets"
            f" {', '.join(f'{name} {value}' for name, value in own.items())}"
        )
    return section.model_copy(update=own)


def _looked_at(
    section: Distill,
    web: WebImages,
    teacher: Network,
    config: ModelConfig,
    precision: torch.dtype,
    world: parallel.World,
    console: Console,
) -> Pretrained | None:
    """What the student starts from; what is to be told of it and of its costs is said now."""
    ready = prepare(section, web, teacher, config, world)
    images = ready.views.whole(next(iter(web.pixels.batches([web.train[:2]]))))
    told = ready.notes + cost_notes(ready.objective, images)
    if len(images) > 1:  # else there are too few to train on, which is told in its place
        told += memory_notes(ready.objective, images, section, precision)
    for line in told:
        console.say(f"note: {line}")
    return ready.start


def _with_steps(
    section: Distill,
    web: WebImages,
    teacher: Network,
    config: ModelConfig,
    precision: torch.dtype,
    folder: Path,
    world: parallel.World,
    answers: Path,
    began: float,
    console: Console,
) -> Distill:
    """The section with the steps that its budget is enough for, if that is a time."""
    if not section.budget or seconds_of(section.budget) is None:
        return section
    steps = known_steps(folder, world, web.teacher_logits.device)
    pace = "as settled at its first start"
    if steps is None:
        prepared = ready(section, web, teacher, config, precision, answers, world)
        probing = LENGTH * len(RATES[section.optimizer]) if section.lr == "auto" else 0.0
        steps, found = settle(section, web, prepared, precision, folder, began, probing)
        pace = f"at {1000 * found.step:.3g} ms each, as measured"
    found_length = length_of(in_steps(section, steps), len(web.train))
    console.say(
        f"note: distill.budget {section.budget} is enough for {found_length.steps:,} steps in"
        f" {found_length.epochs:,} epochs, {pace}; distill.epochs ({section.epochs}) does not count"
    )
    return in_steps(section, steps)


def _peak_rate(section: Distill, trials: Trials, console: Console) -> float:
    """The learning rate for `auto`, from short runs."""
    with console.progress("distill: learning rate", probe_steps(trials, section)) as advance:
        found = probe_rates(trials, section, advance)
    rate, told, warning = chosen(found, usual_share(trials.web))
    console.note(told)
    if warning:
        console.warn(warning)
    return rate


def _write(
    section: Distill,
    web: WebImages,
    config: ModelConfig,
    fit: Fit,
    objective: Objective,
    trained: Trained,
    start: Pretrained | None,
    fallback: str,
    console: Console,
) -> None:
    """Writes all that is left of a finished run, and says how it ended."""
    source = f"{fallback or section.objective} from {len(web.train)} web images"
    source += f"; teacher {config.sha256[:12]}"
    if start:
        source += f"; started from {start.origin}, SHA-256 {start.weights.sha256}"
    resize = 0 if web.pixels.side == config.input_size else web.pixels.side
    network = save_student(paths.STUDENT, objective, section.student, config, source, fit, resize)
    write_table(paths.SELECTION, selection_table(web.ids, web.held_out.tolist(), trained))
    write_table(paths.THRESHOLDS, threshold_table(config.class_names, trained))
    write_curves(paths.CURVES, trained.curves)
    deployed = trained.curves[trained.epoch - 1]
    summary = {
        "images": len(web.train),
        "objective": section.objective,
        "epochs": len(trained.curves),
        "steps": trained.steps,
        **({"budget": section.budget} if section.budget else {}),
        "lr": section.lr,
        "deployed_epoch": trained.epoch,
        "parameters": parameter_count(network),
        **{name: deployed[name] for name in ("kept", "loss", "agreement")},
        "agreement_commonest": usual_share(web) if len(web.held_out) else None,
        "agreement_on": web.yardstick.told,
    }
    if start:
        summary["student_weights"] = {"origin": start.origin, "sha256": start.weights.sha256}
    write_json(paths.summary("distill"), summary)
    ahead = forecast(*([row[name] for row in trained.curves] for name in FORETELLING))
    if ahead:
        console.note(f"forecast: {ahead.told()}")
    agreement, usual = deployed["agreement"], summary["agreement_commonest"]
    measured = "not measured"
    if agreement is not None and usual is not None:
        measured = f"{agreement:.1%} (always saying its commonest answer: {usual:.1%})"
        if agreement <= usual and len(web.held_out) >= FEWEST:
            console.warn(
                f"the student agrees with the teacher on {agreement:.1%} of {len(web.held_out):,}"
                f" {web.yardstick.told}, and always saying its commonest answer would on"
                f" {usual:.1%}: by these it has learnt nothing; look at distill.lr,"
                " distill.epochs and reports/coverage.csv"
            )
    console.result(
        f"distill: {section.student}, agreement with the teacher on {web.yardstick.told}"
        f" {measured} → {paths.STUDENT}",
        # how long epochs took differs from run to run, so that it is in no file that DVC compares
        summary | {"forecast": asdict(ahead) if ahead else None},
    )
