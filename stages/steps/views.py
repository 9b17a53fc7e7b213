"""Stored views of a distillation: where the teacher's answers are kept, and asking for them."""

import hashlib
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from kd3_pipeline import models
from kd3_pipeline.console import Console
from kd3_pipeline.device import laid_out, memory_format
from kd3_pipeline.distill import answers, teacher_views, views
from kd3_pipeline.distill.parallel import World
from kd3_pipeline.distill.views import views_of
from kd3_pipeline.distill.web import WebImages
from kd3_pipeline.embeddings import CROP_FILES, FEATURES, IMAGES, INDEX, LOGITS, REFINED_LOGITS
from kd3_pipeline.models.checkpoint import ModelConfig
from kd3_pipeline.models.fuse import fuse
from kd3_pipeline.models.network import Network
from kd3_pipeline.models.program import Program
from kd3_pipeline.params import Distill
from kd3_pipeline.runkey import run_key
from kd3_stages import paths

NO_PIXELS = {FEATURES, LOGITS, IMAGES, INDEX, REFINED_LOGITS, *CROP_FILES}  # of what `embed` leaves


def answers_folder(ids: Sequence[str], device: torch.device, precision: torch.dtype) -> Path:
    """Where answers are kept beyond a run: the same for the same teacher, pixels and arithmetic.

    Runs that differ in student, rate or seed share it. Of the code, what asks, cuts and answers
    counts; parameters of the views are in the names of the files.

    Args:
        ids: of the web images, in the order of their pixels.
    """
    pixels = [path for path in sorted(paths.EMBED.iterdir()) if path.name not in NO_PIXELS]
    asks = [Path(str(module.__file__)) for module in (answers, teacher_views, views)]
    ground = [asks[0].parents[1] / name for name in ("pixels.py", "pixelstore.py", "device.py")]
    networks = sorted(Path(str(models.__file__)).parent.rglob("*.py"))
    named = hashlib.sha256("\n".join(ids).encode()).hexdigest()
    key = run_key(
        {"ids": named, "device": device.type, "precision": str(precision)},
        inputs=[paths.TEACHER, *pixels],
        sources=[*asks, *ground, *networks],
    )
    return paths.VIEWS / key


def ask_teacher(
    section: Distill,
    web: WebImages,
    teacher: Network,
    config: ModelConfig,
    precision: torch.dtype,
    folder: Path,
    world: World,
    console: Console,
) -> None:
    """Asks for the stored views before training, if there are any; else says what asking costs.

    Args:
        section: with what its objective fixes.
        folder: of `answers_folder`.
    """
    of = views_of(section, config, web.pixels.side)
    if section.teacher_views == 0 and isinstance(teacher, Program):
        _tell_cost(section, web, teacher, of, console)
    if not teacher_views.has_file(section):
        return
    asked = laid_out(fuse(teacher), memory_format(web.teacher_logits.device))
    form = teacher_views.form_of(section, web, asked, of)
    path = teacher_views.file_of(section, of, form, folder)
    count = teacher_views.views_of_each(section, web)
    images = len(web.looked_at)
    size = count * images * form.size / 1e9
    numbers = f"{' × '.join(map(str, form.shape))} numbers of {form.bits} bits"
    there = f"are in {path} ({size:.2f} GB)" if path.exists() else f"take {size:.2f} GB in {path}"
    console.note(
        f"teacher's views: {count} of each of {images:,} images, {numbers}, {there}; kept for"
        f" other students of this teacher until you remove it: rm -r {paths.VIEWS}"
    )
    others = [other for other in folder.parent.glob("*") if other != folder]
    if others:
        held = sum(file.stat().st_size for other in others for file in other.rglob("*"))
        console.note(
            f"views of other teachers, images or versions take {held / 1e9:.2f} GB:"
            f" rm -r {shlex.join(map(str, sorted(others)))}"
        )
    with console.progress("distill: teacher's views", count * images) as advance:
        about = (section, web, asked, of, precision, folder, world, advance)
        teacher_views.stored_views(*about)


def _tell_cost(
    section: Distill, web: WebImages, teacher: Network, of: views.Views, console: Console
) -> None:
    """Says how long a program that is asked at every step takes, by one batch."""
    rows = web.train[: section.batch_size]
    images = of.whole(next(iter(web.pixels.batches([rows]))))
    started = time.monotonic()
    teacher(images)
    each = (time.monotonic() - started) / max(1, len(rows))
    minutes = each * len(web.train) * section.epochs / 60
    in_all = "" if section.budget else f" about {minutes:.1f} minutes of the training;"
    console.note(
        f"the teacher is a program and is asked at every step, {1000 * each:.2f} ms an image:"
        f"{in_all} distill.teacher_views 1 to 64 asks before it, once for each image and view"
    )
