"""Stored views: fixed views of each image, with what the teacher said of them before training."""

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kd3_pipeline.console import Advance
from kd3_pipeline.device import autocast
from kd3_pipeline.distill.parallel import World
from kd3_pipeline.distill.views import Views, draws
from kd3_pipeline.distill.web import WebImages
from kd3_pipeline.errors import ExternalError, UserError
from kd3_pipeline.models.network import Network
from kd3_pipeline.params import Distill
from kd3_pipeline.pixels import to_device
from kd3_pipeline.store import claim

VIEWS, TURNS = 2**33, 2**34  # counters that no step reaches, for the draws of what is stored


class StoredViews:
    """Views that the student is shown, each with the teacher's logits for just these pixels.

    One of `distill.teacher_views` is the whole image, of which `embed` has the logits, or each of
    the crops that it kept. Of several, each is a crop that was drawn once, the view k of the k-th
    crop that `embed` kept, in turn. An image goes through all of its own, epoch by epoch.

    Args:
        answers: float32 [N, views, C], may be a memory map; None: the whole images'.
    """

    def __init__(
        self, section: Distill, web: WebImages, views: Views, answers: np.ndarray | None
    ) -> None:
        self._web, self._views, self._answers = web, views, answers
        self._drawn = None if answers is None else drawn_views(section, web, views)
        turns = draws(section.seed, TURNS)
        count = web.crops if answers is None else section.teacher_views
        self._turns = torch.randint(count, (len(web.ids),), generator=turns)
        self._count = count

    def __deepcopy__(self, memo: dict) -> "StoredViews":
        return self  # it is read, and large

    def places(self, rows: Tensor, epoch: int) -> Tensor:
        """Places of the pixels of rows in an epoch; both int64 on the CPU."""
        return self._view(rows, epoch) % self._web.crops * len(self._web.ids) + rows

    def shown(self, rows: Tensor, pixels: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """The images [B, 3, S, S] of an epoch, and the teacher's logits [B, C] for them.

        Args:
            rows: of the batch, int64 on the CPU.
            pixels: of their `places`, uint8 [B, S0, S0, 3] on the device.
        """
        if self._drawn is None or self._answers is None:
            return self._views.whole(pixels), self._web.answers(self.places(rows, epoch))
        view = self._view(rows, epoch)
        images = self._views.cut(pixels, self._drawn[view, :, rows].T.long())
        answers = torch.from_numpy(self._answers[rows.numpy(), view.numpy()])
        return images, to_device(answers, pixels.device)

    def _view(self, rows: Tensor, epoch: int) -> Tensor:
        return (self._turns[rows] + epoch) % self._count


def drawn_views(section: Distill, web: WebImages, views: Views) -> Tensor:
    """The crops of all images, int16 [views, K, N], as `Views.cut` takes them."""
    stored = web.pixels.side
    every = [
        views.draw(len(web.ids), stored, draws(section.seed, VIEWS, view)).short()
        for view in range(section.teacher_views)
    ]
    return torch.stack(every)


def stored_views(
    section: Distill,
    web: WebImages,
    teacher: Network,
    views: Views,
    precision: torch.dtype,
    folder: Path,
    world: World,
    advance: Advance,
) -> StoredViews | None:
    """The views that `distill.teacher_views` asks for; None where the teacher is asked live.

    Killed while the teacher is asked, the next call goes on behind the last whole batch.

    Args:
        teacher: on the device of `web`, in evaluation mode.
        folder: where the answers are kept, by all that they depend on but web images and teacher.
        advance: called with the number of answers, those of earlier calls too.

    Raises:
        UserError: an answer is not finite, or another process writes them.
        ExternalError: the disk is full or fails.
    """
    if section.teacher_views == 0:
        return None
    if section.teacher_views == 1:
        return StoredViews(section, web, views, None)
    name = f"{section.teacher_views}-{section.crop}-{section.crop_scale}-{section.flip}"
    path = folder / f"{name}-{section.seed}-{views.side}.f32"
    shape = (len(web.ids), section.teacher_views, web.teacher_logits.shape[1])
    if world.rank == 0 and not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            _ask(section, web, teacher, views, precision, path, advance)
        except OSError as error:
            raise ExternalError(
                f"{path} cannot be written: {error.strerror or error}",
                f"make room for {4 * np.prod(shape) / 1e9:.1f} GB, or lower distill.teacher_views;"
                " the same command goes on where it stopped",
            ) from None
    else:
        advance(shape[0] * shape[1])
    world.wait()
    return StoredViews(section, web, views, np.memmap(path, np.float32, "r", shape=shape))


def _ask(
    section: Distill,
    web: WebImages,
    teacher: Network,
    views: Views,
    precision: torch.dtype,
    path: Path,
    advance: Advance,
) -> None:
    """Writes the teacher's answers, batch by batch, and gives the file its name at the end."""
    part = path.with_suffix(".part")
    count, size = section.teacher_views, section.batch_size
    row_bytes = 4 * count * web.teacher_logits.shape[1]
    with part.open("ab") as file:
        claim(file)
        done = file.tell() // row_bytes // size * size
        file.truncate(done * row_bytes)
        file.seek(0, os.SEEK_END)
        advance(done * count)
        rows = torch.arange(done, len(web.ids)).split(size) if done < len(web.ids) else ()
        drawn = drawn_views(section, web, views)
        for batch, answers in _answered(rows, web, teacher, views, drawn, precision):
            wrong = (~np.isfinite(answers)).any(axis=(1, 2)).nonzero()[0]
            if len(wrong):
                raise UserError(
                    f"the teacher's answer to a crop of the image {web.ids[batch[wrong[0]]]} is not"
                    " finite",
                    "raise distill.crop_scale, or set distill.teacher_views to 1, the whole image",
                )
            file.write(answers.tobytes())
            advance(answers.shape[0] * count)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _answered(
    rows: Sequence[Tensor],
    web: WebImages,
    teacher: Network,
    views: Views,
    drawn: Tensor,
    precision: torch.dtype,
) -> Iterator[tuple[Tensor, np.ndarray]]:
    """Each batch of rows, and the teacher's logits for its views, float32 [B, views, C]."""
    count, total = min(web.crops, len(drawn)), len(web.ids)
    crops = web.pixels.batches(batch + crop * total for batch in rows for crop in range(count))
    for batch in rows:
        pixels = list(islice(crops, count))
        with torch.inference_mode(), autocast(pixels[0].device, precision):
            answers = [
                teacher(views.cut(pixels[view % count], one[:, batch].long())).float().cpu()
                for view, one in enumerate(drawn)
            ]
        yield batch, torch.stack(answers, dim=1).numpy()
