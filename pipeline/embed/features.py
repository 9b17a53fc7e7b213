"""One pass of the teacher over the kept images: pixels, features and logits."""

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from kd3_pipeline.console import Advance
from kd3_pipeline.embed.arrays import ArrayWriter
from kd3_pipeline.embed.batches import Batch, KeptImage, Reading, batches, locate
from kd3_pipeline.embed.finite import ENOUGH, TOO_WIDE, Float, Strays, TooWide, started_with
from kd3_pipeline.embed.passing import (
    TeacherPass,
    one_at_a_time,
    passed_by_cluster,
    passed_by_device,
    passed_by_threads,
)
from kd3_pipeline.embeddings import (
    CROP_BOXES,
    CROP_ENDS,
    CROP_JPEGS,
    CROP_LOGITS,
    CROPS,
    ENDS,
    FEATURES,
    JPEGS,
    LOGITS,
    PIXELS,
    write_images,
)
from kd3_pipeline.engine import Engine
from kd3_pipeline.errors import UserError
from kd3_pipeline.models.checkpoint import ModelConfig
from kd3_pipeline.models.network import Network
from kd3_pipeline.params import Embed
from kd3_pipeline.remedies import counted, remedy
from kd3_pipeline.store import remove

NAMED = 10  # problems that an error tells one by one
IN_TURN = (
    "the teacher's code keeps values while it passes images (as `self.last = x`): threads pass one"
    " after the other, which takes longer"
)
HELD = 2**24  # bytes of pixels in a batch of a CPU, of which each thread has two or three


def kept_images(verdicts: pa.Table) -> list[KeptImage]:
    """The images that dedup kept, in the order of the shards.

    Raises:
        UserError: none was kept.
    """
    columns = verdicts.select(["id", "shard", "row", "label", "kept"]).to_pylist()
    kept = [KeptImage(r["id"], r["shard"], r["row"], r["label"]) for r in columns if r["kept"]]
    if not kept:
        reasons = Counter(verdicts["reason"].to_pylist()).most_common()
        raise UserError(
            f"dedup kept none of {verdicts.num_rows:,} images ({counted(reasons)})",
            f"`pipeline dedup --dry-run` shows them; {remedy(reason for reason, _ in reasons)}",
        )
    return sorted(kept, key=lambda image: (image.shard, image.row))


def reading(section: Embed, config: ModelConfig) -> Reading:
    """How `embed` reads images for a teacher.

    Raises:
        UserError: what is to be stored is smaller than what the teacher takes.
    """
    if section.size and section.size < config.input_size:
        raise UserError(
            f"embed.size is {section.size}, and the teacher takes {config.input_size} pixels: it"
            " sees the centre of what is stored",
            f"set embed.size to {config.input_size} or more (256 is usual for 224), or 0",
        )
    quality = section.jpeg_quality if section.store == "jpeg" else 0
    side = config.input_size
    return Reading(section.size or side, side, section.fit, quality, section.crops)


