"""Coverage of classes by a crawl: what a teacher sees in its images, and what more to ask for."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kd3_pipeline.console import printable, text_table

STARVED = 0.5  # of the images wanted; a class of which the teacher sees fewer is starved
MOST_ROWS = 20  # classes in a table; with more, those that are asked for again


@dataclass
class Coverage:
    """What the teacher sees in a crawl, round by round.

    Attributes:
        names: of the classes.
        known: whether the teacher tells each apart; it can starve of no other.
        per_class: images wanted of each.
        stored: images that each class's search brought.
        seen: images in which the teacher sees each, whichever search brought them.
        more: images that were asked for beyond `per_class`.
        rounds: images that each round asked for, and new ones that it brought.
        ended: why there was no further round.
    """

    names: Sequence[str]
    known: Sequence[bool]
    per_class: int
    stored: list[int] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)
    more: list[int] = field(default_factory=list)
    rounds: list[tuple[int, int]] = field(default_factory=list)
    ended: str = ""

    @property
    def starved(self) -> list[int]:
        """The classes of which the teacher sees too little."""
        return [
            label
            for label, count in enumerate(self.seen)
            if self.known[label] and count < STARVED * self.per_class
        ]

    def deficits(self) -> dict[int, int]:
        """Images to ask for, by starved class: those that it lacks."""
        return {label: self.per_class - self.seen[label] for label in self.starved}

    def summary(self) -> dict[str, Any]:
        """The same for reports/crawl.json."""
        starved = set(self.starved)
        return {
            "per_class": self.per_class,
            "starved_below": STARVED * self.per_class,
            "rounds": [{"asked_more": asked, "new_images": new} for asked, new in self.rounds],
            "ended": self.ended,
            "classes": [
                {
                    "name": name,
                    "stored": self.stored[label],
                    "teacher_says": self.seen[label] if self.known[label] else None,
                    "asked_more": self.more[label],
                    "starved": label in starved,
                }
                for label, name in enumerate(self.names)
            ],
        }

    def lines(self) -> list[str]:
        """A table and a sentence for a person."""
        every = range(len(self.names))
        shown = [label for label in every if self.more[label] or label in self.starved]
        shown = list(every) if len(self.names) <= MOST_ROWS else shown[:MOST_ROWS]
        rows = [
            [
                printable(self.names[label]),
                f"{self.stored[label]:,}",
                f"{self.seen[label]:,}" if self.known[label] else "unknown",
                f"{self.more[label]:,}",
            ]
            for label in shown
        ]
        lines = []
        if rows:
            lines.append(text_table([["class", "stored", "teacher says", "asked more"], *rows]))
        if left := len(self.names) - len(shown):
            lines.append(f"and {left:,} classes more: see reports/crawl.json")
        asked, new = (sum(one[at] for one in self.rounds) for at in (0, 1))
        rounds = "1 round" if len(self.rounds) == 1 else f"{len(self.rounds)} rounds"
        said = f"{rounds} asked for {asked:,} images more and brought {new:,}; {self.ended}"
        still = f"; starved still: {len(self.starved)} of {len(self.names)}" if self.starved else ""
        lines.append(f"coverage: {said if self.rounds else self.ended}{still}")
        return lines
