"""Patterns of paths as robots.txt has them (RFC 9309, section 2.2.3), in linear time."""

import re
from dataclasses import dataclass, field
from urllib.parse import quote

ESCAPED = re.compile(r"%([0-9A-Fa-f]{2})")
UNRESERVED = frozenset(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
)  # RFC 3986
KEPT = "!\"#$%&'()*+,/:;<=>?@[\\]^`{|}"  # everything printable; `quote` keeps the unreserved


def spelt(path: str) -> str:
    """The one spelling of a path: what needs no escape has none, what is not ASCII has one."""

    def plain(match: re.Match[str]) -> str:
        letter = chr(int(match[1], 16))
        return letter if letter in UNRESERVED else match[0].upper()

    return ESCAPED.sub(plain, quote(path, safe=KEPT, errors="replace"))


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern of paths: a beginning, with `*` for anything and `$` for the end."""

    text: str
    pieces: tuple[str, ...] = field(init=False, repr=False, compare=False)
    to_the_end: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        text = spelt(self.text)
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "to_the_end", text.endswith("$"))
        object.__setattr__(self, "pieces", tuple(text.removesuffix("$").split("*")))

    def matches(self, path: str) -> bool:
        """True if it stands for a path that `spelt` gave."""
        first, *others = self.pieces
        if not path.startswith(first):
            return False
        if not others:
            return not self.to_the_end or len(path) == len(first)
        at = len(first)
        last = others.pop() if self.to_the_end else ""
        # a regular expression may try every split of the path; the earliest place is always enough
        for piece in others:
            found = path.find(piece, at)
            if found < 0:
                return False
            at = found + len(piece)
        return path.endswith(last) and len(path) - len(last) >= at
