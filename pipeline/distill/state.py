"""State of a training: what is trained, with what, and how far it has come."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.device import autocast
from pipeline.distill import checkpoint
from pipeline.distill.ema import EMA
from pipeline.distill.learning_rate import peak
from pipeline.distill.objectives.objective import Objective
from pipeline.distill.parallel import share_batch_norm, unshare_batch_norm
from pipeline.distill.progress import Progress
from pipeline.distill.views import Views, draws
from pipeline.distill.web import WebImages
from pipeline.params import Distill


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
        self.optimizer = torch.optim.SGD(
            objective.parameters(),
            peak(section),
            momentum=section.momentum,
            weight_decay=section.weight_decay,
            fused=self.device.type != "mps",
        )
        self.ema = EMA(objective, section.ema) if section.ema else None
        self.progress = Progress(len(web.ids), section.epochs, web.teacher_logits.shape[1])
        self.model: nn.Module = objective

    def restore(self, folder: Path) -> bool:
        """Goes back to the last state saved in `folder`, if there is one."""
        state = checkpoint.load(folder, self.device)
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

    def step(self, rows: Tensor, pixels: Tensor, epoch: int, rate: float) -> dict[str, Tensor]:
        """One step of the optimizer on a batch.

        Args:
            rows: of the batch, int64 on the CPU.
            pixels: of these rows, uint8 [B, S, S, 3] on the device.
            rate: learning rate.

        Returns:
            The loss and its terms, on the device: reading one here would stall it at every step.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        world, place = self.objective.world, (self.section.seed, epoch, self.progress.step)
        torch.manual_seed(draws(*place, world.rank).initial_seed())  # for dropout
        generator = draws(*place)
        shown = self.objective.views(self.views.cropped(pixels, generator), generator)
        weights = self.web.weights(rows)
        if weights is not None:
            weights = world.share(weights)
        with autocast(self.device, self.precision):
            terms = self.model(*map(world.share, shown), weights=weights)
        loss = sum(terms.values(), torch.zeros((), device=self.device))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.ema:
            self.ema.update(self.progress.total)
        return {"loss": loss, **terms}

    def deploy(self) -> None:
        """The objective holds the weights to deploy: the best epoch's, or the last average."""
        unshare_batch_norm(self.objective)
        if self.progress.best is not None:
            self.objective.load_state_dict(self.progress.best)
        elif self.ema:
            self.ema.swap()
