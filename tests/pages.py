"""Pages of documentation as tests read them: fenced blocks, prose, words in `code`."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.imports import ROOT

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{shown(self.page)}:{self.line}"


def shown(page: Path) -> str:
    """A page's path in the project."""
    return str(page.relative_to(ROOT))


def blocks(language: str) -> list[Block]:
    return [
        Block(page, text.count("\n", 0, found.start()) + 1, found[1], found[2])
        for page in PAGES
        for text in [page.read_text("utf-8")]
        for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)
        if found[1] == language
    ]


def prose(page: Path) -> str:
    """A page without its fenced blocks; what is left has the lines that it had."""
    return re.sub(
        r"^```.*?^```$",
        lambda found: "\n" * found[0].count("\n"),
        page.read_text("utf-8"),
        flags=re.M | re.S,
    )


def spans(page: Path) -> Iterator[str]:
    """Words in `code` of a page's text."""
    for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose(page)):
        yield " ".join(span.split())
