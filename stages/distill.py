"""`pipeline distill`: a student from web images and the teacher. No labelled image is read."""

from typing import Annotated

import typer

from stages import paths
from stages.command import Json, Quiet, Set, start


def distill(
    epochs: Annotated[int | None, typer.Option(help="Passes over the images.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cuda, mps or cpu.")] = None,
    overrides: Set = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Distil the student from data/embed and models/teacher into models/student."""
    params, console = start(
        "distill", overrides, quiet, as_json, epochs=epochs, lr=lr, device=device
    )
    import torch

    from pipeline.device import resolve_device, resolve_precision
    from pipeline.distill.objectives import OBJECTIVES, Terms
    from pipeline.distill.outputs import curves_csv, selection_table
    from pipeline.distill.trainer import Schedule
    from pipeline.distill.trainer import distill as train
    from pipeline.distill.web import load_web_images
    from pipeline.models import build
    from pipeline.models.checkpoint import ModelConfig, load_model, save_model
    from pipeline.models.network import parameter_count
    from pipeline.pixels import normalise
    from pipeline.runkey import fields_of, run_key, sources_of
    from pipeline.store import remove, replacing, write_json, write_table, write_text

    section = params.distill
    chosen = resolve_device(section.device)
    precision = resolve_precision(section.precision, chosen)
    web = load_web_images(paths.EMBED, section.held_out, chosen)
    teacher, config = load_model(paths.TEACHER, chosen)
    teacher.requires_grad_(False)
    torch.manual_seed(section.seed)
    student = build(section.student, len(config.class_names))
    example = normalise(web.pixels[:1], config.mean, config.std)
    terms = Terms(**fields_of(Terms, section))
    objective = OBJECTIVES[section.objective](student, teacher, example, terms).to(chosen)
    schedule = Schedule(**fields_of(Schedule, section))

    run = run_key(
        section.model_dump() | {"device": chosen.type, "precision": str(precision)},
        inputs=[paths.EMBED, paths.TEACHER],
        sources=sources_of(__file__),
    )
    folder = paths.CACHE / "distill" / run
    steps = schedule.epochs * (len(web.train) // schedule.batch_size)
    with console.progress("distill", steps) as advance:
        trained = train(
            web,
            objective,
            config.mean,
            config.std,
            schedule,
            precision,
            folder,
            advance,
            lambda curves: write_text(paths.CURVES, curves_csv(curves)),
        )
    network, architecture = objective.deployed()
    name = {"backbone" if "side" in architecture else "name": section.student}
    source = f"{section.objective} from {len(web.train)} web images; teacher {config.sha256[:12]}"
    with replacing(paths.STUDENT) as target:
        save_model(
            target,
            network,
            ModelConfig(
                name | architecture,
                config.class_names,
                config.mean,
                config.std,
                config.input_size,
                source,
            ),
        )
    write_table(paths.SELECTION, selection_table(web.ids, web.held_out.tolist(), trained))
    write_text(paths.CURVES, curves_csv(trained.curves))
    last = trained.curves[-1]
    summary = {
        "images": len(web.train),
        "epochs": schedule.epochs,
        "parameters": parameter_count(network),
        "kept": last["kept"],
        "loss": last["loss"],
        "agreement": last["agreement"],
    }
    write_json(paths.summary("distill"), summary)
    remove(folder)
    agreement = "" if last["agreement"] is None else f"{last['agreement']:.1%}"
    console.result(
        f"distill: {section.student}, agreement with the teacher on held-out web images"
        f" {agreement or 'not measured'} → {paths.STUDENT}",
        summary,
    )
