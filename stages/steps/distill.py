"""Step of `pipeline distill`: a student from web images and the teacher, without a label."""

from typing import Any

from pipeline.console import Console
from pipeline.device import resolve_device, resolve_precision
from pipeline.distill import parallel
from pipeline.distill.objectives import OBJECTIVES
from pipeline.distill.outputs import (
    curves_csv,
    epoch_writer,
    save_student,
    selection_table,
    threshold_table,
)
from pipeline.distill.run import run as distilled
from pipeline.distill.run import settings_of
from pipeline.distill.tuning import HELD_OUT, Trials, probe_rates, probe_steps
from pipeline.distill.web import load_web_images
from pipeline.models.checkpoint import load_model
from pipeline.models.network import parameter_count
from pipeline.params import Params
from pipeline.runkey import run_key, sources_of
from pipeline.store import remove, write_json, write_table, write_text
from stages import paths


def run(params: Params, console: Console) -> None:
    """Distils into models/student."""
    section = params.distill
    fixed = OBJECTIVES[section.objective].settings
    own = {name: value for name, value in fixed.items() if getattr(section, name) != value}
    if own:
        console.note(
            f"objective '{section.objective}' sets"
            f" {', '.join(f'{name} {value}' for name, value in own.items())}"
        )
    section = section.model_copy(update=own)
    chosen = resolve_device(section.device)
    precision = resolve_precision(section.precision, chosen)
    world = parallel.join(chosen, section.batch_size)
    console.quiet = console.quiet or world.rank > 0
    web = load_web_images(
        paths.EMBED,
        section.held_out,
        chosen,
        section.pixels,
        section.off_topic_weight,
        section.skip_redundant,
    )
    teacher, config = load_model(paths.TEACHER, chosen)
    teacher.requires_grad_(False)
    key = run_key(
        section.model_dump(exclude={"tensorboard"})
        | {"device": chosen.type, "precision": str(precision)},
        inputs=[paths.EMBED, paths.TEACHER],
        sources=sources_of(__file__),
    )
    folder = paths.CACHE / "distill" / key
    place = f"{chosen.type}, {precision}" + (f", {world.size} processes" * (world.size > 1))
    console.note(f"trained on {place}; pixels {web.pixels.kind}")
    if section.lr == "auto":
        choosing = web.holding_out(max(section.held_out, HELD_OUT))
        trials = Trials(choosing, teacher, config, precision, folder / "rates", world)
        total = probe_steps(trials, settings_of(section))
        with console.progress("distill: learning rate", total) as advance:
            found = probe_rates(trials, settings_of(section), advance)
        best = max(found, key=found.__getitem__)
        section = section.model_copy(update={"lr": best})
        tried = ", ".join(f"{rate} ({agreement:.1%})" for rate, agreement in found.items())
        console.note(f"learning rate {best}; agreement after short runs was {tried}")
    told = epoch_writer(section.tensorboard) if world.rank == 0 else None

    def report(curves: list[dict[str, Any]]) -> None:
        write_text(paths.CURVES, curves_csv(curves))
        if told:
            told(curves[-1])

    steps = section.epochs * (len(web.train) // section.batch_size)
    with console.progress("distill", steps) as advance:
        objective, trained = distilled(
            settings_of(section), web, teacher, config, precision, folder, advance, report, world
        )
    world.wait()  # nothing is removed while another process may still read it
    parallel.leave(world)
    if world.rank > 0:
        return
    source = f"{section.objective} from {len(web.train)} web images; teacher {config.sha256[:12]}"
    network = save_student(paths.STUDENT, objective, section.student, config, source)
    write_table(paths.SELECTION, selection_table(web.ids, web.held_out.tolist(), trained))
    write_table(paths.THRESHOLDS, threshold_table(config.class_names, trained))
    write_text(paths.CURVES, curves_csv(trained.curves))
    deployed = trained.curves[trained.epoch - 1]
    summary = {
        "images": len(web.train),
        "epochs": section.epochs,
        "lr": section.lr,
        "deployed_epoch": trained.epoch,
        "parameters": parameter_count(network),
        **{name: deployed[name] for name in ("kept", "loss", "agreement")},
    }
    write_json(paths.summary("distill"), summary)
    remove(folder)
    agreement = deployed["agreement"]
    console.result(
        f"distill: {section.student}, agreement with the teacher on held-out web images"
        f" {'not measured' if agreement is None else f'{agreement:.1%}'} → {paths.STUDENT}",
        summary,
    )
