"""Stages that a `dvc repro` would run, as far as the files of DVC tell without DVC."""

import hashlib
import os
from typing import Any

from kd3_pipeline.params import Params
from kd3_stages import paths
from kd3_stages.steps.dvcfiles import hashes, listed, mapping, outputs_of, read_yaml

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
    declared = mapping(read_yaml(paths.DVC), "stages")
    locked = mapping(read_yaml(paths.LOCK), "stages") if paths.LOCK.exists() else {}
    made = {
        path: md5 for name in locked for path, md5 in hashes(mapping(locked, name), "outs").items()
    }
    params = read_yaml(paths.PARAMS) or {}
    found: set[str] = set()
    written: set[str] = set()  # by stages that will run
    for name in declared:
        stage = mapping(declared, name)
        if name not in Params.model_fields:  # one that a user has added
            continue
        deps = {str(dep) for dep in listed(stage, "deps")}
        lock = mapping(locked, name)
        others = any(made.get(path, md5) != md5 for path, md5 in hashes(lock, "deps").items())
        if deps & written or others or not _as_locked(name, stage, lock, params):
            found.add(name)
            written |= {path.as_posix() for path in outputs_of(stage)}
    return found


def _as_locked(name: str, stage: dict[str, Any], lock: dict[str, Any], params: Any) -> bool:
    """Whether a stage was run with the parameters and the noted inputs that are here now."""
    known = mapping(mapping(lock, "params"), str(paths.PARAMS))
    sections = [str(section) for section in listed(stage, "params")]
    if not lock or any(known.get(section) != params.get(section) for section in sections):
        return False
    note = paths.INPUTS / f"{name}.json"
    if not note.exists():
        return False
    # what DVC knows a file by, and no protection
    digest = hashlib.md5(note.read_bytes(), usedforsecurity=False).hexdigest()
    return hashes(lock, "deps").get(str(note)) == digest
