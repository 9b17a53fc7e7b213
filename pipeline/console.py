"""Terminal output: progress and notes on stderr, one result on stdout."""

import codecs
import io
import json
import shutil
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress

Advance = Callable[..., None]  # advance(n=1, note="")

FIRST_LINE_AFTER = 2.0  # seconds without a terminal before a step says that it is running
LINE_EVERY = 10.0  # seconds between lines without a terminal
MOST_CLASSES = 20  # lines of classes at a time
MOST_REASONS = 3
BAR, SHORT_BAR, SHORTEST_BAR = 40, 20, 5  # letters
TITLE, BEHIND = 30, 52  # letters that go before a bar, and behind it: count, time, note
LARGEST_WHOLE = 2**53  # up to here all whole numbers are doubles, which JSON's often become
SPELLED = {"→": "->", "…": "...", "×": "x", "–": "-", "—": "-", "±": "+/-", "−": "-", "·": "."}
SPELLED |= {"≤": "<=", "≥": ">=", "“": '"', "”": '"', "‘": "'", "’": "'", "\u00a0": " "}
BOX = 96  # letters of a line of a warning, at most


def no_progress(n: int = 1, note: str = "") -> None:
    """Progress for callers that do not want any."""


def printable(text: str) -> str:
    """Text from the web as a terminal may show it."""
    return "".join(letter for letter in text if letter.isprintable())


