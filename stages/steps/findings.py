"""Findings of checks: one line each, with the exit code that it asks for."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from kd3_pipeline.console import Console, printable
from kd3_pipeline.errors import PipelineError

NEXT = "next"  # name of the finding that says what to do


@dataclass
class Finding:
    """One line: what was looked at, what was found, and the exit code it asks for.

    Attributes:
        ok: None where nothing is known to be wrong, and nothing to be right.
        loud: it works, and is not what anybody wants.
        measured: it rests on a measurement or an estimate, which may err: no run is stopped by it.
    """

    name: str
    text: str
    ok: bool | None = True
    code: int = 0
    values: dict[str, Any] = field(default_factory=dict)
    loud: bool = False
    measured: bool = False

    @property
    def line(self) -> str:
        if self.name == NEXT:
            return f"next   {self.text}"
        mark = "warn" if self.loud else {True: "ok", False: "wrong", None: "?"}[self.ok]
        return f"{mark:5}  {self.name}: {self.text}"

    @property
    def as_json(self) -> dict[str, Any]:
        loud = {"warning": True} if self.loud else {}
        return {"ok": self.ok, "text": self.text} | loud | self.values

    @property
    def stops(self) -> bool:
        """Whether a run that begins now is sure to fail, or to have no sense."""
        return bool(self.code) and not self.measured


def wrong(name: str, error: PipelineError) -> Finding:
    """What an error says, as a finding."""
    return Finding(name, printable("; ".join(str(error).splitlines())), False, error.exit_code)


def what_next(found: Iterable[Finding], otherwise: str) -> Finding:
    """The last line: what is to be set right, or what to do if nothing is."""
    bad = [one.name for one in found if one.code]
    if bad:
        return Finding(NEXT, f"set right: {', '.join(bad)}", None)
    return Finding(NEXT, otherwise)


def show(found: list[Finding], console: Console) -> int:
    """Prints findings as the result of a command; the exit code that they ask for."""
    console.result(
        "\n".join(one.line for one in found), {"checks": {one.name: one.as_json for one in found}}
    )
    return max(one.code for one in found)
