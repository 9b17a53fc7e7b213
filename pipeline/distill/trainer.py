"""Training loop: restore; for each epoch select, step, log and save; at the end deploy."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kd3_pipeline.console import Advance
from kd3_pipeline.distill import checkpoint
from kd3_pipeline.distill.batches import shuffled_batches
from kd3_pipeline.distill.budget import Length, length_of
from kd3_pipeline.distill.compiling import compiled
from kd3_pipeline.distill.cost import Meter, significant
from kd3_pipeline.distill.interruption import interruption
from kd3_pipeline.distill.learning_rate import LATE, learning_rate
from kd3_pipeline.distill.objectives.objective import Objective
from kd3_pipeline.distill.progress import Progress
from kd3_pipeline.distill.selection import Selector
from kd3_pipeline.distill.state import State
from kd3_pipeline.distill.views import Views
from kd3_pipeline.distill.web import WebImages
from kd3_pipeline.errors import TrainingError, UserError
from kd3_pipeline.params import Distill

Row = dict[str, Any]  # figures of an epoch
Report = Callable[[list[Row]], None]


@dataclass(frozen=True)
class Trained:
    """Result of a training beside the modules: figures by epoch, and which image was kept when."""

    curves: list[Row]
    kept: Tensor  # bool [epochs, N]
    thresholds: Tensor  # float32 [epochs, C], NaN where nothing was compared with one
    labels: Tensor  # int64 [N], class that the deployed student sees
    confidence: Tensor  # float32 [N]
    epoch: int  # whose weights the objective holds
    steps: int = 0  # in all epochs


def train(
    web: WebImages,
    objective: Objective,
    views: Views,
    section: Distill,
    precision: torch.dtype,
    folder: Path,
    advance: Advance,
    report: Report = lambda curves: None,
) -> Trained:
    """Trains the objective's modules in place, from where the checkpoint in `folder` left off.

    Args:
        section: with a number as learning rate, and no time as budget.
        report: called with the curves after every epoch, when it is saved.

    Raises:
        UserError: fewer images than a batch.
        TrainingError: too few images selected, or a loss that is not finite.
        KeyboardInterrupt: interrupted; the step that was running is finished and saved.
    """
    world, length = objective.world, _length(web, section)
    section = section.model_copy(update={"epochs": length.epochs})
    meter = _meter(web, objective, views, precision)
    said = ""  # of the last epoch
    selector = Selector(web, objective, views, section, precision, lambda t: advance(0, said + t))
    state = State(web, objective, views, section, precision)
    progress = state.progress

    # restore: an interrupted run goes on with the step after its last state
    if state.restore(folder):
        advance(length.behind(len(progress.curves), progress.step))
    state.share()

    with compiled(objective, state.device), interruption(world) as interrupted:
        for epoch in range(len(progress.curves) + 1, section.epochs + 1):
            # select: the images of this epoch, unless an interruption came after they were
            started, epoch_steps = time.monotonic(), length.of(epoch)
            if progress.rows is None:
                with state.averaged():
                    progress.begin(epoch, *selector.select(epoch))
            advance(0, f"{said}epoch {epoch} is under way")
            batches = shuffled_batches(web, progress.selected, epoch_steps, section, epoch, world)
            waiting = batches[progress.step :]
            meter.start()

            # train: one step for each batch that is left
            objective.train()
            for rows, pixels, records in state.batches(waiting, epoch):
                done = (epoch - 1 + progress.step / len(batches)) / section.epochs
                rate, late = learning_rate(done, section), done >= LATE
                losses = state.step(rows, pixels, epoch, rate, records, late=late)
                progress.record(losses, len(batches))
                advance(1 if progress.step <= epoch_steps else 0)
                if interrupted() and progress.step < len(batches):
                    state.save(folder)
                    raise KeyboardInterrupt

            # log: mean losses, speed, and agreement on the held-out images
            step_losses = world.mean(progress.losses).cpu()
            speed = meter.stop(sum(map(len, waiting)), world.size)
            _check_finite(step_losses, progress.terms, epoch, folder)
            with state.averaged():
                row = _row(selector, state, step_losses) | speed
                row["seconds"] = round(time.monotonic() - started, 2)
                best = objective.state_dict() if section.keep == "agreement" else None
                progress.finish(row, best)
            said = f"{_told(row)}; "
            advance(max(0, epoch_steps - len(batches)), _told(row))

            # save: the next start goes on after this epoch
            state.save(folder)
            if world.rank == 0:
                report(progress.curves)
            if interrupted() and epoch < section.epochs:
                raise KeyboardInterrupt

    # deploy: the weights of the best epoch, or the last ones, averaged if there is an average
    state.deploy()
    return _trained(selector, progress)


def _meter(web: WebImages, objective: Objective, views: Views, precision: torch.dtype) -> Meter:
    """The meter of a training on these images."""
    few = next(iter(web.pixels.batches([web.train[:2]])))
    return Meter(objective, views.whole(few), precision)


def _length(web: WebImages, section: Distill) -> Length:
    """The length of a training on these images; a UserError where they cannot be trained on so."""
    if len(web.train) < section.batch_size:
        raise UserError(
            f"distill: {len(web.train)} images to train on are fewer than a batch of"
            f" {section.batch_size}",
            "crawl more, or lower distill.batch_size",
        )
    if section.batch_size < 2 * section.accumulate:
        raise UserError(
            f"distill.accumulate {section.accumulate} leaves less than two images of a batch of"
            f" {section.batch_size} in a part, and a batch norm needs two",
            f"set it to {section.batch_size // 2} or less",
        )
    if section.keep == "agreement" and len(web.held_out) == 0:
        raise UserError(
            "distill.keep 'agreement' needs held-out images and there are none",
            "raise distill.held_out, or keep 'last'",
        )
    return length_of(section, len(web.train))


def _check_finite(losses: Tensor, terms: list[str], epoch: int, folder: Path) -> None:
    """Raises a TrainingError for the first step [terms] of `losses` that is not finite."""
    bad = (~losses.isfinite()).any(dim=1).nonzero()
    if len(bad):
        step = int(bad[0])
        values = ", ".join(
            f"{name} {value:.4g}" for name, value in zip(terms, losses[step].tolist(), strict=True)
        )
        good = checkpoint.saved(folder)
        raise TrainingError(
            f"distill: the loss is not finite in epoch {epoch}, step {step + 1}: {values};"
            f" the last good state is {good[-1] if good else 'the start'}",
            "lower distill.lr, or set distill.clip, as 1",
        )


def _row(selector: Selector, state: State, losses: Tensor) -> Row:
    """Figures of the epoch that ends, but for its speed; `losses` are [steps, terms]."""
    progress = state.progress
    epoch = len(progress.curves) + 1
    thresholds = progress.thresholds[epoch - 1]
    means = losses.double().mean(dim=0).tolist()
    return {
        "epoch": epoch,
        "lr": round(state.rate, 6),
        "alpha": round(selector.alpha(epoch), 4),
        "kept": round(len(progress.selected) / len(selector.web.train), 4),
        "threshold_low": _known(thresholds.min()),
        "threshold_mean": _known(thresholds.mean()),
        **dict(zip(progress.terms, map(significant, means), strict=True)),
        "agreement": selector.agreement(),
    }


def _told(row: Row) -> str:
    """The figures of an epoch that are shown while the next one is trained."""
    return (
        f"epoch {row['epoch']}, loss {row['loss']:.4f}, kept {row['kept']:.0%},"
        f" {row['images_per_s']:,} images/s"
    )


def _trained(selector: Selector, progress: Progress) -> Trained:
    """Result of a finished training, with what the deployed student sees."""
    epochs = selector.section.epochs
    labels, confidence = selector.seen(epochs)
    return Trained(
        progress.curves,
        progress.kept,
        progress.thresholds,
        labels.cpu(),
        confidence.float().cpu(),
        progress.best_epoch or epochs,
        progress.total,
    )


def _known(value: Tensor) -> float | None:
    return None if value.isnan() else round(float(value), 4)
