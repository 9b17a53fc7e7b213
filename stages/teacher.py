"""`pipeline teacher`: the teacher as a checkpoint, wherever it comes from."""

from pathlib import Path

from stages import paths
from stages.command import Json, Quiet, Set, start


def teacher(overrides: Set = None, quiet: Quiet = False, as_json: Json = False) -> None:
    """Read the teacher from a file, or train one, into models/teacher."""
    params, console = start("teacher", overrides, quiet, as_json)
    import torch

    from pipeline.device import resolve_device, resolve_precision
    from pipeline.labelled import load_labelled
    from pipeline.models import build
    from pipeline.models.checkpoint import ModelConfig, save_model
    from pipeline.models.network import parameter_count
    from pipeline.models.teacher import class_count, load_teacher
    from pipeline.models.train import Recipe, train
    from pipeline.store import replacing, write_json

    section = params.teacher
    summary = {"architecture": section.architecture, "source": section.source}
    if section.source == "file":
        path = Path(section.path)
        names = section.class_names or [f"class {k}" for k in range(class_count(path))]
        network = build(section.architecture, len(names))
        load_teacher(network, path)
        source = path.name
    else:
        device = resolve_device(section.device)
        with console.progress("teacher: reading", section.images or None) as advance:
            data = load_labelled(
                section.data, "train", section.input_size, section.images, section.seed, advance
            )
        names = data.class_names or [f"class {k}" for k in range(int(data.labels.max()) + 1)]
        torch.manual_seed(section.seed)
        network = build(section.architecture, len(names))
        recipe = Recipe(
            section.epochs,
            section.batch_size,
            section.lr,
            section.flip,
            section.seed,
            resolve_precision(section.precision, device),
        )
        steps = section.epochs * (len(data.labels) // section.batch_size)
        with console.progress("teacher: training", steps) as advance:
            accuracy = train(
                network,
                data.pixels,
                data.labels,
                section.mean,
                section.std,
                recipe,
                device,
                advance,
            )
        source = f"trained on {len(data.labels)} images of {section.data}"
        summary |= {"training_images": len(data.labels), "training_accuracy": round(accuracy, 4)}
    config = ModelConfig(
        {"name": section.architecture, "num_classes": len(names)},
        names,
        list(section.mean),
        list(section.std),
        section.input_size,
        source,
    )
    with replacing(paths.TEACHER) as folder:
        save_model(folder, network, config)
    summary |= {"parameters": parameter_count(network), "classes": len(names)}
    write_json(paths.summary("teacher"), summary)
    console.result(
        f"teacher: {section.architecture}, {len(names)} classes, {source} → {paths.TEACHER}",
        summary,
    )
