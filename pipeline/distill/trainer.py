"""The training loop: choose, step, measure, save."""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.console import Advance
from pipeline.device import autocast
from pipeline.distill import checkpoint
from pipeline.distill.cost import flops_per_image, peak_flops
from pipeline.distill.ema import Average
from pipeline.distill.objectives import Objective
from pipeline.distill.parallel import World, share_batch_norm, unshare_batch_norm
from pipeline.distill.progress import Progress
from pipeline.distill.selection import Chooser
from pipeline.distill.views import Views, draws
from pipeline.distill.web import WebImages
from pipeline.errors import TrainingError, UserError

MILESTONES = (150 / 240, 180 / 240, 210 / 240)
WARM_UP = 0.2  # share of the steps in which a one-cycle learning rate rises


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train; see `distill` in params.yaml."""

    epochs: int
    batch_size: int
    lr: float
    schedule: Literal["onecycle", "step"]
    momentum: float
    weight_decay: float
    ema: float
    keep: Literal["last", "agreement"]
    refill: bool
    seed: int


@dataclass(frozen=True)
class Trained:
    """What training leaves beside the modules: figures by epoch, and which image was kept when."""

    curves: list[dict[str, Any]]
    kept: Tensor  # bool [epochs, N]
    thresholds: Tensor  # float32 [epochs, C], NaN where nothing was compared with one
    labels: Tensor  # int64 [N], class that the deployed student sees
    confidence: Tensor  # float32 [N]
    epoch: int  # whose weights the objective holds


def distill(
    web: WebImages,
    objective: Objective,
    views: Views,
    chooser: Chooser,
    schedule: Schedule,
    precision: torch.dtype,
    folder: Path,
    advance: Advance,
    report: Callable[[list[dict[str, Any]]], None],
    compiled: bool = False,
) -> Trained:
    """Trains the objective's modules in place, from where the checkpoint in `folder` left off.

    Args:
        report: called with the curves after every epoch, when it is saved.
        compiled: runs the networks through torch.compile.

    Raises:
        UserError: fewer images than a batch.
        TrainingError: too few images selected, or a loss that is not finite.
        KeyboardInterrupt: interrupted; the step that was running is finished and saved.
    """
    device, world = web.teacher_logits.device, objective.world
    epoch_steps = len(web.train) // schedule.batch_size
    if epoch_steps == 0:
        raise UserError(
            f"distill: {len(web.train)} images to train on are fewer than a batch of"
            f" {schedule.batch_size}",
            "crawl more, or lower distill.batch_size",
        )
    if schedule.keep == "agreement" and len(web.held_out) == 0:
        raise UserError(
            "distill.keep 'agreement' needs held-out images and there are none",
            "raise distill.held_out, or keep 'last'",
        )
    few = views.whole(next(iter(web.pixels.batches([web.train[:2]]))))
    flops, peak = flops_per_image(objective, few), peak_flops(device, precision)
    optimizer = torch.optim.SGD(
        objective.parameters(),
        schedule.lr,
        momentum=schedule.momentum,
        weight_decay=schedule.weight_decay,
        fused=device.type != "mps",
    )
    average = Average(objective, schedule.ema) if schedule.ema else None
    averaged = average.applied if average else nullcontext
    progress = Progress(len(web.ids), schedule.epochs, web.teacher_logits.shape[1])
    state = checkpoint.load(folder, device)
    if state is not None:
        objective.load_state_dict(state["objective"])
        optimizer.load_state_dict(state["optimizer"])
        if average:
            average.load(state["average"])
        progress.load(state["progress"])
        advance(len(progress.curves) * epoch_steps + min(progress.step, epoch_steps))

    def save() -> None:
        if world.rank == 0:
            state = {
                "objective": objective.state_dict(),
                "optimizer": optimizer.state_dict(),
                "average": average and average.tensors,
                "progress": progress.state(),
            }
            checkpoint.save(folder, progress.total, state)

    share_batch_norm(objective, world)
    model = objective if world.size == 1 else DistributedDataParallel(objective)
    with _compiled(objective, compiled), _interruption(world) as interrupted:
        for epoch in range(len(progress.curves) + 1, schedule.epochs + 1):
            started = time.monotonic()
            if progress.rows is None:
                with averaged():
                    progress.rows, thresholds = chooser.choose(epoch)
                progress.kept[epoch - 1, progress.rows] = True
                if thresholds is not None:
                    progress.thresholds[epoch - 1] = thresholds
            batches = _batches(progress.rows, epoch_steps, schedule, epoch, world)
            chosen = time.monotonic()

            objective.train()
            waiting = batches[progress.step :]
            for rows, pixels in zip(waiting, web.pixels.batches(waiting), strict=True):
                done = (epoch - 1 + progress.step / len(batches)) / schedule.epochs
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(done, schedule)
                place = (schedule.seed, epoch, progress.step)
                torch.manual_seed(draws(*place, world.rank).initial_seed())  # for dropout
                generator = draws(*place)
                shown = objective.views(views.cropped(pixels, generator), generator)
                weights = web.weights(rows)
                if weights is not None:
                    weights = world.share(weights)
                with autocast(device, precision):
                    terms = model(*map(world.share, shown), weights=weights)
                loss = sum(terms.values(), torch.zeros((), device=device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if average:
                    average.update(progress.total)
                # losses stay on the device: reading one here would stall it at every step
                progress.record({"loss": loss, **terms}, len(batches))
                advance(1 if progress.step <= epoch_steps else 0)
                if interrupted() and progress.step < len(batches):
                    save()
                    raise KeyboardInterrupt

            losses = world.mean(progress.losses).cpu()
            trained = time.monotonic()
            _check_finite(losses, progress.terms, epoch, folder)
            means = losses.double().mean(dim=0).tolist()
            speed = sum(map(len, waiting)) / (trained - chosen)
            kept = len(progress.rows) / len(web.train)
            thresholds = progress.thresholds[epoch - 1]
            with averaged():
                agreement = chooser.agreement()
                weights = objective.state_dict() if schedule.keep == "agreement" else None
                row = {
                    "epoch": epoch,
                    "lr": round(optimizer.param_groups[0]["lr"], 6),
                    "alpha": round(chooser.alpha(epoch), 4),
                    "kept": round(kept, 4),
                    "threshold_low": _known(thresholds.min()),
                    "threshold_mean": _known(thresholds.mean()),
                    **dict(zip(progress.terms, map(_rounded, means), strict=True)),
                    "agreement": agreement,
                    "images_per_s": round(speed),
                    "tflops": _rounded(speed * flops / 1e12),
                    "utilisation": peak and _rounded(speed * flops / (peak * world.size)),
                    "seconds": round(time.monotonic() - started, 2),
                }
                progress.finish(row, weights)
            advance(
                max(0, epoch_steps - len(batches)),
                f"epoch {epoch}, loss {means[0]:.4f}, kept {kept:.0%}, {speed:,.0f} images/s",
            )
            save()
            if world.rank == 0:
                report(progress.curves)
            if interrupted() and epoch < schedule.epochs:
                raise KeyboardInterrupt

    unshare_batch_norm(objective)
    if progress.best is not None:
        objective.load_state_dict(progress.best)
    elif average:
        average.swap()
    labels, confidence = chooser.seen(schedule.epochs)
    return Trained(
        progress.curves,
        progress.kept,
        progress.thresholds,
        labels.cpu(),
        confidence.float().cpu(),
        progress.best_epoch or schedule.epochs,
    )


def learning_rate(done: float, schedule: Schedule) -> float:
    """The rate when a share `done` (0 to 1) of the training is behind."""
    if schedule.schedule == "step":
        return schedule.lr * 0.1 ** sum(done >= milestone for milestone in MILESTONES)
    if done < WARM_UP:
        return schedule.lr * (0.04 + 0.96 * done / WARM_UP)
    return schedule.lr * (1 - done) / (1 - WARM_UP)


def _batches(
    rows: Tensor, epoch_steps: int, schedule: Schedule, epoch: int, world: World
) -> list[Tensor]:
    """Shuffled batches of `rows`; refilled, they are as many as if all images were kept.

    Of the last batch, which may be short, every process gets equally many images. One image alone
    is left out, because a batch norm needs two.

    Raises:
        TrainingError: fewer images than processes.
    """
    generator = draws(schedule.seed, epoch)
    wanted = epoch_steps * schedule.batch_size if schedule.refill else len(rows)
    rounds = math.ceil(wanted / len(rows))
    order = torch.cat([rows[torch.randperm(len(rows), generator=generator)] for _ in range(rounds)])
    batches = [
        batch[: len(batch) - len(batch) % world.size]
        for batch in order[:wanted].split(schedule.batch_size)
    ]
    batches = [batch for batch in batches if len(batch) > 1]
    if not batches:
        raise TrainingError(
            f"distill: {len(rows)} images selected in epoch {epoch} for {world.size} processes",
            "start fewer, or set distill.refill",
        )
    return batches


def _check_finite(losses: Tensor, terms: list[str], epoch: int, folder: Path) -> None:
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
            "lower distill.lr",
        )


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _known(value: Tensor) -> float | None:
    return None if value.isnan() else round(float(value), 4)


@contextmanager
def _compiled(objective: Objective, wanted: bool) -> Iterator[None]:
    """Teacher and student as compiled graphs of their own, inside."""
    networks = [objective.teacher, objective.student] if wanted else []
    methods = [network for network in networks if not isinstance(network.features, nn.Module)]
    for network in networks:
        if network in methods:
            network.features = torch.compile(network.features)
        else:
            network.features.compile()
    try:
        yield
    finally:
        for network in networks:
            if network in methods:
                del network.features  # what the class defines is there again
            else:
                network.features._compiled_call_impl = None


@contextmanager
def _interruption(world: World) -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C asked to stop; a second one stops at once.

    With several processes nothing is caught: they would stop at different steps.
    """
    asked = threading.Event()
    if world.size > 1 or threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = signal.getsignal(signal.SIGINT)

    def stop(number: int, frame: object) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, stop)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)
