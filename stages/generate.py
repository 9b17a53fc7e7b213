"""docs/parameters.md, printed by `python -m stages.paramtable`."""

import json
import types
import typing
from collections.abc import Iterable
from typing import Any

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from pipeline.params import Params
from pipeline.registry import OneOf

WORDS = {int: "whole number", float: "number", str: "text", bool: "`true`, `false`"}
SIGNS = ((Ge, "ge", "≥"), (Gt, "gt", ">"), (Le, "le", "≤"), (Lt, "lt", "<"))


def page() -> str:
    """Markdown, a table for each section, one row a parameter."""
    rows = [
        "# Parameters",
        "",
        "Every key of `params.yaml`, by section: one section a stage. A missing key has its",
        "default; a key that is not in this list is an error. On the command line:",
        "`pipeline STAGE --set section.key=value`.",
    ]
    for section, of_section in Params.model_fields.items():
        rows += ["", f"## {section}", ""]
        rows += ["| parameter | default | values | meaning |", "|---|---|---|---|"]
        for name, field in of_section.annotation.model_fields.items():
            cells = [
                f"`{section}.{name}`",
                f"`{json.dumps(field.default)}`",
                _values(field),
                field.description or "",
            ]
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def _values(field: FieldInfo) -> str:
    return _kind(field.annotation, field.metadata)


def _kind(kind: Any, metadata: Iterable[Any] = ()) -> str:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return ", ".join(f"`{choice}`" for choice in inner)
    if origin is typing.Annotated:
        return _kind(inner[0], [*metadata, *_limits(inner[1:])])
    words = [word for one in metadata if isinstance(one, OneOf) for word in one.words]
    if words:
        return ", ".join(f"`{word}`" for word in words)
    if origin in (types.UnionType, typing.Union):
        return ", ".join(dict.fromkeys(_kind(one, metadata) for one in inner))
    if origin in (list, dict):
        return "names"
    if origin is tuple:
        return "three numbers"
    limits = [
        f"{sign} {getattr(limit, name)}"
        for limit in metadata
        for of_kind, name, sign in SIGNS
        if isinstance(limit, of_kind)
    ]
    return " ".join([WORDS[kind], *limits])


def _limits(metadata: Iterable[Any]) -> list[Any]:
    return [
        one
        for data in metadata
        for one in (data.metadata if isinstance(data, FieldInfo) else [data])
    ]


if __name__ == "__main__":
    print(page())
