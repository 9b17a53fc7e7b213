"""Summary of `embed` as reports/embed.json holds it: what the report says of it, and its reader."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from kd3_pipeline.errors import UserError

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
    if not path.is_file():
        raise UserError(f"{path} not found", HINT)
    try:
        return EmbedSummary.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        said = f"{place}: {first['msg']}" if place else first["msg"]
        raise UserError(f"{path}: {said}", HINT) from None
