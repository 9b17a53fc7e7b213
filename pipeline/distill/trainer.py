"""The training loop: select, step, measure, save; once an epoch."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.console import Advance
from pipeline.device import autocast
from pipeline.distill import checkpoint
from pipeline.distill.objectives import KD, KD3
from pipeline.distill.web import WebImages
from pipeline.errors import UserError
from pipeline.kd3 import Selection, select, teacher_weight
from pipeline.pixels import normalise, pad_crop, resized_crop

PUBLISHED_EPOCHS = 240
MILESTONES = (150 / 240, 180 / 240, 210 / 240)
WARM_UP = 0.2  # share of the steps in which a one-cycle learning rate rises
EVALUATION_BATCH = 512


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train; see `distill` in params.yaml."""

    epochs: int
    batch_size: int
    lr: float
    schedule: str
    momentum: float
    weight_decay: float
    selection: bool
    cutoff: float
    refill: bool
    crop: str
    flip: bool
    seed: int


@dataclass(frozen=True)
class Trained:
    """What training leaves: a row of figures an epoch, and which image was kept when."""

    curves: list[dict[str, Any]]
    kept: Tensor  # bool [epochs, N]
    labels: Tensor  # int64 [N], class at the last selection
    confidence: Tensor  # float32 [N]


def distill(
    web: WebImages,
    objective: KD3 | KD,
    mean: list[float],
    std: list[float],
    schedule: Schedule,
    precision: torch.dtype,
    folder: Path,
    advance: Advance,
    report: Callable[[list[dict[str, Any]]], None],
) -> Trained:
    """Trains the objective's modules in place, from where the checkpoint in `folder` left off.

    Args:
        report: called with the curves after every epoch, when it is saved.

    Raises:
        UserError: fewer images than a batch, no image selected, or a loss that is not finite.
    """
    device = web.pixels.device
    if len(web.train) < schedule.batch_size:
        raise UserError(
            f"distill: {len(web.train)} images to train on are fewer than a batch of"
            f" {schedule.batch_size}",
            "crawl more, or lower distill.batch_size",
        )
    optimizer = torch.optim.SGD(
        objective.parameters(),
        schedule.lr,
        momentum=schedule.momentum,
        weight_decay=schedule.weight_decay,
    )
    curves: list[dict[str, Any]] = []
    kept = torch.zeros(schedule.epochs, len(web.ids), dtype=torch.bool)
    epoch_steps = len(web.train) // schedule.batch_size

    state = checkpoint.load(folder, device)
    if state is not None:
        objective.load_state_dict(state["objective"])
        optimizer.load_state_dict(state["optimizer"])
        curves, kept = state["curves"], state["kept"].cpu()
        advance(len(curves) * epoch_steps)

    for epoch in range(len(curves) + 1, schedule.epochs + 1):
        started = time.monotonic()
        # every epoch draws from its own generator, so a resumed run draws what it would have
        generator = torch.Generator().manual_seed(schedule.seed * 1_000_003 + epoch)

        rows = web.train
        if schedule.selection:
            chosen = _judge(web, objective, mean, std, schedule, precision, epoch)
            rows = rows[chosen.mask[rows]]
            if len(rows) == 0:
                raise UserError(
                    f"distill: no image was selected in epoch {epoch}", "lower distill.cutoff"
                )
        kept[epoch - 1, rows.cpu()] = True
        batches = _batches(rows, epoch_steps, schedule, generator)

        objective.train()
        totals: dict[str, Tensor] = {}
        for step, batch in enumerate(batches):
            done = (epoch - 1 + step / len(batches)) / schedule.epochs
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(done, schedule)
            images = normalise(_crop(web.pixels[batch], generator, schedule), mean, std)
            with autocast(device, precision):
                terms = objective.losses(images, generator)
            loss = sum(terms.values(), torch.zeros((), device=device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            # sums stay on the device: reading a loss here would stall it at every step
            for name, term in ({"loss": loss} | terms).items():
                totals[name] = totals.get(name, 0) + term.detach()
            advance(1 if step < epoch_steps else 0)

        losses = {name: float(total) / len(batches) for name, total in totals.items()}
        if not all(math.isfinite(value) for value in losses.values()):
            raise UserError(
                f"distill: the loss is not finite in epoch {epoch}: {losses}",
                "lower distill.lr",
            )
        seconds = time.monotonic() - started
        curves.append(
            {
                "epoch": epoch,
                "lr": round(optimizer.param_groups[0]["lr"], 6),
                "alpha": round(_alpha(epoch, schedule), 4),
                "kept": round(len(rows) / len(web.train), 4),
                **{name: float(f"{value:.6g}") for name, value in losses.items()},
                "agreement": _agreement(web, objective, mean, std, precision),
                "images_per_s": round(sum(map(len, batches)) / seconds),
                "seconds": round(seconds, 2),
            }
        )
        note = f"epoch {epoch}, loss {losses['loss']:.4f}, kept {curves[-1]['kept']:.0%}"
        skipped = max(0, epoch_steps - len(batches))
        advance(skipped, f"{note}, {curves[-1]['images_per_s']:,} images/s")
        checkpoint.save(
            folder,
            {
                "objective": objective.state_dict(),
                "optimizer": optimizer.state_dict(),
                "curves": curves,
                "kept": kept,
            },
        )
        report(curves)
    last = _judge(web, objective, mean, std, schedule, precision, schedule.epochs)
    return Trained(curves, kept, last.labels.cpu(), last.confidence.float().cpu())


def learning_rate(done: float, schedule: Schedule) -> float:
    """The rate when a share `done` (0 to 1) of the training is behind."""
    if schedule.schedule == "step":
        return schedule.lr * 0.1 ** sum(done >= milestone for milestone in MILESTONES)
    if done < WARM_UP:
        return schedule.lr * (0.04 + 0.96 * done / WARM_UP)
    return schedule.lr * (1 - done) / (1 - WARM_UP)


@torch.no_grad()
def predict(
    web: WebImages,
    rows: Tensor,
    objective: KD3 | KD,
    mean: list[float],
    std: list[float],
    precision: torch.dtype,
) -> Tensor:
    """The student's logits [len(rows), C] for whole images, in evaluation mode."""
    objective.eval()
    parts = []
    with autocast(web.pixels.device, precision):
        for batch in rows.split(EVALUATION_BATCH):
            parts.append(objective.predict(normalise(web.pixels[batch], mean, std)).float())
    return torch.cat(parts)


def _alpha(epoch: int, schedule: Schedule) -> float:
    """α of the published schedule, stretched to this run's length from its first epoch on.

    So however short a run is, an untrained student never selects alone.
    """
    return teacher_weight(1 + (epoch - 1) * PUBLISHED_EPOCHS / schedule.epochs)


def _judge(
    web: WebImages,
    objective: KD3 | KD,
    mean: list[float],
    std: list[float],
    schedule: Schedule,
    precision: torch.dtype,
    epoch: int,
) -> Selection:
    """Selection among all images; judged whole, so the teacher's stored logits serve."""
    everything = torch.arange(len(web.ids), device=web.pixels.device)
    student_logits = predict(web, everything, objective, mean, std, precision)
    return select(web.teacher_logits, student_logits, _alpha(epoch, schedule), schedule.cutoff)


def _batches(
    rows: Tensor, epoch_steps: int, schedule: Schedule, generator: torch.Generator
) -> list[Tensor]:
    """Shuffled batches of `rows`; refilled, they are as many as if all images were kept."""

    def shuffled() -> Tensor:
        return rows[torch.randperm(len(rows), generator=generator).to(rows.device)]

    if not schedule.refill:
        return list(shuffled().split(schedule.batch_size))
    needed = epoch_steps * schedule.batch_size
    order = torch.cat([shuffled() for _ in range(math.ceil(needed / len(rows)))])[:needed]
    return list(order.split(schedule.batch_size))


def _crop(pixels: Tensor, generator: torch.Generator, schedule: Schedule) -> Tensor:
    if schedule.crop == "resized":
        return resized_crop(pixels, generator, schedule.flip)
    pad = pixels.shape[1] // 8 if schedule.crop == "pad" else 0
    return pad_crop(pixels, generator, pad, schedule.flip)


def _agreement(
    web: WebImages, objective: KD3 | KD, mean: list[float], std: list[float], precision: torch.dtype
) -> float | None:
    """Share of the held-out images for which both say the same class; None without such images."""
    if len(web.held_out) == 0:
        return None
    student = predict(web, web.held_out, objective, mean, std, precision).argmax(dim=1)
    teacher = web.teacher_logits[web.held_out].argmax(dim=1)
    return round(float((student == teacher).float().mean()), 4)
