"""Pace of a training: what its steps and epochs take, measured, and how many a time is enough for.

The steps are settled once, at the start, and written down: so a run that is interrupted goes on to
the same end, and one with as many steps as budget is the same run.
"""

import bisect
import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from kd3_pipeline.distill.batches import shuffled_batches
from kd3_pipeline.distill.budget import of_steps, seconds_of
from kd3_pipeline.distill.compiling import compiled
from kd3_pipeline.distill.learning_rate import LATE
from kd3_pipeline.distill.parallel import World
from kd3_pipeline.distill.run import Prepared
from kd3_pipeline.distill.selection import Selector
from kd3_pipeline.distill.state import State
from kd3_pipeline.distill.web import WebImages
from kd3_pipeline.errors import UserError
from kd3_pipeline.params import Distill
from kd3_pipeline.store import write_json

FILE = "length.json"
WARMING, TRIED = 3, 2  # steps before the clock counts, and those that say how many to measure
FEWEST, MOST = 5, 200  # steps that are measured
SHARE = 0.02  # of the budget that they take
LOOKS = 20  # batches that are looked at to measure a selection
LIMIT = 10**9  # steps


@dataclass(frozen=True)
class Pace:
    """Seconds of the parts of a training.

    Attributes:
        step: of a step, the mean over a run.
        look: of an image that a selection or an agreement looks at.
    """

    step: float
    look: float


@dataclass(frozen=True)
class Work:
    """What a run does besides its steps.

    Attributes:
        epoch_steps: most steps of an epoch.
        looks: images that are looked at in every epoch.
        last_looks: images that are looked at once more at the end.
        probing: share of the steps that short runs before it take on top.
    """

    epoch_steps: int
    looks: int
    last_looks: int
    probing: float = 0.0

    def seconds(self, steps: int, pace: Pace) -> float:
        """Time of a run of so many steps, its short runs included."""
        epochs = math.ceil(steps / self.epoch_steps)
        training = steps * pace.step + epochs * self.looks * pace.look
        return (1 + self.probing) * training + self.last_looks * pace.look

    def steps(self, seconds: float, pace: Pace) -> int:
        """The most steps that take no longer than that; 0 where not even one does."""
        found = bisect.bisect_right(range(LIMIT), seconds, key=lambda one: self.seconds(one, pace))
        return max(0, found - 1)


def work_of(section: Distill, web: WebImages, probing: float) -> Work:
    """What a run of these parameters does besides its steps."""
    looks = len(web.held_out) + (section.selection == "dynamic") * len(web.looked_at)
    epoch_steps = max(1, len(web.train) // section.batch_size)
    return Work(epoch_steps, looks, len(web.ids), probing)


def known_steps(folder: Path, world: World, device: torch.device) -> int | None:
    """The steps that an interrupted run in `folder` had settled on; the same in all processes.

    Args:
        device: with which processes talk to each other.
    """
    path = folder / FILE
    found = json.loads(path.read_text("utf-8"))["steps"] if path.exists() else 0
    # what the first process has read counts: another one may see the file a moment later
    first = torch.tensor(found if world.rank == 0 else 0, device=device)
    return int(world.sum(first)) or None


def settle(
    section: Distill,
    web: WebImages,
    prepared: Prepared,
    precision: torch.dtype,
    folder: Path,
    began: float,
    probing: float = 0.0,
) -> tuple[int, Pace]:
    """How many steps `distill.budget`, a time, is enough for, which is written to `folder`.

    Args:
        section: with any learning rate.
        prepared: its modules are used up: some steps are done, of no effect but on statistics.
        began: when the budget began, by `time.monotonic`.
        probing: share of the steps that short runs before the training take on top.

    Raises:
        UserError: it is not enough for `FEWEST` steps.
    """
    world = prepared.objective.world
    budget = seconds_of(section.budget) or 0.0
    pace = measured(section, web, prepared, precision, budget)
    spent = _mean(time.monotonic() - began, world, web.teacher_logits.device)
    work = work_of(section, web, probing)
    steps = work.steps(budget - spent, pace)
    if steps < FEWEST:
        raise UserError(
            f"distill.budget {section.budget} is too short: {spent:.0f} s are gone before the first"
            f" step, and {FEWEST} steps take {work.seconds(FEWEST, pace):.1f} s",
            "give more time, or set distill.epochs in its place",
        )
    if world.rank == 0:
        write_json(folder / FILE, {"steps": steps, "step_seconds": pace.step, "spent": spent})
    world.wait()
    return steps, pace


def in_steps(section: Distill, steps: int) -> Distill:
    """The section with a budget of so many steps."""
    return section.model_copy(update={"budget": of_steps(steps)})


def measured(
    section: Distill, web: WebImages, prepared: Prepared, precision: torch.dtype, budget: float
) -> Pace:
    """The pace of steps and looks on these images, all processes together.

    Args:
        budget: seconds, of which a small share is taken.
    """
    # no rate is known yet, and at none no weight changes
    trial = section.model_copy(update={"lr": 1.0, "epochs": 1, "refill": True})
    objective, views = prepared.objective, prepared.views
    state = State(web, objective, views, trial, precision)
    state.share()
    with compiled(objective, state.device):
        step = _step_seconds(state, budget, late=False)
        if trial.disagreement:
            step = LATE * step + (1 - LATE) * _step_seconds(state, budget, late=True)
        few = _first(web, LOOKS * trial.batch_size)
        selector = Selector(few, objective, views, trial, precision)
        selector.judge(1)  # once before the clock counts: the graph of evaluation is another one
        with _clock(objective.world, state.device) as seconds:
            selector.judge(1).mask.sum().item()
    return Pace(step, seconds[0] / len(few.ids))


def _step_seconds(state: State, budget: float, *, late: bool) -> float:
    """Mean time of a step, from as many as fit into a small share of the budget."""
    _steps(state, WARMING, late)
    roughly = _steps(state, TRIED, late)
    count = min(max(FEWEST, round(SHARE * budget / max(roughly, 1e-6))), MOST)
    return _steps(state, count, late)


def _steps(state: State, count: int, late: bool) -> float:
    """Mean time of `count` steps without effect on the weights."""
    world, section = state.objective.world, state.section
    state.objective.train()
    batches = shuffled_batches(state.web, state.web.train, count, section, 1, world)
    with _clock(world, state.device) as seconds:
        terms: dict[str, Tensor] = {}
        for rows, pixels, records in state.batches(batches, 1):
            terms = state.step(rows, pixels, 1, 0.0, records, late=late)
        float(terms["loss"])  # the device has done what it was asked
    return seconds[0] / count


@contextmanager
def _clock(world: World, device: torch.device) -> Iterator[list[float]]:
    """Seconds that pass inside, the mean over processes: a list that has them afterwards."""
    found: list[float] = []
    started = time.monotonic()
    yield found
    found.append(_mean(time.monotonic() - started, world, device))


def _mean(value: float, world: World, device: torch.device) -> float:
    return float(world.mean(torch.tensor(value, device=device)))


def _first(web: WebImages, count: int) -> WebImages:
    """The first `count` images, as if there were no others."""
    return replace(
        web,
        ids=web.ids[:count],
        teacher_logits=web.teacher_logits[:count],
        train=web.train[web.train < count],
        held_out=web.held_out[web.held_out < count],
        among=None,
    )
