"""Presets: what differs from the defaults, with reasons, and the whole `params.yaml` of it."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from kd3_pipeline.errors import UserError
from kd3_pipeline.paramfile import load_yaml, read_params
from kd3_pipeline.params import Params

FOLDER = Path(__file__).parent
HEAD = "# Preset {name} as `pipeline preset {name}` writes it (unedited: {digest})."
FIRST = re.compile(re.escape(HEAD).replace(r"\{name\}", r"[\w-]+").replace(r"\{digest\}", r"(\w+)"))
ABOUT = (
    "# docs/parameters.md explains the keys; a comment above one says why its value is not the",
    "# default.",
)
KEY = re.compile(r"  (\w+): *(\S.*)")
PLAIN = re.compile(r"[A-Za-z_./][\w./-]*")  # words that YAML needs no quotes for


def preset_names() -> list[str]:
    """The presets that come with the project."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def preset_titles() -> dict[str, str]:
    """The presets, each with the first sentence of its title."""
    titles = {}
    for name in preset_names():
        lines = (FOLDER / f"{name}.yaml").read_text("utf-8").split("\n\n", 1)[0].splitlines()
        title = " ".join(line.removeprefix("#").strip() for line in lines)
        titles[name] = re.split(r"(?<=\.)\s", title, maxsplit=1)[0].rstrip(".")
    return titles


def runs_alone(name: str) -> bool:
    """Whether a preset wants nothing of the user: neither weights nor images."""
    params = read_params(FOLDER / f"{name}.yaml")
    return params.teacher.source == "train" and params.evaluate.test_set == "demo"


def whole_file(name: str) -> str:
    """The text of a params.yaml with every key of every section, in the order declared.

    Values and reasons are those of the preset. All keys are there because `dvc exp run -S` sets
    none that is missing, and because a file shows what a list of differences hides.

    Raises:
        UserError: no such preset, or one with a wrong key or value.
    """
    path = FOLDER / f"{name}.yaml"
    if name not in preset_names():
        raise UserError(f"no preset named '{name}'", f"known: {', '.join(preset_names())}")
    params = read_params(path)
    title, reasons, texts = _written(path)
    lines = [*ABOUT, "", *title]
    for section in Params.model_fields:
        lines += ["", f"{section}:"]
        values: BaseModel = getattr(params, section)
        for key, value in values.model_dump(mode="json").items():
            at = f"{section}.{key}"
            lines += reasons.get(at, [])
            lines.append(f"  {key}: {texts.get(at) or _as_yaml(value)}")
    text = "\n".join(lines) + "\n"
    return f"{HEAD.format(name=name, digest=_digest(text))}\n{text}"


def write_preset(name: str, path: Path) -> Path | None:
    """Makes a preset the parameter file at `path`.

    Returns:
        Where the file that was there is kept; None if it was no one's work: a preset as
        this version or another one wrote it.

    Raises:
        UserError: no such preset.
    """
    text = whole_file(name)
    kept = None
    if path.exists():
        old = path.read_bytes()
        if not _unedited(old.decode("utf-8", "replace")):
            kept = keep_beside(path, old)
    path.write_text(text, "utf-8")
    return kept


def _unedited(text: str) -> bool:
    first, _, rest = text.partition("\n")
    found = FIRST.fullmatch(first)
    return found is not None and found[1] == _digest(rest)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def keep_beside(path: Path, data: bytes) -> Path:
    """Writes what `path` was to the first free one of NAME.previous.yaml, NAME.previous-2.yaml, …

    Returns:
        The path of the copy.
    """
    number = 1
    while True:
        suffix = f"-{number}" if number > 1 else ""
        copy = path.with_name(f"{path.stem}.previous{suffix}{path.suffix}")
        try:
            with copy.open("xb") as file:
                file.write(data)
        except FileExistsError:
            number += 1
        else:
            return copy


def _written(path: Path) -> tuple[list[str], dict[str, list[str]], dict[str, str]]:
    """A preset's title, and by key path the lines of its reason and its value as written."""
    title, *blocks = re.split(r"\n(?=\w+:)", path.read_text("utf-8"))
    reasons: dict[str, list[str]] = {}
    texts: dict[str, str] = {}
    for block in blocks:
        head, *lines = block.splitlines()
        section, reason = head.rstrip(": "), []
        for line in filter(str.strip, lines):
            if line.lstrip().startswith("#"):
                reason.append(line)
                continue
            found = KEY.fullmatch(line)
            if not found:
                raise UserError(f"{path.name}: {section}: expected a line `  key: value`: {line}")
            at = f"{section}.{found[1]}"
            reasons[at], texts[at], reason = reason, found[2], []
    return title.strip().splitlines(), reasons, texts


def _as_yaml(value: Any) -> str:
    """A default as YAML on one line."""
    if isinstance(value, str) and PLAIN.fullmatch(value) and load_yaml(value, "")[0] == value:
        return value
    if isinstance(value, list):
        return f"[{', '.join(map(_as_yaml, value))}]"
    return json.dumps(value, ensure_ascii=False)
