"""Progress of a distillation: all that a checkpoint holds beside the modules."""

from typing import Any

import torch
from torch import Tensor

from kd3_pipeline.distill import checkpoint


class Progress:
    """Work done before the current step.

    Attributes:
        curves: figures of every finished epoch.
        kept: bool [epochs, N], which image was trained on in which epoch.
        digests: of the rows of `kept`, of the epochs that were begun.
        thresholds: float32 [epochs, C], what confidence in a class had to exceed in which epoch;
            NaN where there was none.
        rows: the images of the current epoch; None before they are selected.
        step: steps done in the current epoch.
        total: steps done in all epochs.
        terms: names of the loss terms.
        losses: float32 [steps of the epoch, terms], on the device.
        best: the weights with the best agreement, and `best_epoch` when they were there.
    """

    def __init__(self, images: int, epochs: int, classes: int) -> None:
        self.curves: list[dict[str, Any]] = []
        self.kept = torch.zeros(epochs, images, dtype=torch.bool)
        self.digests: list[int] = []
        self.thresholds = torch.full((epochs, classes), torch.nan)
        self.rows: Tensor | None = None
        self.step = 0
        self.total = 0
        self.terms: list[str] = []
        self.losses = torch.zeros(0)
        self.best: dict[str, Tensor] | None = None
        self.best_epoch: int | None = None

    @property
    def selected(self) -> Tensor:
        """`rows`, when they are selected."""
        assert self.rows is not None
        return self.rows

    def begin(self, epoch: int, rows: Tensor, thresholds: Tensor | None) -> None:
        """Begins an epoch (from 1) with the images selected for it, and by which thresholds."""
        self.rows = rows
        self.kept[epoch - 1, rows] = True
        self.digests.append(checkpoint.digest(self.kept[epoch - 1]))
        if thresholds is not None:
            self.thresholds[epoch - 1] = thresholds

    def record(self, terms: dict[str, Tensor], steps: int) -> None:
        """Counts a step and notes its losses, without waiting for the device."""
        values = torch.stack([term.detach().float() for term in terms.values()])
        if self.step == 0:
            self.terms = list(terms)
            self.losses = values.new_zeros(steps, len(terms))
        self.losses[self.step] = values
        self.step += 1
        self.total += 1

    def finish(self, row: dict[str, Any], keep_best: dict[str, Tensor] | None) -> None:
        """Ends an epoch with its figures; `keep_best` are its weights if the best are wanted."""
        before = [past["agreement"] for past in self.curves]
        if keep_best is not None and all(row["agreement"] > past for past in before):
            self.best = {name: tensor.clone() for name, tensor in keep_best.items()}
            self.best_epoch = row["epoch"]
        self.curves.append(row)
        self.rows = None
        self.step = 0

    def state(self) -> dict[str, Any]:
        """Tensors and plain values, for `load`."""
        done = len(self.curves) + (self.rows is not None)
        return vars(self) | {"kept": self.kept[:done]}

    def load(self, state: dict[str, Any]) -> None:
        """Goes back to where `state` was taken."""
        kept = state["kept"]
        self.kept[: len(kept)] = kept.cpu()
        vars(self).update({name: value for name, value in state.items() if name != "kept"})
        self.thresholds = self.thresholds.cpu()
        if self.rows is not None:
            self.rows = self.rows.cpu()
