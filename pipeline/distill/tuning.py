"""Choosing parameters without labels: short runs, judged by agreement on held-out web images."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pipeline.console import Advance
from pipeline.distill import checkpoint
from pipeline.distill.parallel import ALONE, World
from pipeline.distill.run import Settings, run
from pipeline.distill.web import WebImages
from pipeline.errors import TrainingError, UserError
from pipeline.models.checkpoint import ModelConfig
from pipeline.models.network import Network
from pipeline.store import remove, write_json

# of 3% of a few thousand images one is worth a point of agreement: too coarse to choose by
HELD_OUT = 0.15
PROBE_RATES = (0.1, 0.2, 0.4, 0.8, 1.6)
PROBE_LENGTH = 0.15  # of the epochs of the whole run


class Trials:
    """Runs that differ in their settings alone, each remembered in a folder of its own.

    Args:
        web: with enough held-out images to choose by, such as `HELD_OUT`.
        teacher: frozen, in evaluation mode; `config` is its own.
        folder: the same for the same web images, teacher and code only.

    Raises:
        UserError: no image is held out.
    """

    def __init__(
        self,
        web: WebImages,
        teacher: Network,
        config: ModelConfig,
        precision: torch.dtype,
        folder: Path,
        world: World = ALONE,
    ) -> None:
        if len(web.held_out) == 0:
            raise UserError("distill: no image is held out to choose by", "crawl more images")
        self.web = web
        self.teacher = teacher
        self.config = config
        self.precision = precision
        self.folder = folder
        self.world = world

    def steps(self, settings: Settings) -> int:
        """Steps of one run."""
        return settings.schedule.epochs * (len(self.web.train) // settings.schedule.batch_size)

    def agreement(self, settings: Settings, name: str, advance: Advance) -> float:
        """With the teacher on held-out images, 0 to 1, at the end of a run; 0 if it failed.

        Finished before, it is not run again; interrupted before, it goes on.

        Args:
            name: of the run, the same for the same settings only.
        """
        folder = self.folder / name
        result = folder / "agreement.json"
        if result.exists():
            advance(self.steps(settings))
            return json.loads(result.read_text("utf-8"))["agreement"]
        try:
            _, trained = run(
                settings,
                self.web,
                self.teacher,
                self.config,
                self.precision,
                folder,
                advance,
                world=self.world,
            )
            found: dict[str, Any] = {"agreement": trained.curves[trained.epoch - 1]["agreement"]}
        except TrainingError as error:
            found = {"agreement": 0.0, "failed": str(error)}
        self.world.wait()
        if self.world.rank == 0:
            write_json(result, found)
            for path in checkpoint.saved(folder):
                remove(path)
        return found["agreement"]


def probe_settings(settings: Settings, rate: float) -> Settings:
    """A short run at one peak learning rate."""
    epochs = max(2, round(PROBE_LENGTH * settings.schedule.epochs))
    schedule = replace(settings.schedule, lr=rate, epochs=epochs, keep="last")
    return replace(settings, schedule=schedule)


def probe_steps(trials: Trials, settings: Settings) -> int:
    """Steps of all short runs."""
    return len(PROBE_RATES) * trials.steps(probe_settings(settings, PROBE_RATES[0]))


def probe_rates(trials: Trials, settings: Settings, advance: Advance) -> dict[float, float]:
    """Agreement at the end of a short run, by peak learning rate."""
    return {
        rate: trials.agreement(probe_settings(settings, rate), f"rate-{rate}", advance)
        for rate in PROBE_RATES
    }