def listed(names: Sequence[str], most: int) -> str:
    """The first names with commas, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return printable(", ".join(names[:most])) + more


def printable_lines(text: str) -> str:
    """Text that may quote what is from outside, its lines and tabs kept."""
    return "".join(letter for letter in text if letter.isprintable() or letter in "\n\t")


class Console:
    """Writes for one command: `quiet` silences stderr, `as_json` makes the result one object."""

    def __init__(self, *, quiet: bool = False, as_json: bool = False) -> None:
        self.quiet = quiet
        self.as_json = as_json
        self._notes: list[str] = []
        self._warnings: list[str] = []

    def say(self, text: str) -> None:
        """Says something on stderr now: before what may take long."""
        if not self.quiet:
            print(printable_lines(text), file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        """Says something on stderr after the result and all notes, to the quiet as well."""
        self._warnings.append(text)

    def note(self, text: str) -> None:
        """Says something on stderr, once there is a result: an error stands alone."""
        self._notes.append(text)

    def result(self, text: str, values: dict[str, Any]) -> None:
        """Says what the command achieved, on stdout: `text`, or `values` as one JSON object."""
        if self.as_json:
            print(_as_json(values, sys.stdout.encoding), flush=True)
        elif not self.quiet:
            print(printable_lines(text), flush=True)
        if not self.quiet:
            for note in self._notes:
                print(printable_lines(f"note: {note}"), file=sys.stderr, flush=True)
        for warning in self._warnings:
            text = _boxed(printable_lines(f"warning: {warning}"))
            print(text, file=sys.stderr, flush=True)
        self._notes, self._warnings = [], []

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
    def progress_by_class(
        self, title: str, found: Mapping[str, int], wanted: int
    ) -> Iterator["ClassProgress"]:
        """As `progress`, with a line for each class: its candidates `found`, images `wanted`."""
        if self.quiet:
            yield ClassProgress(title, found, wanted, lambda *_: None)
        elif sys.stderr.isatty():
            with _bars(list(found), wanted) as bars:
                yield ClassProgress(title, found, wanted, bars)
        else:
            yield ClassProgress(title, found, wanted)


def write_any_text() -> None:
    """Lets this process print any text, whatever letters the locale has.

    A run of hours must not end in an error because its last line has an arrow.
    """
    codecs.register_error("spelled", _spelled)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="spelled")


def _spelled(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return "".join(
        SPELLED.get(one) or one.encode("ascii", "backslashreplace").decode() for one in letters
    ), error.end


def _as_json(values: Mapping[str, Any], encoding: str | None = None) -> str:
    """Values as one line, in which a program finds every letter and a terminal no control one."""
    values = _exact(values)
    text = json.dumps(values, ensure_ascii=False)
    try:
        text.encode(encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):  # a locale without these letters
        return json.dumps(values)
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in text)


def _exact(value: Any) -> Any:
    """A value with whole numbers that many readers of JSON would round as text."""
    if isinstance(value, Mapping):
        return {key: _exact(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_exact(one) for one in value]
    return str(value) if isinstance(value, int) and abs(value) > LARGEST_WHOLE else value


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as aligned text: the first column to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])],
        ).rstrip()
        for row in rows
    )


def _boxed(text: str) -> str:
    """Text between two lines, so that it stands out of what is around it."""
    width = min(BOX, shutil.get_terminal_size((BOX, 0)).columns)
    lines = textwrap.wrap(text, max(1, width))
    line = "=" * max(map(len, lines))
    return "\n".join([line, *lines, line])


class ClassProgress:
    """One line a class: what was found, what is good, what failed and why."""

    def __init__(self, title: str, found: Mapping[str, int], wanted: int, bars: Any = None) -> None:
        self.title, self.wanted, self._bars = title, wanted, bars
        self.names, self.found = list(found), list(found.values())
        self.outcomes: list[Counter[str]] = [Counter() for _ in found]
        self._started = time.monotonic()
        self._next_line = self._started + FIRST_LINE_AFTER

    def report(self, label: int, outcome: str) -> None:
        """Counts one candidate of a class: `ok`, or one word for why it is no new image."""
        self.outcomes[label][outcome] += 1
        if self._bars is not None:
            self._bars(label, self.outcomes[label]["ok"], self._note(label))
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_EVERY
            for line in self.lines():
                print(printable(line), file=sys.stderr, flush=True)

    def lines(self) -> list[str]:
        """The classes that are under way, then all together."""
        shown = [
            f"  {name}: {self.outcomes[label]['ok']:,} of {self.wanted:,}, {self._note(label)}"
            for label, name in enumerate(self.names)
            if self.outcomes[label].total() > 0 and self.outcomes[label]["ok"] < self.wanted
        ]
        good = sum(counts["ok"] for counts in self.outcomes)
        left = sum(self.wanted - counts["ok"] for counts in self.outcomes)
        rate = good / max(time.monotonic() - self._started, 1e-9)
        time_left = f", {_duration(left / rate)} left" if rate else ""
        total = self.wanted * len(self.names)
        head = f"{self.title}: {good:,} of {total:,}, {rate:.1f} images/s{time_left}"
        return [head, *shown[:MOST_CLASSES]]

    def _note(self, label: int) -> str:
        counts = self.outcomes[label]
        failed = [(kind, count) for kind, count in counts.most_common() if kind != "ok"]
        reasons = ", ".join(f"{count:,} {kind}" for kind, count in failed[:MOST_REASONS])
        rate = counts["ok"] / max(time.monotonic() - self._started, 1e-9)
        return ", ".join(filter(None, [f"found {self.found[label]:,}", reasons, f"{rate:.1f}/s"]))


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


@contextmanager
def _progress(width: int) -> Iterator["Progress"]:
    """Bars of rich on stderr, each with a note behind it; `width` is a bar's in letters.

    On a narrow terminal bars are short and notes are cut, so that count and time stay.
    """
    from rich.console import Console as RichConsole
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column

    terminal = RichConsole(stderr=True)
    columns = (
        TextColumn("{task.description}", table_column=Column(no_wrap=True, max_width=TITLE)),
        BarColumn(max(SHORTEST_BAR, min(width, terminal.width - TITLE - BEHIND))),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
        TextColumn(
            "{task.fields[note]}",
            table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
        ),
    )
    with Progress(*columns, console=terminal, expand=True) as progress:
        yield progress


@contextmanager
def _bar(title: str, total: int | None) -> Iterator[Advance]:
    from rich.markup import escape

    with _progress(BAR) as progress:
        task = progress.add_task(escape(printable(title)), total=total, note="")
        shown = ""

        def advance(n: int = 1, note: str = "") -> None:
            nonlocal shown
            shown = note or shown
            progress.update(task, advance=n, note=escape(printable(shown)))

        yield advance


@contextmanager
def _bars(names: Sequence[str], wanted: int) -> Iterator[Callable[[int, int, str], None]]:
    from rich.markup import escape

    with _progress(SHORT_BAR) as progress:
        tasks = [
            progress.add_task(
                escape(printable(name)[:24]), total=wanted, note="", visible=row < MOST_CLASSES
            )
            for row, name in enumerate(names)
        ]

        def update(label: int, good: int, note: str) -> None:
            progress.update(tasks[label], completed=good, note=escape(printable(note)))
            waiting = [one for one in progress.tasks if not one.visible and not one.finished]
            if good >= wanted and waiting:
                progress.update(tasks[label], visible=False)
                progress.update(waiting[0].id, visible=True)

        yield update


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
        line = printable(f"{title}: {count}{said and f', {said}'}")
        print(line, file=sys.stderr, flush=True)

    return advance
