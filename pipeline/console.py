"""What a person sees: progress and notes on stderr, one result on stdout."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Advance = Callable[..., None]  # advance(n=1, note="")

FIRST_LINE_AFTER = 2.0  # seconds without a terminal before a step says that it is running
LINE_EVERY = 10.0  # seconds between lines without a terminal


def no_progress(n: int = 1, note: str = "") -> None:
    """Progress for callers that do not want any."""


class Console:
    """Writes for one command: `quiet` silences stderr, `as_json` makes the result one object."""

    def __init__(self, *, quiet: bool = False, as_json: bool = False) -> None:
        self.quiet = quiet
        self.as_json = as_json
        self._notes: list[str] = []

    def note(self, text: str) -> None:
        """Says something on stderr, once there is a result: an error stands alone."""
        self._notes.append(text)

    def result(self, text: str, values: dict[str, Any]) -> None:
        """Says what the command achieved, on stdout: `text`, or `values` as one JSON object."""
        print(json.dumps(values, ensure_ascii=False) if self.as_json else text, flush=True)
        if not self.quiet:
            for note in self._notes:
                print(f"note: {note}", file=sys.stderr, flush=True)
        self._notes = []

    @contextmanager
    def progress(self, title: str, total: int | None = None) -> Iterator[Advance]:
        """Yields `advance(n=1, note="")`: a bar on a terminal, a line now and then elsewhere."""
        if self.quiet:
            yield no_progress
        elif sys.stderr.isatty():
            with _bar(title, total) as advance:
                yield advance
        else:
            yield _lines(title, total)


@contextmanager
def _bar(title: str, total: int | None) -> Iterator[Advance]:
    from rich.console import Console as RichConsole
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=RichConsole(stderr=True)) as bars:
        task = bars.add_task(escape(title), total=total, note="")

        def advance(n: int = 1, note: str = "") -> None:
            fields = {"note": escape(note)} if note else {}
            bars.update(task, advance=n, **fields)

        yield advance


def _lines(title: str, total: int | None) -> Advance:
    done, said = 0, ""
    next_line = time.monotonic() + FIRST_LINE_AFTER

    def advance(n: int = 1, note: str = "") -> None:
        nonlocal done, said, next_line
        done, said = done + n, note or said
        if time.monotonic() < next_line:
            return
        next_line = time.monotonic() + LINE_EVERY
        count = f"{done:,} of {total:,}" if total else f"{done:,}"
        print(f"{title}: {count}{said and f', {said}'}", file=sys.stderr, flush=True)

    return advance
