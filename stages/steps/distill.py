"""Step of `pipeline distill`: a student from web images and the teacher, without a label."""

import torch

from pipeline.console import Console
from pipeline.device import resolve_device, resolve_precision
from pipeline.distill import parallel
from pipeline.distill.cautions import cost_notes, memory_notes
from pipeline.distill.objectives.objective import Objective
from pipeline.distill.outputs import (
    epoch_writer,
    save_student,
    selection_table,
    threshold_table,
    write_curves,
)
from pipeline.distill.peak_rate import probe_rates, probe_steps
from pipeline.distill.pretrained import Pretrained
from pipeline.distill.run import distill, prepare
from pipeline.distill.trainer import Row, Trained
from pipeline.distill.trials import HELD_OUT, Trials
from pipeline.distill.web import WebImages, load_web_images
from pipeline.images import Fit
from pipeline.models.checkpoint import ModelConfig, load_model
from pipeline.models.network import Network, parameter_count
from pipeline.params import Distill, Params
from pipeline.registry import OBJECTIVES
from pipeline.runkey import run_key, sources_of
from pipeline.store import remove, write_json, write_table
from stages import paths


def run(params: Params, console: Console) -> None:
    """Distils into models/student."""
    section = _with_own_settings(params.distill, console)
    device = resolve_device(section.device)
    precision = resolve_precision(section.precision, device)
    world = parallel.join(device, section.batch_size)
    console.quiet = console.quiet or world.rank > 0
    web = load_web_images(paths.EMBED, section, device)
    teacher, config = load_model(paths.TEACHER, device)
    teacher.requires_grad_(False)
    start = _looked_at(section, web, teacher, config, precision, world, console)
    key = run_key(
        section.model_dump(exclude={"tensorboard"})
        | {"device": device.type, "precision": str(precision)}
        | ({"start": start.weights.sha256} if start else {}),
        inputs=[paths.EMBED, paths.TEACHER],
        sources=sources_of(__file__),
    )
    folder = paths.CACHE / "distill" / key
    place = f"{device.type}, {precision}" + (f", {world.size} processes" * (world.size > 1))
    console.note(f"trained on {place}; pixels {web.pixels.kind}")
    if section.lr == "auto":
        choosing = web.holding_out(max(section.held_out, HELD_OUT))
        trials = Trials(choosing, teacher, config, precision, folder / "rates", world)
        section = section.model_copy(update={"lr": _peak_rate(section, trials, console)})
    told = epoch_writer(section.tensorboard) if world.rank == 0 else None

    def report(curves: list[Row]) -> None:
        write_curves(paths.CURVES, curves)
        if told:
            told(curves[-1])

    steps = section.epochs * (len(web.train) // section.batch_size)
    with console.progress("distill", steps) as advance:
        objective, trained = distill(
            section, web, teacher, config, precision, folder, advance, report, world
        )
    world.wait()  # nothing is removed while another process may still read it
    parallel.leave(world)
    if world.rank == 0:
        _write(section, web, config, params.embed.fit, objective, trained, start, console)
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


def _peak_rate(section: Distill, trials: Trials, console: Console) -> float:
    """The learning rate for `auto`, from short runs."""
    with console.progress("distill: learning rate", probe_steps(trials, section)) as advance:
        found = probe_rates(trials, section, advance)
    best = max(found, key=found.__getitem__)
    tried = ", ".join(f"{rate} ({agreement:.1%})" for rate, agreement in found.items())
    console.note(f"learning rate {best}; agreement after short runs was {tried}")
    return best


def _write(
    section: Distill,
    web: WebImages,
    config: ModelConfig,
    fit: Fit,
    objective: Objective,
    trained: Trained,
    start: Pretrained | None,
    console: Console,
) -> None:
    """Writes all that is left of a finished run, and says how it ended."""
    source = f"{section.objective} from {len(web.train)} web images; teacher {config.sha256[:12]}"
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
        "epochs": section.epochs,
        "lr": section.lr,
        "deployed_epoch": trained.epoch,
        "parameters": parameter_count(network),
        **{name: deployed[name] for name in ("kept", "loss", "agreement")},
    }
    if start:
        summary["student_weights"] = {"origin": start.origin, "sha256": start.weights.sha256}
    write_json(paths.summary("distill"), summary)
    agreement = deployed["agreement"]
    console.result(
        f"distill: {section.student}, agreement with the teacher on held-out web images"
        f" {'not measured' if agreement is None else f'{agreement:.1%}'} → {paths.STUDENT}",
        summary,
    )
