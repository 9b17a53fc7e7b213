"""JSON files between stages: read as the types that their owner declares."""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from kd3_pipeline.errors import UserError

Content = TypeVar("Content", bound=BaseModel)


def read_json(kind: type[Content], path: Path, hint: str) -> Content:
    """The file's content.

    Args:
        hint: what to do where that fails.

    Raises:
        UserError: it is missing, or a key of it is missing or has a value that cannot be.
    """
    if not path.is_file():
        raise UserError(f"{path} not found", hint)
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        said = f"{place}: {first['msg']}" if place else first["msg"]
        raise UserError(f"{path}: {said}", hint) from None
