"""Summary of `embed` as reports/embed.json holds it: what the report says of it, and its reader."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from kd3_pipeline.jsonfile import read_json

HINT = "run `dvc repro embed`"


class EmbedSummary(BaseModel):
    """How the teacher was fed, and what the images say that the figures should be read with.

    What else stands in the file is for others.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    normalisation: Literal["fits", "wrong", "unknown"]
    warnings: tuple[str, ...] = ()  # none where embed.coverage is off


def read_embed_summary(path: Path) -> EmbedSummary:
    """The summary.

    Raises:
        UserError: it is missing, or a key of it is missing or has a value that cannot be.
    """
    return read_json(EmbedSummary, path, HINT)
