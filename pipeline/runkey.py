"""What interrupted work belongs to: it may only go on with the same parameters, inputs and code."""

import dataclasses
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def run_key(parameters: Mapping[str, Any], inputs: Iterable[Path], sources: Iterable[Path]) -> str:
    """A name for a run: 16 hex digits of a hash over everything that its result depends on.

    Args:
        parameters: values that the run uses.
        inputs: files or folders that the run reads.
        sources: the code that the run executes.
    """
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True, default=str).encode())
    for path in [*inputs, *sources]:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                digest.update(os.fsencode(file.relative_to(path.parent)))
                with file.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def sources_of(stage: str) -> list[Path]:
    """The files of this project that are loaded now, and `stage`, the one that asks."""
    root = Path(__file__).parent
    loaded = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    ours = {Path(file) for file in loaded if file and root in Path(file).parents}
    return [*sorted(ours), Path(stage)]


def fields_of(kind: type, values: object) -> dict[str, Any]:
    """The fields of the dataclass `kind`, taken from an object with attributes of those names."""
    return {field.name: getattr(values, field.name) for field in dataclasses.fields(kind)}