def embed(
    kept: Sequence[KeptImage],
    crawl: Path,
    network: Network,
    config: ModelConfig,
    folder: Path,
    section: Embed,
    device: torch.device,
    precision: torch.dtype,
    engine: Engine,
    advance: Advance,
) -> str:
    """Writes what `Embeddings` reads into `folder`, but for scores and index: `pixels.npy`
    (uint8 [N, S, S, 3]) or `pixels.jpegs` and `ends.npy` (int64 [N]), `features.npy` (float16
    [N, D]), `logits.npy` (float32 [N, C]) and `images.parquet` (row, id, label; class names).
    With K > 1 of `section.crops` also the other K − 1 views of each image, surest first:
    `crops.npy` (uint8 [N, K − 1, S, S, 3]) or `crops.jpegs` and `crop_ends.npy` (int64 [N, K − 1]),
    `crop_logits.npy` (float32 [N, K − 1, C]) and `crop_boxes.npy` (float32 [N, K − 1, 4]: left,
    top, right and bottom in pixels of the picture; NaN where the whole stands in for a crop).

    Where features of any image are beyond float16, they are float32 for all: the pass begins anew.
    Killed at any moment and called again with the same arguments it goes on behind the last whole
    shard, and what it writes is the same to the byte. Memory does not grow with N.

    Args:
        kept: in the order of `kept_images`.
        network: on `device`, in evaluation mode; stays as it is.
        section: its `size`, `store`, `jpeg_quality`, `batch_size`, `fit` and `crops` are used.
        precision: of convolutions; pooling and classifier are in float32.
        engine: what decodes for a GPU. On a CPU, threads of this process pass as many batches at a
            time, or the workers of a cluster do.

    Returns:
        What is to be told of the pass; empty if nothing.

    Raises:
        UserError: images can no longer be read, or the teacher's answer to them is not finite;
            names each of the first ten. Nothing stays.
        ExternalError: the disk is full or fails, or a process died.
    """
    load = reading(section, config)
    found, problems = locate(kept, crawl)
    most = max(1, section.batch_size // load.views)
    if device.type == "cpu":  # which takes a batch in parts anyway
        most = min(most, max(1, HELD // (load.views * 3 * load.stored**2)))
    every = list(batches(found, crawl, most))
    about = (every, len(kept), network, config, folder, load, engine, device, precision, advance)
    try:
        in_turn = _write(*about, problems, started_with(folder))
    except TooWide as stopped:
        remove(folder)
        advance(-stopped.done)
        in_turn = _write(*about, problems, np.float32)
    columns = {
        "row": pa.array(range(len(kept)), pa.int64()),
        "id": pa.array([image.id for image in kept], pa.string()),
        "label": pa.array([image.label for image in kept], pa.int64()),
    }
    write_images(folder, columns, config.class_names)
    return IN_TURN if in_turn else ""


def _write(
    every: Sequence[Batch],
    total: int,
    network: Network,
    config: ModelConfig,
    folder: Path,
    load: Reading,
    engine: Engine,
    device: torch.device,
    precision: torch.dtype,
    advance: Advance,
    problems: list[str],
    kind: Float,
) -> bool:
    """Writes the arrays of `total` images, features in `kind`; tells whether threads took turns.

    Raises:
        TooWide: float16 does not hold them.
        UserError, ExternalError: as `embed`.
    """
    layout: dict[str, tuple[type, tuple[int, ...]]] = {
        FEATURES: (kind, (network.feature_channels,)),
        LOGITS: (np.float32, (len(config.class_names),)),
    }
    square, crops = (load.stored, load.stored, 3), load.crops - 1
    blobs = {JPEGS: ENDS} if load.quality else {}
    if not load.quality:
        layout[PIXELS] = (np.uint8, square)
    if crops:
        layout[CROP_LOGITS] = (np.float32, (crops, len(config.class_names)))
        layout[CROP_BOXES] = (np.float32, (crops, 4))
        if load.quality:
            layout[CROP_ENDS], blobs[CROP_JPEGS] = (np.int64, (crops,)), CROP_ENDS
        else:
            layout[CROPS] = (np.uint8, (crops, *square))
    problems = list(problems)  # of this pass
    teacher = TeacherPass(network, config, device, precision, kind)
    on_cpu = passed_by_cluster if engine.cluster else passed_by_threads
    passed = on_cpu if device.type == "cpu" else passed_by_device
    with ArrayWriter(folder, total, layout, blobs) as arrays:
        done, strays = arrays.saved, Strays(arrays.saved)
        advance(done)
        rest = [batch for batch in every if batch.start >= arrays.saved]
        with closing(passed(rest, load, teacher, engine, problems)) as results:
            for batch, result in zip(rest, results, strict=True):
                problems += result.problems
                strays.add(batch, result.verdicts)
                if kind is np.float16 and (result.verdicts == TOO_WIDE).any():
                    raise TooWide(done)
                if not problems and not strays.found:
                    arrays.append(result.arrays)
                    if batch.last:
                        arrays.save()
                done += len(batch.rows)
                advance(len(batch.rows))
                if len(strays.found) >= ENOUGH:
                    break
    if problems or strays.found:
        remove(folder)
        raise _unreadable(problems) if problems else strays.error(done == total)
    return passed is passed_by_threads and one_at_a_time(rest, teacher, engine.threads)


def _unreadable(problems: list[str]) -> UserError:
    lines = problems[:NAMED]
    if len(problems) > NAMED:
        lines.append(f"and {len(problems) - NAMED:,} more")
    lines.append("restore data/crawl with `dvc checkout`, or run `dvc repro dedup`")
    return UserError("\n".join(lines))
