"""Files of a finished distillation."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from kd3_pipeline.distill.objectives.objective import Objective
from kd3_pipeline.distill.trainer import Row, Trained
from kd3_pipeline.errors import UserError
from kd3_pipeline.extras import install_extra
from kd3_pipeline.frames import Fit
from kd3_pipeline.models.checkpoint import ModelConfig, save_model
from kd3_pipeline.models.fuse import fuse
from kd3_pipeline.models.network import Network
from kd3_pipeline.selections import SCHEMA
from kd3_pipeline.store import replacing, write_csv

BLOCK = 2**16  # images whose selections are turned from epochs to images at a time


def save_student(
    folder: Path,
    objective: Objective,
    student: str,
    teacher: ModelConfig,
    source: str,
    fit: Fit = "crop",
    resize: int = 0,
) -> Network:
    """Writes the student as one network, its batch norms folded into its convolutions.

    Args:
        fit, resize: how images are framed for it, as `kd3_pipeline.frames.framed` has them.

    Returns:
        What was written, in evaluation mode.
    """
    # what a network of one's own remembers of its code goes with it
    options = objective.section.student_options | dict(objective.student.remembered)
    built = {"name": student, "num_classes": len(teacher.class_names), **options}
    network, architecture = objective.deployed(built, teacher.architecture)
    network = fuse(network)
    config = ModelConfig(
        architecture | {"fused": True},
        teacher.class_names,
        teacher.mean,
        teacher.std,
        teacher.input_size,
        source,
        fit=fit,
        resize=resize,
        known_input=True,
    )
    with replacing(folder) as target:
        save_model(target, network, config)
    return network


def selection_table(ids: Sequence[str], held_out: Sequence[int], trained: Trained) -> pa.Table:
    """One row an image: what the deployed student sees in it, and when it was trained on.

    Args:
        held_out: rows that were never to be trained on.
    """
    out = np.zeros(len(ids), bool)
    out[np.asarray(held_out, np.int64)] = True
    columns = {
        "row": np.arange(len(ids)),
        "id": ids,
        "predicted": trained.labels.numpy(),
        "confidence": trained.confidence.numpy(),
        "held_out": out,
        "times_kept": trained.kept.sum(dim=0, dtype=torch.int32).numpy(),
    }
    arrays = {name: pa.array(of, SCHEMA.field(name).type) for name, of in columns.items()}
    arrays["kept"] = _by_image(trained.kept)
    return pa.table([arrays[name] for name in SCHEMA.names], schema=SCHEMA)


def _by_image(kept: Tensor, elements: int = 2**31 - 1) -> pa.ChunkedArray:
    """Lists of one value an epoch for each image, of `kept` by epoch and image.

    Args:
        elements: that one array of lists may hold in all.
    """
    epochs, images = kept.shape
    most = max(1, elements // max(epochs, 1))
    return pa.chunked_array(
        [_lists(kept[:, first : first + most], BLOCK) for first in range(0, max(images, 1), most)],
        SCHEMA.field("kept").type,
    )


def _lists(kept: Tensor, block: int) -> pa.ListArray:
    """The same as one array; no more than `block` images are held as bytes, the others as bits."""
    epochs, images = kept.shape
    bits = [
        pa.array(kept[:, first : first + block].T.reshape(-1).numpy())
        for first in range(0, images, block)
    ]
    ends = np.arange(images + 1, dtype=np.int32) * np.int32(epochs)
    return pa.ListArray.from_arrays(ends, pa.concat_arrays([pa.array([], pa.bool_()), *bits]))


def threshold_table(class_names: Sequence[str], trained: Trained) -> pa.Table:
    """One row an epoch and class: what confidence an image of it had to exceed to be trained on.

    No rows for a selection without thresholds.
    """
    epochs, labels = (~trained.thresholds.isnan()).nonzero(as_tuple=True)
    return pa.table(
        {
            "epoch": pa.array((epochs + 1).tolist(), pa.int32()),
            "label": pa.array(labels.tolist(), pa.int64()),
            "class": pa.array([class_names[label] for label in labels.tolist()], pa.string()),
            "threshold": pa.array(trained.thresholds[epochs, labels].tolist(), pa.float32()),
        }
    )


def write_curves(path: Path, curves: Sequence[Row]) -> None:
    """Writes one row an epoch, for the report and `dvc plots`."""
    columns = list(curves[0])
    write_csv(path, columns, [[row[name] for name in columns] for row in curves])


def epoch_writer(folder: str) -> Callable[[Row], None] | None:
    """Writer of the figures of an epoch for TensorBoard, below `folder`; None without one.

    Raises:
        UserError: the package is missing.
    """
    if not folder:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError(f"distill.tensorboard: {error}", install_extra("tensorboard")) from None
    writer = SummaryWriter(folder)

    def write(row: Row) -> None:
        for name, value in row.items():
            if name != "epoch" and value is not None:
                writer.add_scalar(name, value, row["epoch"])
        writer.flush()

    return write
