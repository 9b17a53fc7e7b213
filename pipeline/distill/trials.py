"""Trials: runs judged without labels, by agreement with the teacher on held-out web images."""

import json
from pathlib import Path
from typing import Any

import torch

from kd3_pipeline.console import Advance
from kd3_pipeline.distill import checkpoint
from kd3_pipeline.distill.budget import length_of
from kd3_pipeline.distill.parallel import ALONE, World
from kd3_pipeline.distill.run import distill
from kd3_pipeline.distill.web import WebImages
from kd3_pipeline.errors import TrainingError, UserError
from kd3_pipeline.models.checkpoint import ModelConfig
from kd3_pipeline.models.network import Network
from kd3_pipeline.params import Distill
from kd3_pipeline.store import write_json

# of 3% of a few thousand images one is worth a point of agreement: too coarse to choose by
HELD_OUT = 0.15


class Trials:
    """Runs that differ in their parameters alone, each remembered in a folder of its own.

    Args:
        web: with enough held-out images to choose by, such as `HELD_OUT`.
        teacher: frozen, in evaluation mode; `config` is its own.
        folder: the same for the same web images, teacher and code only.
        answers: as in `distill`; None: in `folder`, for all trials.

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
        answers: Path | None = None,
    ) -> None:
        if len(web.held_out) == 0:
            raise UserError("distill: no image is held out to choose by", "crawl more images")
        self.web = web
        self.teacher = teacher
        self.config = config
        self.precision = precision
        self.folder = folder
        self.world = world
        self.answers = answers or folder / "views"

    def steps(self, section: Distill) -> int:
        """Steps of one run."""
        return length_of(section, len(self.web.train)).steps

    def agreement(self, section: Distill, name: str, advance: Advance) -> float:
        """With the teacher on held-out images, 0 to 1, at the end of a run; 0 if it failed.

        Finished before, it is not run again; interrupted before, it goes on.

        Args:
            section: with what its objective fixes, and a number as learning rate.
            name: of the run, the same for the same section only.
        """
        folder = self.folder / name
        result = folder / "agreement.json"
        if result.exists():
            advance(self.steps(section))
            return json.loads(result.read_text("utf-8"))["agreement"]
        try:
            _, trained = distill(
                section,
                self.web,
                self.teacher,
                self.config,
                self.precision,
                folder,
                advance,
                world=self.world,
                answers=self.answers,
            )
            found: dict[str, Any] = {"agreement": trained.curves[trained.epoch - 1]["agreement"]}
        except TrainingError as error:
            found = {"agreement": 0.0, "failed": str(error)}
        self.world.wait()
        if self.world.rank == 0:
            write_json(result, found)
            checkpoint.clear(folder)
        return found["agreement"]
