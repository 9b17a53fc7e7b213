"""Signals of owners, and the verdict that they come to."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import get_args

from kd3_pipeline.params import Crawl, OptOut

LONGEST = 200  # characters of what one signal says
MOST = 40  # signals that are told of one image
PROHIBITS = " (prohibits)"  # ends the line of a signal that does
AI_AGENTS = "ai-agents"
ALL_KINDS: tuple[str, ...] = get_args(OptOut)


@dataclass(frozen=True, slots=True)
class Signal:
    """One thing that an owner says. `allows` is None where it says nothing of training."""

    kind: str  # one of `crawl.opt_outs`, or `ai-agents`
    where: str
    text: str
    allows: bool | None = None

    @property
    def line(self) -> str:
        """The signal as the manifest keeps it: kind, place, text."""
        line = f"{self.kind}: {_plain(self.where)}: {_plain(self.text)}"
        return line + (PROHIBITS if self.allows is False else "")

    @property
    def detail(self) -> str:
        """The reason of a refusal: a header as it stands there, or else the line."""
        header = self.where.removeprefix("header ")
        if header.lower() == self.kind:
            return f"{header}: {_plain(self.text)}"
        return self.line.removesuffix(PROHIBITS)


@dataclass(frozen=True, slots=True)
class Verdict:
    """All signals of one image, and the first of them that forbids it; "" if none does."""

    signals: tuple[Signal, ...] = ()
    refusal: str = ""

    @property
    def text(self) -> str:
        """The signals for the manifest, one a line."""
        lines = list(dict.fromkeys(signal.line for signal in self.signals))
        if len(lines) > MOST:
            lines[MOST:] = [f"others: {len(lines) - MOST} more signals"]
        return "\n".join(lines)


def strictest(said: Iterable[bool | None]) -> bool | None:
    """What several values come to: one that forbids is enough."""
    values = set(said)
    return False if False in values else True if True in values else None


def _plain(text: str) -> str:
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", " ", text).strip()[:LONGEST]


class OptedOut(Exception):
    """An image says of itself that it is not to be used so."""

    def __init__(self, refusal: str, signals: str) -> None:
        super().__init__(refusal)
        self.signals = signals


def verdict(signals: Iterable[Signal], obeyed: frozenset[str]) -> Verdict:
    """What signals come to when these kinds are obeyed."""
    found = tuple(signals)
    refusing = (one.detail for one in found if one.allows is False and one.kind in obeyed)
    return Verdict(found, next(refusing, ""))


def obeyed_kinds(params: Crawl) -> frozenset[str]:
    """The kinds of signals that a crawl obeys."""
    if params.opt_outs == "all":
        kinds = frozenset(ALL_KINDS)
    else:
        kinds = frozenset[str](() if params.opt_outs == "none" else params.opt_outs)
    return kinds | {AI_AGENTS} if params.ai_agents else kinds


def kind_of(detail: str) -> str:
    """The kind that the detail of a refused image names."""
    return detail.partition(":")[0].strip().lower()


def refusal_in(text: str, obeyed: frozenset[str]) -> str:
    """The first of recorded signals that forbids an image when these kinds are obeyed."""
    lines = (line for line in text.splitlines() if line.endswith(PROHIBITS))
    found = next((line for line in lines if kind_of(line) in obeyed), "")
    return found.removesuffix(PROHIBITS)
