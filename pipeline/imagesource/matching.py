"""Class names of a source beside those that are wanted."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

from kd3_pipeline.console import printable
from kd3_pipeline.imagesource.entries import Entry, counted


def composed(name: str) -> str:
    """A name with its accents in their letters: some systems, as macOS, write folders without."""
    return unicodedata.normalize("NFC", name)


def folded(name: str) -> str:
    """A name without what people spell differently: letter case, and what stands for a space."""
    return re.sub(r"[\s_-]+", " ", composed(name)).strip().casefold()


class Matcher:
    """Labels for the pictures of a source, by the names of `crawl.classes`, with what is told.

    A name counts if it is a wanted one, however its accents are encoded, or is but for case,
    spaces, underscores and hyphens, and that leaves no choice.

    Args:
        wanted: gives the names; asked only if the source says a class at all.
    """

    def __init__(self, wanted: Callable[[], Sequence[str]]) -> None:
        self._ask = wanted
        self._labels: dict[str, int] | None = None
        self.matched = 0
        self._numbered = 0
        self._unknown: Counter[str] = Counter()
        self._spellings: dict[int, set[str]] = {}

    def label(self, entry: Entry) -> tuple[int, str]:
        """Label and name of a picture's class; -1 and "" where none is known."""
        said, names = entry.facts.of_class, entry.names
        if isinstance(said, int):
            if 0 <= said < len(names) and names.count(names[said]) == 1:
                said = names[said]
            else:
                self._numbered += said >= 0
                return -1, ""
        if not said:
            return -1, ""
        label = self._found(said)
        if label < 0:
            self._unknown[composed(said)] += 1
            return -1, ""
        self.matched += 1
        self._spellings.setdefault(label, set()).add(composed(said))
        return label, self._names[label]

    def _found(self, name: str) -> int:
        if self._labels is None:
            self._names = list(self._ask())
            self._labels = {}
            for form in (folded, composed, str):
                forms = Counter(map(form, self._names))
                self._labels |= {
                    form(one): label
                    for label, one in enumerate(self._names)
                    if forms[form(one)] == 1
                }
        found = (self._labels.get(form) for form in (name, composed(name), folded(name)))
        return next((label for label in found if label is not None), -1)

    def lines(self) -> list[str]:
        """What became of the classes, for a person; one line each."""
        lines = []
        if self.matched:
            lines.append(f"{self.matched:,} pictures have a class of crawl.classes")
        if self._unknown:
            lines.append(
                f"{self._unknown.total():,} pictures are in folders or of classes that"
                f" crawl.classes does not name ({counted(self._unknown)}): they have no class, and"
                " distillation needs none"
            )
        if self._numbered:
            lines.append(
                f"{self._numbered:,} pictures have a number for a class that no name, or two of"
                " one spelling, stand for: they have no class"
            )
        for label, spellings in sorted(self._spellings.items()):
            if len(spellings) > 1:
                shown = ", ".join(f"'{printable(one)[:60]}'" for one in sorted(spellings))
                lines.append(f"{shown} are all taken as the class '{self._names[label]}'")
        return lines
