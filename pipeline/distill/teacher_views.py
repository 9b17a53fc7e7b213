"""Stored views: fixed views of each image, with what the teacher said of them before training."""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from kd3_pipeline.console import Advance
from kd3_pipeline.device import autocast
from kd3_pipeline.distill.answers import HALF, Form, wants_features
from kd3_pipeline.distill.loader import Resident, Streamed, open_pixels
from kd3_pipeline.distill.parallel import World
from kd3_pipeline.distill.views import Views, draws
from kd3_pipeline.distill.web import WebImages
from kd3_pipeline.errors import ExternalError, UserError
from kd3_pipeline.models.network import Network
from kd3_pipeline.params import Distill
from kd3_pipeline.pixels import AT_ONCE
from kd3_pipeline.store import claim

VIEWS, TURNS = 2**33, 2**34  # counters that no step reaches, for the draws of what is stored
DRAWN = 0  # in place of a run's seed: runs of every seed share what is stored
ASKED = 256  # images that the teacher is asked about at a time, however large a step's batch is


class StoredViews:
    """Views that the student is shown, each with the teacher's answer to just these pixels.

    One of `distill.teacher_views` is the whole image, and each of the crops that `embed` kept. Of
    several, each is a crop that was drawn once, view v out of the view v % K of the K that `embed`
    kept. An image goes through all of its own, epoch by epoch.

    Args:
        form: of the records.
        records: uint8 [R · views, bytes of a record], the views of each image that the run looks at
            side by side, may be a memory map; None: `embed` has the logits of what is shown.
    """

    def __init__(
        self,
        section: Distill,
        web: WebImages,
        views: Views,
        form: Form,
        records: np.ndarray | None,
    ) -> None:
        self._web, self._views, self._form = web, views, form
        self._count = count = views_of_each(section, web)
        self._drawn = drawn_views(section, web, views) if section.teacher_views > 1 else None
        self._turns = torch.randint(count, (len(web.ids),), generator=draws(section.seed, TURNS))
        device = web.teacher_logits.device
        # on a CPU the system keeps in memory what is read again and again
        where = section.pixels if device.type == "cuda" else "streamed"
        self._stored_at = torch.zeros(len(web.ids), dtype=torch.int64)
        self._stored_at[web.looked_at] = torch.arange(len(web.looked_at))
        self._records: Resident | Streamed | None = None
        if records is not None:
            self._records = open_pixels(records, device, where)

    def __deepcopy__(self, memo: dict) -> "StoredViews":
        return self  # it is read, and large

    def places(self, rows: Tensor, epoch: int) -> Tensor:
        """Places of the pixels of rows in an epoch; both int64 on the CPU."""
        return self._view(rows, epoch) % self._web.crops * len(self._web.ids) + rows

    def records(self, batches: Sequence[Tensor], epoch: int) -> Iterable[Tensor | None]:
        """What `shown` takes for each batch of rows of an epoch: read ahead, on the device."""
        if self._records is None:
            return [None] * len(batches)
        return self._records.batches(
            [self._stored_at[rows] * self._count + self._view(rows, epoch) for rows in batches]
        )

    def shown(
        self, rows: Tensor, pixels: Tensor, records: Tensor | None, epoch: int
    ) -> tuple[Tensor, Tensor]:
        """The images [B, 3, S, S] of a step of an epoch, and the teacher's answers to them.

        Args:
            rows: of the batch, int64 on the CPU.
            pixels: of their `places`, uint8 [B, S0, S0, 3] on the device.
            records: of these rows and this epoch.

        Returns:
            The answers are float32 [B, C] or [B, C, H, W].
        """
        images = self._views.whole(pixels)
        if self._drawn is not None:
            drawn = self._drawn[self._view(rows, epoch), :, rows]
            images = self._views.cut(pixels, drawn.T.long())
        if records is None:
            return images, self._web.answers(self.places(rows, epoch))
        return images, self._form.decoded(records)

    def _view(self, rows: Tensor, epoch: int) -> Tensor:
        return (self._turns[rows] + epoch) % self._count


def views_of_each(section: Distill, web: WebImages) -> int:
    """Views of each image: for `distill.teacher_views` of 1 all that `embed` kept, as they are."""
    return web.crops if section.teacher_views == 1 else section.teacher_views


def drawn_views(section: Distill, web: WebImages, views: Views) -> Tensor:
    """The crops of all images, int16 [views, K, N], as `Views.cut` takes them."""
    stored = web.pixels.side
    every = [
        views.draw(len(web.ids), stored, draws(DRAWN, VIEWS, view)).short()
        for view in range(section.teacher_views)
    ]
    return torch.stack(every)


def form_of(section: Distill, web: WebImages, teacher: Network, views: Views) -> Form:
    """How the teacher's answers are stored: logits as they are, features by `views_bits`.

    The shape of features is seen by asking for one image's.
    """
    if not wants_features(section):
        return Form((web.teacher_logits.shape[1],), 32)
    with torch.inference_mode():
        example = views.whole(next(iter(web.pixels.batches([torch.tensor([0])]))))
        return Form(tuple(teacher.features(example).shape[1:]), section.views_bits)


def has_file(section: Distill) -> bool:
    """Tells whether answers are kept in a file: `embed` has the logits of what it kept already."""
    return section.teacher_views > 1 or (section.teacher_views == 1 and wants_features(section))


