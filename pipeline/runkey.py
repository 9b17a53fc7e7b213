"""Cache key of resumable work: it may only go on with the same parameters, inputs and code."""

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

NO_RESULT = frozenset(
    {
        "kd3_pipeline/__init__.py",  # switches off what libraries report
        "kd3_pipeline/console.py",  # draws and tells
        "kd3_pipeline/diskerrors.py",  # words
        "kd3_pipeline/errors.py",  # words and exit codes
        "kd3_pipeline/extras.py",  # words
        "kd3_pipeline/conflicts.py",  # refuses values, and changes none
        "kd3_pipeline/paramfile.py",  # reads params.yaml, whose values are tracked
        "kd3_pipeline/params.py",  # declares them; `pipeline inputs` tracks the defaults in use
        "kd3_pipeline/remedies.py",  # words
        "kd3_pipeline/registry.py",  # names classes; each is in a file of its own, which counts
        "kd3_pipeline/runkey.py",  # names a folder of unfinished work
        "kd3_stages/code.py",  # tells which code counts
        "kd3_stages/steps/dropped.py",  # tells of what `dedup` drops, once it is written
        "kd3_stages/paths.py",  # names files that dvc.yaml names as well
    }
)
"""Files that a stage executes and that decide no byte of its result.

A change of these must not make a month of distillation stale, nor throw away its checkpoint: they
count neither for DVC (`kd3_stages.code`) nor as part of a run's key. All others count,
though a comment in them may be all that changes: a stage that runs once too often costs time, and
one that is taken for up to date costs the truth.
"""


def run_key(parameters: Mapping[str, Any], inputs: Iterable[Path], sources: Iterable[Path]) -> str:
    """A name for a run: 16 hex digits of a hash over everything that its result depends on.

    Args:
        parameters: values that the run uses.
        inputs: files or folders that the run reads.
        sources: the code that the run executes.
    """
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True, default=str).encode())
    for path in [*inputs, *sources]:
        digest.update(digest_of(path).encode())
    return digest.hexdigest()[:16]


def digest_of(path: Path) -> str:
    """SHA-256 of a file, or of all files of a folder, with the names from its own on."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(os.fsencode(file.relative_to(path.parent)))
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def begins_anew(folder: Path) -> str:
    """What to tell where a run is not in `folder`, which its key names, and another one is beside.

    Empty where there is nothing to tell.
    """
    others = sorted(path for path in folder.parent.glob("*") if path.is_dir())
    if not others or folder.is_dir():
        return ""
    return (
        "it begins anew: since an interrupted run its parameters, inputs or code have changed"
        f" ({others[0]}{', …' if len(others) > 1 else ''} has what that had done)"
    )


def sources_of(step: str) -> list[Path]:
    """The files of this project that are loaded now and count, and `step`, the one that asks."""
    root = Path(__file__).parent
    loaded = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    ours = {Path(file) for file in loaded if file and root in Path(file).parents}
    counted = {file for file in ours if file.relative_to(root.parent).as_posix() not in NO_RESULT}
    return [*sorted(counted), Path(step)]
