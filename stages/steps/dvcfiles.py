"""Files of DVC, as far as this software reads them itself: nothing is taken for granted in them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kd3_pipeline.paramfile import load_yaml, text_of


def read_yaml(path: Path) -> Any:
    """Content of a file of DVC, or of parameters as DVC has them.

    Raises:
        UserError: it is not there, cannot be read, or is no YAML.
    """
    return load_yaml(text_of(path, str(path)), str(path))[0]


def mapping(value: Any, key: str) -> dict[str, Any]:
    """The mapping under a key; an empty one if there is none."""
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def listed(stage: Mapping[str, Any], key: str) -> list[Any]:
    """The list under a key; an empty one if there is none."""
    found = stage.get(key)
    return found if isinstance(found, list) else []


def outputs_of(stage: Mapping[str, Any]) -> list[Path]:
    """Paths of what a stage writes, by what dvc.yaml declares of it."""
    return [
        Path(str(next(iter(out)) if isinstance(out, dict) else out))
        for kind in ("outs", "metrics", "plots")
        for out in listed(stage, kind)
        if out
    ]


def hashes(locked: Mapping[str, Any], kind: str) -> dict[str, str]:
    """Hashes by path of what a stage read (`deps`) or wrote (`outs`), by its part of dvc.lock."""
    entries = [one for one in listed(locked, kind) if isinstance(one, dict)]
    return {str(one["path"]): str(one["md5"]) for one in entries if {"path", "md5"} <= one.keys()}
