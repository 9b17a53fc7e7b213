"""Selection of the images that an epoch trains on."""

from collections.abc import Callable

import torch
from torch import Tensor

from kd3_pipeline.device import autocast
from kd3_pipeline.distill.loader import Resident, Streamed
from kd3_pipeline.distill.objectives.objective import Objective
from kd3_pipeline.distill.views import Views, draws
from kd3_pipeline.distill.web import WebImages
from kd3_pipeline.errors import TrainingError
from kd3_pipeline.kd3 import Selection, select, teacher_weight
from kd3_pipeline.params import Distill

PUBLISHED_EPOCHS = 240
JUDGED = 2**32  # a counter that no step reaches, for the draws of what is judged


class Selector:
    """Judges the web images at the start of an epoch.

    Args:
        section: the rule; the schedule of the teacher's weight is stretched to its epochs.
        precision: of products.
        told: called with how many images have been looked at, of how many: that takes minutes for
            many images.
    """

    def __init__(
        self,
        web: WebImages,
        objective: Objective,
        views: Views,
        section: Distill,
        precision: torch.dtype,
        told: Callable[[str], object] = lambda text: None,
    ) -> None:
        self.told = told
        self.web = web
        self.objective = objective
        self.views = views
        self.section = section
        self.precision = precision
        # so that judging takes no more memory than training
        self.batch_size = max(1, section.batch_size // section.accumulate)
        self._everything = torch.arange(len(web.ids))
        self._judged_rows = web.looked_at

    def alpha(self, epoch: int) -> float:
        """α of the published schedule, stretched to this run's length from its first epoch on.

        So however short a run is, an untrained student never selects alone.
        """
        published = teacher_weight(1 + (epoch - 1) * PUBLISHED_EPOCHS / self.section.epochs)
        return max(published, self.section.teacher_floor)

    def judge(self, epoch: int) -> Selection:
        """Selection among all images that the run looks at, held out or not; one of each."""
        self.objective.eval()
        logits = self._judged(epoch, self._judged_rows)
        return select(*logits, self.alpha(epoch), self.section.cutoff)

    def seen(self, epoch: int) -> tuple[Tensor, Tensor]:
        """The student's own class (int64 [N]) and confidence (float32 [N]) of every image."""
        self.objective.eval()
        _, student_logits = self._judged(epoch, self._everything)
        confidence, labels = student_logits.softmax(dim=1).max(dim=1)
        return labels, confidence

    def select(self, epoch: int) -> tuple[Tensor, Tensor | None]:
        """The rows to train on in this epoch, int64, and the classes' thresholds, float32 [C].

        Both are on the CPU. Only dynamic selection has thresholds.

        Raises:
            TrainingError: too few for a batch norm, which needs two.
        """
        rows, thresholds = self.web.train, None
        if self.section.selection == "dynamic":
            judged = self.judge(epoch)
            kept = torch.zeros(len(self._everything), dtype=torch.bool)
            kept[self._judged_rows] = judged.mask.cpu()
            rows = rows[kept[rows]]
            thresholds = judged.thresholds.float().cpu()
        elif self.section.selection == "confident":
            confidence = self.web.teacher_logits.softmax(dim=1).amax(dim=1).cpu()[rows]
            count = max(2, round(self.section.confident_share * len(rows)))
            rows = rows[confidence.topk(min(count, len(rows))).indices.sort().values]
        if len(rows) < 2:
            raise TrainingError(
                f"distill: {len(rows) or 'no'} image{'' if len(rows) == 1 else 's'}"
                f" selected in epoch {epoch}",
                "raise distill.teacher_floor, so that the teacher has a say to the end, or lower"
                " distill.cutoff",
            )
        return rows, thresholds

    def agreement(self) -> float | None:
        """Share of held-out images for which student and teacher say the same; None without any."""
        rows = self.web.held_out
        if len(rows) == 0:
            return None
        self.objective.eval()
        measure = self.web.yardstick
        predict = self.objective.predict
        student = self._predict(predict, rows, self._whole, measure.pixels).argmax(dim=1)
        rows = rows.to(student.device)
        return measure.share(rows, student == measure.logits[rows].argmax(dim=1))

    def _judged(self, epoch: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [len(rows), C] of teacher and student for the view of rows that is judged."""
        student = self.objective.predict
        if self.section.judge == "random":
            teacher = self._predict(self.objective.teacher, rows, self._crops(epoch))
            return teacher, self._predict(student, rows, self._crops(epoch))
        # whole images: the teacher's logits were stored when they were embedded
        known = self.web.teacher_logits
        known = known if len(rows) == len(known) else known[rows.to(known.device)]
        return known, self._predict(student, rows, self._whole)

    def _whole(self, pixels: Tensor, batch: int) -> Tensor:
        return self.views.whole(pixels)

    def _crops(self, epoch: int) -> Callable[[Tensor, int], Tensor]:
        return lambda pixels, batch: self.views.cropped(
            pixels, draws(self.section.seed, epoch, JUDGED + batch)
        )

    @torch.no_grad()
    def _predict(
        self,
        network: Callable[[Tensor], Tensor],
        rows: Tensor,
        view: Callable[[Tensor, int], Tensor],
        pixels: Resident | Streamed | None = None,
    ) -> Tensor:
        """Logits [len(rows), C] in evaluation mode; processes take turns with the batches.

        Args:
            pixels: of all images; None: those that are trained on.
        """
        batches = rows.split(self.batch_size)
        world = self.objective.world
        mine = range(world.rank, len(batches), world.size)
        known = self.web.teacher_logits
        logits = known.new_zeros(len(rows), known.shape[1])
        read = (pixels or self.web.pixels).batches(batches[number] for number in mine)
        with autocast(logits.device, self.precision):
            for number, batch in zip(mine, read, strict=True):
                start = number * self.batch_size
                logits[start : start + len(batch)] = network(view(batch, number)).float()
                self.told(f"looked at {start + len(batch):,} of {len(rows):,} images")
        return world.sum(logits)