def file_of(section: Distill, views: Views, form: Form, folder: Path) -> Path:
    """Where answers are kept, named by all that they depend on but web images and teacher."""
    drawn = f"{section.crop}-{section.crop_scale}-{section.flip}-{views.side}"
    drawn += "" if section.refined else "-untouched"
    shape = "x".join(map(str, form.shape))
    return folder / f"{section.teacher_views}-{drawn}-{shape}.{form.bits}bit"


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
        section: with what its objective fixes.
        teacher: on the device of `web`, in evaluation mode.
        folder: of the same web images, teacher, precision and code only.
        advance: called with the number of answers, those of earlier calls too.

    Raises:
        UserError: an answer is not finite or not within the bits, or another process writes them.
        ExternalError: the disk has no room, or fails.
    """
    if section.teacher_views == 0:
        return None
    if section.mix != "none":
        raise ValueError("the teacher has not seen images that are mixed in training")
    form = form_of(section, web, teacher, views)
    if not has_file(section):
        return StoredViews(section, web, views, form, None)
    path = file_of(section, views, form, folder)
    asking = _Asking(section, web, teacher, views, precision, form, path)
    if world.rank == 0 and not path.exists():
        asking.write(advance)
    else:
        advance(asking.count)
    world.wait()
    records = np.memmap(path, np.uint8, "r", shape=(asking.count, form.size))
    return StoredViews(section, web, views, form, records)


@dataclass(frozen=True)
class _Asking:
    """Asks the teacher for what `path` is to hold."""

    section: Distill
    web: WebImages
    teacher: Network
    views: Views
    precision: torch.dtype
    form: Form
    path: Path

    @property
    def count(self) -> int:
        """Answers in all."""
        return len(self.web.looked_at) * self.each

    @property
    def each(self) -> int:
        """Answers to an image's views."""
        return views_of_each(self.section, self.web)

    def write(self, advance: Advance) -> None:
        """Writes the answers, batch by batch, and gives the file its name at the end."""
        part = self.path.with_suffix(self.path.suffix + ".part")
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            with part.open("ab") as file:
                claim(file)
                self._append(file, advance)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.path)
        except OSError as error:
            raise self._no_room(error.strerror or str(error), self.count) from None

    def _append(self, file: IO[bytes], advance: Advance) -> None:
        """Adds what a file lacks, from its last whole batch on."""
        looked_at = self.web.looked_at
        each, total, size = self.each, len(looked_at), self._at_once()
        done = min(file.tell() // (each * self.form.size), total)
        done -= done % size if done < total else 0
        file.truncate(done * each * self.form.size)
        file.seek(0, os.SEEK_END)
        advance(done * each)
        left = (total - done) * each
        free = shutil.disk_usage(self.path.parent).free
        if free < left * self.form.size:
            raise self._no_room(f"{free / 1e9:.1f} GB are free", left)
        rows = looked_at[done:].split(size) if done < total else ()
        for batch, shown in self._shown(rows):
            answers = [self._answer(images) for images in shown]
            self._check(answers, batch)
            file.write(np.stack([self.form.encoded(one) for one in answers], axis=1).tobytes())
            advance(len(batch) * each)

    def _shown(self, rows: Sequence[Tensor]) -> Iterator[tuple[Tensor, Iterator[Tensor]]]:
        """Each batch of rows with the images [B, 3, S, S] of each of its views, in turn."""
        several = self.section.teacher_views > 1
        drawn = drawn_views(self.section, self.web, self.views) if several else None
        crops, total = min(self.web.crops, self.each), len(self.web.ids)
        read = self.web.pixels.batches(
            batch + crop * total for batch in rows for crop in range(crops)
        )
        for batch in rows:
            pixels = list(islice(read, crops))
            if drawn is None:
                yield batch, map(self.views.whole, pixels)
            else:
                yield batch, self._cut(pixels, drawn[:, :, batch])

    def _cut(self, pixels: Sequence[Tensor], drawn: Tensor) -> Iterator[Tensor]:
        """Each of the views that are drawn for a batch, out of the crops' pixels in turn."""
        for view, one in enumerate(drawn):
            yield self.views.cut(pixels[view % len(pixels)], one.long())

    def _at_once(self) -> int:
        """Images of a batch, so many whatever a step's batch is; on a CPU fewer large ones."""
        if self.web.teacher_logits.device.type != "cpu":
            return ASKED
        return min(ASKED, max(1, AT_ONCE // (self.views.side or self.web.pixels.side) ** 2))

    def _answer(self, images: Tensor) -> Tensor:
        """Features or logits for a view of a batch, float32 [B, …] on the CPU."""
        with torch.inference_mode(), autocast(images.device, self.precision):
            wanted = self.teacher.features if wants_features(self.section) else self.teacher
            return wanted(images).float().cpu()

    def _check(self, answers: Sequence[Tensor], rows: Tensor) -> None:
        """Raises a UserError for the first image with an answer that cannot be stored."""
        finite = [answer.isfinite().flatten(1).all(dim=1) for answer in answers]
        fits = [self.form.holds(answer) for answer in answers]
        for good, what, hint in (
            (finite, "not finite", "raise distill.crop_scale, or set distill.teacher_views to 1"),
            (fits, f"beyond 16 bits ({HALF:,.0f})", "set distill.views_bits to 8"),
        ):
            wrong = (~torch.stack(good)).any(dim=0).nonzero()
            if len(wrong):
                image = self.web.ids[int(rows[wrong[0]])]
                raise UserError(
                    f"the teacher's answer to a view of the image {image} is {what}", hint
                )

    def _no_room(self, why: str, answers: int) -> ExternalError:
        return ExternalError(
            f"{self.path} cannot be written: {why}",
            f"make room for {answers * self.form.size / 1e9:.1f} GB, or lower"
            " distill.teacher_views or distill.views_bits; the same command goes on where it"
            " stopped",
        )
