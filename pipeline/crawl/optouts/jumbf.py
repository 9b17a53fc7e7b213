"""Assertions on training and mining in the C2PA data of an image. Signatures are not checked."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kd3_pipeline.crawl.optouts.forms import forms
from kd3_pipeline.crawl.optouts.signals import Signal, strictest

LABEL = re.compile(r"(?:c2pa|cawg)\.training-mining(?:__\d+)?")
BINDING = {"ai_training", "ai_generative_training", "data_mining"}
DEEPEST = 8  # boxes or CBOR values within each other
MOST = 10_000  # boxes or CBOR values
FORMS = forms("image")


@dataclass(frozen=True, slots=True)
class Assertion:
    """What one assertion says: entry → use."""

    manifest: int  # its place among those of the image, the active one last
    label: str
    uses: dict[str, str]


def training_signals(store: bytes) -> Iterator[Signal]:
    """What the C2PA data of one image says of training on it."""
    if b".training-mining" not in store:
        return
    try:
        found = list(_assertions(store))
    except (ValueError, IndexError, RecursionError) as error:
        yield Signal("c2pa", "C2PA", f"a training-mining assertion that cannot be read: {error}")
        return
    # an image has the manifests of what it was made from, too
    latest = max((one.manifest for one in found), default=0)
    for one in found:
        if one.manifest == latest:
            form = FORMS[one.label.partition("__")[0]]
            binding = [use for name, use in one.uses.items() if name.split(".")[-1] in BINDING]
            text = ", ".join(f"{name}={use}" for name, use in one.uses.items())
            yield Signal(form.kind, f"C2PA {one.label}", text, strictest(map(form.read, binding)))


def _assertions(store: bytes) -> Iterator[Assertion]:
    """Goes through the boxes of a store (ISO 19566-5): store, manifests, their assertions."""
    manifest, seen = 0, 0
    waiting = [(0, len(store), 0)]
    while waiting:
        start, end, depth = waiting.pop()
        label, inner = "", []
        for kind, first, last in _boxes(store, start, end):
            seen += 1
            if seen > MOST:
                raise ValueError("too many boxes")
            if kind == b"jumd":
                label = _label(store[first:last])
            elif kind == b"jumb" and depth < DEEPEST:
                inner.append((first, last, depth + 1))
            elif kind in (b"cbor", b"json") and LABEL.fullmatch(label):
                yield Assertion(manifest, label, _uses(kind, store[first:last]))
        manifest += depth == 2  # what is popped now is the next manifest of the store
        waiting += reversed(inner)


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end) of the contents of boxes."""
    while end - start >= 8:
        size, first = int.from_bytes(data[start : start + 4], "big"), start + 8
        if size == 1:
            size, first = int.from_bytes(data[first : first + 8], "big"), start + 16
        last = end if size == 0 else start + size
        if not first <= last <= end:
            return
        yield data[start + 4 : start + 8], first, last
        start = last


def _label(description: bytes) -> str:
    # 16 bytes of type, then what there is: 2 is a label
    if len(description) < 18 or not description[16] & 2:
        return ""
    return description[17:].partition(b"\0")[0].decode("ascii", "replace")


def _uses(kind: bytes, data: bytes) -> dict[str, str]:
    said = json.loads(data) if kind == b"json" else Cbor(data).value()
    # the first version of CAWG's forgot the map around the entries
    entries = said.get("entries", said) if isinstance(said, dict) else {}
    uses: dict[str, str] = {}
    for name, entry in entries.items() if isinstance(entries, dict) else ():
        use = entry.get("use") if isinstance(entry, dict) else entry
        if isinstance(name, str) and isinstance(use, str):
            uses[name] = use
    return uses


class Cbor:
    """Reader of maps, lists, texts and numbers (RFC 8949).

    Libraries read tags too: numbers that take all memory, patterns, other objects. Nothing here
    needs one, so a tag is passed over.
    """

    def __init__(self, data: bytes) -> None:
        self.data, self.at, self.seen = data, 0, 0

    def value(self, depth: int = 0) -> Any:
        """The next value; raises ValueError or IndexError if there is none."""
        self.seen += 1
        if depth > DEEPEST or self.seen > MOST:
            raise ValueError("too many values, or too deep")
        major, short = divmod(self.data[self.at], 32)
        self.at += 1
        if major == 7:
            self.at += {24: 1, 25: 2, 26: 4, 27: 8}.get(short, 0)
            return {20: False, 21: True}.get(short)
        number = self._number(short)
        if major in (2, 3):
            parts = [self._bytes(number)] if number is not None else self._open(depth)
            joined: Any = b"".join(
                part if isinstance(part, bytes) else str(part).encode() for part in parts
            )
            return joined.decode("utf-8", "replace") if major == 3 else joined
        if major == 4:
            return list(self._items(number, depth))
        if major == 5:
            pairs = self._items(None if number is None else 2 * number, depth)
            return {key if isinstance(key, str | int) else None: next(pairs) for key in pairs}
        return self.value(depth + 1) if major == 6 else number

    def _number(self, short: int) -> int | None:
        """The number in or behind a first byte; None for a length that is open."""
        if short < 24:
            return short
        if short > 27:
            if short == 31:
                return None
            raise ValueError("reserved")
        return int.from_bytes(self._bytes(1 << (short - 24)), "big")

    def _bytes(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise ValueError("it ends too early")
        self.at += size
        return self.data[self.at - size : self.at]

    def _items(self, number: int | None, depth: int) -> Iterator[Any]:
        if number is None:
            yield from self._open(depth)
        else:
            for _ in range(number):
                yield self.value(depth + 1)

    def _open(self, depth: int) -> Iterator[Any]:
        while self.data[self.at] != 0xFF:
            yield self.value(depth + 1)
        self.at += 1
