"""Stages that a `dvc repro` would run, as far as the files of DVC tell without DVC."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kd3_pipeline.errors import UserError
from kd3_pipeline.paramfile import load_yaml
from kd3_stages import paths

SWITCH = "PIPELINE_CHECK"  # environment variable: `off` leaves out what `dvc repro` begins with


def to_look_at() -> set[str]:
    """The stages that are looked at before `dvc repro` runs them: none, if that is switched off."""
    return set() if os.environ.get(SWITCH, "").lower() == "off" else stages_to_run()


def stages_to_run() -> set[str]:
    """The stages whose parameters or noted inputs are not those of dvc.lock, and all after them.

    So are those whose inputs `dvc commit` has noted anew, as after `pipeline forget` or `import`.
    A stage too many is named rather than one too few: outputs of earlier runs, which DVC would
    bring back, are not looked for, and a stage counts as changing whatever it writes.

    Raises:
        UserError: a file of DVC is not there, or is no YAML.
    """
    declared = mapping(read(paths.DVC), "stages")
    locked = mapping(read(paths.LOCK), "stages") if paths.LOCK.exists() else {}
    made = {path: md5 for name in locked for path, md5 in _hashes(mapping(locked, name), "outs")}
    params = read(paths.PARAMS) or {}
    found: set[str] = set()
    written: set[str] = set()  # by stages that will run
    for name, stage in declared.items():
        if not isinstance(stage, dict) or "params" not in stage:
            continue
        deps = {str(dep) for dep in stage.get("deps", [])}
        lock = mapping(locked, name)
        others = any(made.get(path, md5) != md5 for path, md5 in _hashes(lock, "deps"))
        if deps & written or others or not _as_locked(name, stage, lock, params):
            found.add(name)
            written |= {path.as_posix() for path in outputs_of(stage)}
    return found


def _as_locked(name: str, stage: dict[str, Any], lock: dict[str, Any], params: Any) -> bool:
    """Whether a stage was run with the parameters and the noted inputs that are here now."""
    known = mapping(mapping(lock, "params"), str(paths.PARAMS))
    if not lock or any(known.get(section) != params.get(section) for section in stage["params"]):
        return False
    note = paths.INPUTS / f"{name}.json"
    noted = dict(_hashes(lock, "deps"))
    if not note.exists():
        return False
    # what DVC knows a file by, and no protection
    return noted.get(str(note)) == hashlib.md5(note.read_bytes(), usedforsecurity=False).hexdigest()


def _hashes(lock: dict[str, Any], kind: str) -> list[tuple[Any, Any]]:
    """Paths and hashes of what a stage read (`deps`) or wrote (`outs`) by dvc.lock."""
    entries = lock.get(kind)
    listed = entries if isinstance(entries, list) else []
    return [(one.get("path"), one.get("md5")) for one in listed if isinstance(one, dict)]


def read(path: Path) -> Any:
    """A file of DVC or of parameters as YAML has it.

    Raises:
        UserError: it is not there, or is no YAML.
    """
    try:
        return load_yaml(path.read_text("utf-8"), path.name)[0]
    except FileNotFoundError:
        raise UserError(f"{path} not found in {Path.cwd()}", "run it in the project") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not YAML: no text in UTF-8") from None


def mapping(value: Any, key: str) -> dict[str, Any]:
    """The mapping under a key; an empty one if there is none."""
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def outputs_of(stage: Mapping[str, Any]) -> list[Path]:
    """Paths of what a stage writes, by what dvc.yaml declares of it."""
    return [
        Path(out if isinstance(out, str) else next(iter(out)))
        for kind in ("outs", "metrics", "plots")
        for out in stage.get(kind, [])
    ]
