"""Stages that a `dvc repro` would run, as far as the files of DVC tell without DVC."""

import hashlib
from pathlib import Path
from typing import Any

from kd3_pipeline.params import Params
from kd3_stages import paths
from kd3_stages.steps.dvcfiles import listed, load_dvc, mapping

LOCK = Path("dvc.lock")


def stages_to_run() -> set[str]:
    """The stages whose parameters or noted inputs are not those of dvc.lock, and all after them.

    A stage too many is named rather than one too few: outputs of earlier runs, which DVC would
    bring back, are not looked for, and a stage counts as changing whatever it writes.

    Raises:
        UserError: a file of DVC is not there, or is no YAML.
    """
    declared = mapping(load_dvc(paths.DVC), "stages")
    locked = mapping(load_dvc(LOCK), "stages") if LOCK.exists() else {}
    params = load_dvc(paths.PARAMS) or {}
    found: set[str] = set()
    written: set[str] = set()  # by stages that will run
    for name in declared:
        stage = mapping(declared, name)
        if name not in Params.model_fields:  # one that a user has added
            continue
        deps = {str(dep) for dep in listed(stage, "deps")}
        if deps & written or not _as_locked(name, stage, mapping(locked, name), params):
            found.add(name)
            written |= {
                _path(out) for kind in ("outs", "metrics", "plots") for out in listed(stage, kind)
            }
    return found


def _as_locked(name: str, stage: dict[str, Any], lock: dict[str, Any], params: Any) -> bool:
    """Whether a stage was run with the parameters and the noted inputs that are here now."""
    known = mapping(mapping(lock, "params"), str(paths.PARAMS))
    sections = [str(section) for section in listed(stage, "params")]
    if not lock or any(known.get(section) != params.get(section) for section in sections):
        return False
    note = paths.INPUTS / f"{name}.json"
    noted = {
        one.get("path"): one.get("md5") for one in listed(lock, "deps") if isinstance(one, dict)
    }
    if not note.exists():
        return False
    # what DVC knows a file by, and no protection
    return noted.get(str(note)) == hashlib.md5(note.read_bytes(), usedforsecurity=False).hexdigest()


def _path(out: Any) -> str:
    return str(next(iter(out)) if isinstance(out, dict) else out)
