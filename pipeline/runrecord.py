"""What a run was made of, beside its results: so that another machine can tell whose they are."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from kd3_pipeline.errors import UserError
from kd3_pipeline.runkey import digest_of
from kd3_pipeline.store import write_json

LARGEST = 2**24  # bytes of a record, which has a few thousand


@dataclass(frozen=True)
class RunRecord:
    """Content of a `run.json`.

    Attributes:
        version, code: of the software; `code` is the hash of what the stage runs.
        parameters: values by key path, but for those that say only where it runs.
        inputs: SHA-256 by path of the files and folders that it read.
        outputs: SHA-256 by path of the files that it wrote, relative to the project.
        place: where it ran; it counts for nothing.
    """

    version: str
    code: str
    parameters: dict[str, Any]
    inputs: dict[str, str]
    outputs: dict[str, str]
    place: str

    def write(self, path: Path) -> None:
        """Writes it as JSON."""
        write_json(path, asdict(self))

    def differences(self, other: "RunRecord") -> list[str]:
        """Parameters and inputs that another run would not have in common, each in words."""
        told = [
            f"{key} was {_shown(self.parameters.get(key))} there and is"
            f" {_shown(other.parameters.get(key))} here"
            for key in sorted({*self.parameters, *other.parameters})
            if self.parameters.get(key) != other.parameters.get(key)
        ]
        for path in sorted({*self.inputs, *other.inputs}):
            there, here = self.inputs.get(path), other.inputs.get(path)
            if there != here:
                known = "was not read" if there is None else "was another one"
                told.append(f"{path} {known} there")
        return told


def read_record(path: Path) -> RunRecord:
    """The record at `path`.

    Raises:
        UserError: it is missing, or is no such record.
    """
    try:
        refuse_other(path)
        values = json.loads(path.read_text("utf-8"))
        found = RunRecord(**{field.name: values[field.name] for field in fields(RunRecord)})
    except FileNotFoundError:
        raise UserError(
            f"{path} not found",
            "copy back all that the stage wrote; results of an older version have no such file",
        ) from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is no record of a run: {error!r:.200}") from None
    tables = (found.parameters, found.inputs, found.outputs)
    if not all(isinstance(one, dict) for one in tables):
        raise UserError(f"{path} is no record of a run")
    return found


def refuse_other(path: Path) -> None:
    """Raises a UserError for what is no file, such as a pipe, or is too large for a record."""
    if path.exists() and not (path.is_file() and path.stat().st_size <= LARGEST):
        raise UserError(f"{path} is no record of a run")


def digests(paths: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of files, and of folders with the names in them, by path."""
    return {path.as_posix(): digest_of(path) for path in paths}


def flat(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Parameters of several sections by key path, as JSON has them."""
    pairs = {
        f"{section}.{key}": value
        for section, values in sections.items()
        for key, value in values.items()
    }
    return json.loads(json.dumps(pairs))


def _shown(value: Any) -> str:
    text = "not set" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"
