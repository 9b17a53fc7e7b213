"""The parameters table of the README, printed by `python -m stages.paramtable`."""

import json
import types
import typing

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from pipeline.params import Distill, Params

SIGNS = ((Ge, "ge", "≥"), (Gt, "gt", ">"), (Le, "le", "≤"), (Lt, "lt", "<"))


def table() -> str:
    """Markdown, one row a parameter."""
    rows = ["| parameter | default | values | meaning |", "|---|---|---|---|"]
    for section, of_section in Params.model_fields.items():
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
    kind = field.annotation
    if typing.get_origin(kind) is typing.Literal:
        return ", ".join(f"`{choice}`" for choice in typing.get_args(kind))
    if field.annotation == Distill.model_fields["lr"].annotation:
        return "number > 0, `auto`"
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is list:
        return "names"
    words = {int: "whole number", float: "number", str: "text", bool: "`true`, `false`"}
    limits = [
        f"{sign} {getattr(limit, name)}"
        for limit in field.metadata
        for of_kind, name, sign in SIGNS
        if isinstance(limit, of_kind)
    ]
    return " ".join([words.get(kind, "three numbers"), *limits])


if __name__ == "__main__":
    print(table())
