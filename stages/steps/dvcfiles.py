"""Files of DVC, as far as this software reads them itself."""

from pathlib import Path
from typing import Any

from kd3_pipeline.errors import UserError
from kd3_pipeline.paramfile import load_yaml


def load_dvc(path: Path) -> Any:
    """Content of a YAML file.

    Raises:
        UserError: it is not there, cannot be read, or is no YAML.
    """
    try:
        return load_yaml(path.read_text("utf-8"), path.name)[0]
    except FileNotFoundError:
        raise UserError(
            f"{path} not found in {Path.cwd()}",
            "run it in the folder of a project; `pipeline init FOLDER` makes one",
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"{path} cannot be read: not UTF-8", "get it again") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def mapping(value: Any, key: str) -> dict[str, Any]:
    """The mapping under a key; an empty one if there is none."""
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def listed(stage: dict[str, Any], key: str) -> list[Any]:
    """The list under a key; an empty one if there is none."""
    found = stage.get(key)
    return found if isinstance(found, list) else []
