"""The file /.well-known/tdmrep.json of the TDM Reservation Protocol."""

import json
from dataclasses import dataclass

from pipeline.crawl.optouts.forms import forms
from pipeline.crawl.optouts.paths import Pattern
from pipeline.crawl.optouts.signals import Signal

PATH = "/.well-known/tdmrep.json"
MAX_BYTES = 256 * 1024
FORM = forms("well-known file")[PATH]


@dataclass(frozen=True, slots=True)
class Reservations:
    """The entries of one file, in order."""

    entries: tuple[tuple[Pattern, str, bool], ...] = ()

    def signals(self, path: str) -> list[Signal]:
        """The first entry that matches a path (with its query, as `spelt` has it)."""
        for pattern, text, allows in self.entries:
            if pattern.matches(path):
                return [Signal(FORM.kind, PATH, text, allows)]
        return []


def reservations(data: bytes) -> Reservations:
    """Reads a file of any content; what is none has no entries."""
    if len(data) > MAX_BYTES:
        return Reservations()
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
        said = FORM.read(str(value)) if isinstance(value, int | str) else None
        if said is not None:
            text = f"{entry['location']} {value}"
            entries.append((Pattern(entry["location"]), text, said))
    return Reservations(tuple(entries))
