"""State of a training: what is trained, with what, and how far it has come."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from kd3_pipeline.device import autocast
from kd3_pipeline.distill import checkpoint
from kd3_pipeline.distill.ema import EMA
from kd3_pipeline.distill.objectives.objective import Objective
from kd3_pipeline.distill.optimizer import make_optimizer
from kd3_pipeline.distill.parallel import share_batch_norm, unshare_batch_norm
from kd3_pipeline.distill.progress import Progress
from kd3_pipeline.distill.views import Views, draws
from kd3_pipeline.distill.web import WebImages
from kd3_pipeline.kd3 import disagreement_step, draw_mixture
from kd3_pipeline.params import Distill

CROPS = 2**35  # a counter that no step reaches, for the draws of what is cropped


class State:
    """Modules, optimizer, average and progress of one training; all of them are checkpointed.

    Args:
        objective: its modules are trained in place.
        section: with a number as learning rate.
        precision: of products.
    """

    def __init__(
        self,
        web: WebImages,
        objective: Objective,
        views: Views,
        section: Distill,
        precision: torch.dtype,
    ) -> None:
        self.web = web
        self.objective = objective
        self.views = views
        self.section = section
        self.precision = precision
        self.device = web.teacher_logits.device
        self.optimizer = make_optimizer(objective, section, self.device)
        self.ema = EMA(objective, section.ema) if section.ema else None
        self.progress = Progress(len(web.ids), section.epochs, web.teacher_logits.shape[1])
        self.model: nn.Module = objective

    def restore(self, folder: Path) -> bool:
        """Goes back to the last state saved in `folder`, if there is one.

        Of several processes the first one's folder counts: another machine has none of it, or
        something older.
        """
        state = self.objective.world.of_first(
            lambda: checkpoint.load(folder, self.device), self.device
        )
        if state is None:
            return False
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema:
            self.ema.load(state["ema"])
        self.progress.load(state["progress"])
        return True

    def save(self, folder: Path) -> None:
        """Saves the state as the newest one in `folder`; of several processes, the first does."""
        if self.objective.world.rank > 0:
            return
        state = {
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema and self.ema.tensors,
            "progress": self.progress.state(),
        }
        checkpoint.save(folder, self.progress.total, state)

    def share(self) -> None:
        """From here on all processes train one model together."""
        world = self.objective.world
        share_batch_norm(self.objective, world)
        if world.size > 1:
            self.model = DistributedDataParallel(self.objective)

    def averaged(self) -> AbstractContextManager[None]:
        """The objective holds its averaged weights inside, if there is an average."""
        return self.ema.applied() if self.ema else nullcontext()

    @property
    def rate(self) -> float:
        """Learning rate of the last step."""
        return self.optimizer.param_groups[0]["lr"]

    def batches(
        self, waiting: Sequence[Tensor], epoch: int
    ) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """What `step` takes of each batch of rows that is left in an epoch: the rows, their pixels
        and the stored answers.

        Of images with several crops each step shows one, drawn for it or as views are stored.
        """
        first, stored = self.progress.step, self.objective.stored
        places = (
            stored.places(rows, epoch)
            if stored
            else self.web.drawn(rows, draws(self.section.seed, epoch, CROPS + first + number))
            for number, rows in enumerate(waiting)
        )
        records = stored.records(waiting, epoch) if stored else [None] * len(waiting)
        yield from zip(waiting, self.web.pixels.batches(places), records, strict=True)

    def step(
        self,
        rows: Tensor,
        pixels: Tensor,
        epoch: int,
        rate: float,
        records: Tensor | None = None,
        *,
        late: bool = False,
    ) -> dict[str, Tensor]:
        """One step of the optimizer on a batch.

        Args:
            rows: of the batch, int64 on the CPU.
            pixels: of these rows or of a crop of each, uint8 [B, S, S, 3] on the device.
            rate: learning rate.
            records: the teacher's stored answers to these rows, on the device.
            late: it is among the last ones, in which `distill.disagreement` counts.

        Returns:
            The loss and its terms, on the device: reading one here would stall it at every step.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        world, place = self.objective.world, (self.section.seed, epoch, self.progress.step)
        torch.manual_seed(draws(*place, world.rank).initial_seed())  # for dropout
        generator = draws(*place)
        if self.objective.stored:
            images, answers = self.objective.stored.shown(rows, pixels, records, epoch)
        else:
            images, answers = self.views.cropped(pixels, generator), None
        weights = self.web.weights(rows)
        if self.section.mix != "none":
            mixture = draw_mixture(self.section.mix, len(images), images.shape[-1], generator)
            images = mixture.of(images)
            weights = None if weights is None else mixture.of_weights(weights)
        known = {"weights": weights, "answers": answers}
        shown = self.objective.views(images, generator)
        self.optimizer.zero_grad()
        terms: dict[str, Tensor] = {}
        parts = self._parts(len(rows))
        for part in parts:
            found = self._part_terms(
                [world.share(view[part]) for view in shown],
                {k: world.share(one[part]) for k, one in known.items() if one is not None},
                last=part is parts[-1],
                share=(part.stop - part.start) / len(rows),
                moved=late and self.section.disagreement > 0,
            )
            terms = {name: terms[name] + term if terms else term for name, term in found.items()}
        if self.section.clip:
            nn.utils.clip_grad_norm_(self.objective.parameters(), self.section.clip)
        self.optimizer.step()
        if self.ema:
            self.ema.update(self.progress.total)
        return terms

    def _parts(self, count: int) -> list[slice]:
        """The rows of each pass through the networks, of a batch of `count`.

        Every process has equally many of them, and a batch norm has two or more.
        """
        size = self.objective.world.size
        number = max(1, min(self.section.accumulate, count // max(2, size)))
        ends = [size * (count // size * at // number) for at in range(1, number)]
        return [slice(*ends) for ends in pairwise([0, *ends, count])]

    def _part_terms(
        self,
        views: Sequence[Tensor],
        known: dict[str, Tensor],
        *,
        last: bool,
        share: float,
        moved: bool,
    ) -> dict[str, Tensor]:
        """The loss and its terms of a part of a batch; its gradient is added to that of the others.

        Args:
            views: this process's share of the part.
            known: what else the objective takes, by its name, for the same images.
            last: the gradients of all processes come together.
            share: of the part in the batch, by which everything is multiplied.
            moved: the images go where student and teacher disagree more, and the teacher is asked
                what it says of them there.
        """
        if moved:
            views = [self._moved(views[0]), *views[1:]]
            known = {name: one for name, one in known.items() if name != "answers"}
        waits = isinstance(self.model, DistributedDataParallel) and not last
        with self.model.no_sync() if waits else nullcontext():  # type: ignore[operator]
            with autocast(self.device, self.precision):
                terms = self.model(*views, **known)
            if share < 1:
                terms = {name: share * term for name, term in terms.items()}
            loss = sum(terms.values(), torch.zeros((), device=self.device))
            loss.backward()
        return {name: term.detach() for name, term in {"loss": loss, **terms}.items()}

    def _moved(self, images: Tensor) -> Tensor:
        """The images after their disagreement step; networks are asked as in evaluation.

        So an image moves by itself alone, and no running statistic sees it twice.
        """
        self.objective.eval()
        with autocast(self.device, self.precision):
            moved = disagreement_step(
                images,
                self.objective.predict,
                self.objective.teacher,
                *self.views.levels(self.section.disagreement, self.device),
            )
        self.objective.train()
        return moved

    def deploy(self) -> None:
        """The objective holds the weights to deploy: the best epoch's, or the last average."""
        unshare_batch_norm(self.objective)
        if self.progress.best is not None:
            self.objective.load_state_dict(self.progress.best)
        elif self.ema:
            self.ema.swap()
