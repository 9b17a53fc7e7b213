"""Records of runs by dvc.lock and data/inputs, which `pipeline import` compares two projects by."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kd3_pipeline.errors import UserError
from kd3_pipeline.runrecord import RunRecord, flat, refuse_other
from kd3_stages import paths
from kd3_stages.steps.distill_record import PLACE
from kd3_stages.steps.dvcfiles import hashes, listed, mapping, read_yaml
from kd3_stages.steps.run_dvc import repository

MISSING = "bring it too, or run `dvc pull` or `pipeline repro` for it"


def record_there(folder: Path, stage: str) -> RunRecord:
    """The record of the run that wrote a stage's outputs in the project `folder`.

    Raises:
        UserError: its dvc.lock does not know the stage, or what the stage noted is not there.
    """
    lock = folder / paths.LOCK
    locked = {}
    if lock.exists():
        refuse_other(lock)
        locked = mapping(mapping(read_yaml(lock), "stages"), stage)
    if not locked:
        raise UserError(
            f"{lock} does not know it",
            f"`dvc commit -f {stage}` there makes it known, if it was run by hand",
        )
    deps, outs = hashes(locked, "deps"), hashes(locked, "outs")
    note = paths.INPUTS / f"{stage}.json"
    try:
        refuse_other(folder / note)
        noted = (folder / note).read_bytes()
        if hashlib.md5(noted, usedforsecurity=False).hexdigest() != deps.pop(str(note), None):
            raise UserError(f"{folder / note} is not what the run read", "copy it anew")
        values = json.loads(noted)
        sections = mapping(mapping(locked, "params"), str(paths.PARAMS))
        return _record(values, sections, deps, outs)
    except FileNotFoundError:
        raise UserError(f"{folder / note} not found", f"copy {paths.INPUTS}, too") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        at = f"{lock}, {folder / note}"
        raise UserError(f"{at}: no record of a run: {error!r:.200}") from None


def record_here(stage: str, declared: Mapping[str, Any], noted: Mapping[str, Any]) -> RunRecord:
    """The record that a run of the stage would have here and now, without outputs.

    Args:
        declared: the stage in dvc.yaml.
        noted: what `note_inputs` found for it.

    Raises:
        UserError: something that it reads is not here.
    """
    params = read_yaml(paths.PARAMS)
    sections = {section: params.get(section) or {} for section in listed(declared, "params")}
    deps = (Path(str(dep)) for dep in listed(declared, "deps"))
    read_too = [dep for dep in deps if dep.parent != paths.INPUTS]
    for path in read_too:
        if not path.exists():
            raise UserError(
                f"{path} is not here, so whether it is of that cannot be told",
                MISSING,
            )
    return _record(noted, sections, {path.as_posix(): dvc_digest(path) for path in read_too}, {})


def dvc_digest(path: Path, *, ignoring: bool = True) -> str:
    """What DVC calls a file or a folder by: its MD5, which it remembers while that is unchanged.

    Args:
        ignoring: leave out what .dvcignore names.
    """
    from dvc.fs import localfs  # late: takes longer than reading a lock
    from dvc_data.hashfile.build import build

    whole = path.absolute()
    with repository() as repo:
        ignore = repo.dvcignore if ignoring else None
        _, _, found = build(
            repo.cache.local, str(whole), localfs, "md5", ignore=ignore, dry_run=True
        )
    return str(found.hash_info.value)


def is_current(stage: str) -> bool:
    """Whether `dvc repro` would leave the stage as it is, by DVC itself."""
    with repository() as repo:
        return not repo.status([stage])


def _record(
    noted: Mapping[str, Any],
    sections: Mapping[str, Mapping[str, Any]],
    deps: Mapping[str, str],
    outs: Mapping[str, str],
) -> RunRecord:
    """A record of what a stage noted, of its sections of params.yaml, and of digests of DVC's."""
    parameters = flat(sections) | noted["defaults"] | noted.get("taken", {})
    counted = {key: one for key, one in parameters.items() if key.split(".")[-1] not in PLACE}
    outside = {at: one.get("sha256", "missing") for at, one in noted["outside"].items()}
    return RunRecord("", noted.get("code", ""), counted, {**deps, **outside}, dict(outs), "")
