"""Summary of `embed` as reports/embed.json holds it: what the report says of it, and its reader."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from kd3_pipeline.jsonfile import read_json

HINT = "run `dvc repro embed`"


class LayerMoments(BaseModel):
    """Distance of the images' moments at one batch norm from the remembered ones (deviations)."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    layer: str
    before: float
    after: float


class Layer(BaseModel):
    """Distances of one batch norm from what it remembers, before and after images were refined."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    name: str
    before: float
    after: float


class MomentSummary(BaseModel):
    """What moment weights do: as `kd3_pipeline.embed.moments` writes it.

    Attributes:
        error_before, error_after: over all batch norms, of images drawn alike and by weight.
        effective: number of images that tell as much as the weighted ones.
        largest_weight: of an image; the mean is 1.
        left_out: of `moments`, those that hardly vary from image to image.
        measured_on: images that were drawn for the errors.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    error_before: float
    error_after: float
    effective: int
    largest_weight: float
    moments: int
    left_out: int
    measured_on: int
    layers: tuple[LayerMoments, ...]


class Refinement(BaseModel):
    """What refining the images did: mean distances, and how much it changed them."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    steps: int
    before: float
    after: float
    moved: float
    same_class: float
    layers: tuple[Layer, ...]


class EmbedSummary(BaseModel):
    """How the teacher was fed, and what the images say that the figures should be read with.

    What else stands in the file is for others.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    normalisation: Literal["fits", "wrong", "unknown"]
    warnings: tuple[str, ...] = ()  # none where embed.coverage is off
    moments: MomentSummary | None = None  # of embed.moments
    refine: Refinement | None = None  # where embed.refine is not 0


def read_embed_summary(path: Path) -> EmbedSummary:
    """The summary.

    Raises:
        UserError: it is missing, or a key of it is missing or has a value that cannot be.
    """
    return read_json(EmbedSummary, path, HINT)
