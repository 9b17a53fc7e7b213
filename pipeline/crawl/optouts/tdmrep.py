"""The file /.well-known/tdmrep.json of the TDM Reservation Protocol."""

import json
from dataclasses import dataclass

from kd3_pipeline.crawl.optouts.forms import forms
from kd3_pipeline.crawl.optouts.paths import Pattern
from kd3_pipeline.crawl.optouts.signals import Signal

PATH = "/.well-known/tdmrep.json"
MAX_BYTES = 256 * 1024
FORM = forms("well-known file")[PATH]


@dataclass(frozen=True, slots=True)
class Reservations:
    """The entries of one file, in order, or why it was not read."""

    entries: tuple[tuple[Pattern, str, bool], ...] = ()
    problem: str = ""

    def __bool__(self) -> bool:
        return bool(self.entries or self.problem)

    def signals(self, path: str) -> list[Signal]:
        """The first entry that matches a path (with its query, as `spelt` has it)."""
        for pattern, text, allows in self.entries:
            if pattern.matches(path):
                return [Signal(FORM.kind, PATH, text, allows)]
        return [Signal(FORM.kind, PATH, self.problem)] if self.problem else []


def reservations(data: bytes) -> Reservations:
    """Reads a file of any content; what is none has no entries."""
    if len(data) > MAX_BYTES:
        # a page that answers every address is no such file, however long
        begun = data.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"[", b"{")
        return Reservations(problem=f"not read: more than {MAX_BYTES:,} bytes" if begun else "")
    try:
        found = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return Reservations()
    entries = []
    # an array by the report; some write its only entry alone
    for entry in found if isinstance(found, list) else [found]:
        if not isinstance(entry, dict) or not isinstance(entry.get("location"), str):
            continue
        value = entry.get("tdm-reservation")
        # JSON has one kind of numbers: 1.0 is 1
        value = int(value) if isinstance(value, float) and value in (0, 1) else value
        said = FORM.read(str(value)) if isinstance(value, int | str) else None
        if said is not None:
            text = f"{entry['location']} {value}"
            entries.append((Pattern(entry["location"]), text, said))
    return Reservations(tuple(entries))
