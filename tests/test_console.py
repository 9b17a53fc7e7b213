import contextlib
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kd3_pipeline import console as module
from kd3_pipeline.console import Console

ROOT = Path(__file__).parents[1]


def test_a_result_is_text_or_one_json_object_on_stdout(capsys):
    Console().result("3 images → out", {"images": 3})
    Console(as_json=True).result("3 images", {"images": 3, "name": "日本"})
    out, err = capsys.readouterr()
    text, line = out.splitlines()
    assert text == "3 images → out"
    assert json.loads(line) == {"images": 3, "name": "日本"}
    assert err == ""


def test_notes_follow_the_result_on_stderr_unless_quiet(capsys):
    for console in (Console(), Console(quiet=True)):
        console.note("look")
        assert capsys.readouterr() == ("", "")
        console.result("done", {})
        assert capsys.readouterr() == (("", "") if console.quiet else ("done\n", "note: look\n"))


def test_what_is_quoted_from_outside_sends_no_control_characters(capsys):
    console = Console()
    console.say("a\x1b[2J")
    console.note("b\x1b]0;title\x07")
    console.warn("c\x9bd")
    console.result("one\ttwo\nthree\x1b", {})
    out, err = capsys.readouterr()
    assert out == "one\ttwo\nthree\n"
    assert all(letter.isprintable() or letter == "\n" for letter in err)


def test_json_has_every_letter_and_no_control_character_of_a_terminal(capsys):
    values = {"why": "a\x1b[2J\x9bb\u202ec\u3000", "name": "日本 é 💩"}
    Console(as_json=True).result("", values)
    out = capsys.readouterr().out
    assert out.rstrip("\n").isprintable() and "日本 é 💩" in out
    assert json.loads(out) == values


def test_progress_sends_no_control_characters(capsys, clock):
    console = Console()
    with console.progress("crawl\x1b") as advance:
        clock.now += 10
        advance(1, "a\x1b[2J")
    with console.progress_by_class("crawl", {"x\x1b[31m": 1}, 2) as progress:
        clock.now += 10
        progress.report(0, "odd\x9b")
    err = capsys.readouterr().err
    assert "a[2J" in err and "x[31m" in err and "odd" in err
    assert all(letter.isprintable() or letter == "\n" for letter in err)


class Clock:
    """Time that passes when told to."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_without_a_terminal_there_is_a_line_now_and_then(capsys, clock):
    with Console().progress("crawl: fetching", 2000) as advance:
        for _ in range(60):
            clock.now += 1
            advance(20, "busy")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        f"crawl: fetching: {count} of 2,000, busy"
        for count in ("40", "240", "440", "640", "840", "1,040")
    ]


def test_a_step_without_a_known_end_counts(capsys, clock):
    with Console().progress("reading") as advance:
        clock.now += 5
        advance(1234)
    assert capsys.readouterr().err == "reading: 1,234\n"


def test_a_short_step_says_nothing(capsys, clock):
    with Console().progress("reading", 3) as advance:
        advance()
        clock.now += 1.9
        advance(2)
    assert capsys.readouterr() == ("", "")


def test_quiet_shows_no_progress(capsys, clock):
    with Console(quiet=True).progress("reading", 3) as advance:
        clock.now += 50
        advance(3, "x")
    assert capsys.readouterr() == ("", "")


def test_an_error_in_a_step_comes_through():
    with pytest.raises(ValueError, match="bug"), Console().progress("reading", 3):
        raise ValueError("bug")


def test_progress_by_class_says_what_failed_and_how_long_it_takes(capsys, clock):
    with Console().progress_by_class("crawl", {"cat": 30, "dog": 20, "emu": 9}, 10) as progress:
        for _ in range(4):
            clock.now += 1
            progress.report(0, "ok")
        clock.now += 8
        for outcome in ("timeout", "timeout", "http_error", "ok"):
            progress.report(1, outcome)
    assert capsys.readouterr().err.splitlines() == [
        "crawl: 2 of 30, 1.0 images/s, 28 s left",
        "  cat: 2 of 10, found 30, 1.0/s",
        "crawl: 4 of 30, 0.3 images/s, 78 s left",
        "  cat: 4 of 10, found 30, 0.3/s",
        "  dog: 0 of 10, found 20, 1 timeout, 0.0/s",
    ]


def test_a_class_that_is_complete_or_has_not_begun_takes_no_line(capsys, clock):
    with Console().progress_by_class("crawl", {"cat": 3, "dog": 3, "emu": 3}, 1) as progress:
        progress.report(0, "ok")
        clock.now += 5
        progress.report(1, "timeout")
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == [
        "crawl",
        "  dog",
    ]


def test_without_classes_all_images_are_one_line(capsys, clock):
    with Console().progress_by_class("crawl", {"images": 9}, 9) as progress:
        clock.now += 5
        progress.report(-1, "ok")
    assert "images: 1 of 9" in capsys.readouterr().err


PROGRAM = """
from kd3_pipeline.console import Console
with Console().progress("crawl [red]x[/nope]", 3) as advance:
    advance(2, "[bold]hostile[/] \\x1b[2Jnote")
    advance(1)
names = {f"[i]{n}[/x]": 7 for n in range(25)}
with Console().progress_by_class("crawl", names, 2) as progress:
    for label in range(25):
        for outcome in ("ok", "[b]\\x1b[2Jodd[/]", "ok"):
            progress.report(label, outcome)
Console().result("done", {})
"""


def test_on_a_terminal_there_is_a_bar_and_text_is_no_markup():
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=os.environ | {"COLUMNS": "150", "TERM": "xterm"},
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    out, _ = process.communicate(timeout=20)
    os.close(ours)
    assert (process.returncode, out) == (0, b"done\n")
    assert b"crawl [red]x[/nope]" in shown
    assert b"[bold]hostile[/] [2Jnote" in shown
    assert b"\x1b[2J" not in shown
    assert b"3/3" in shown
    assert b"[i]24[/x]" in shown
    assert b"found 7, 1 [b][2Jodd[/]" in shown
    assert b"2/2" in shown


def test_a_warning_comes_last_and_to_the_quiet_as_well(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    for quiet in (False, True):
        console = Console(quiet=quiet)
        console.warn("half of the images " * 9 + "are missing")
        console.note("a note")
        console.say("before")
        console.result("done", {})
        shown = capsys.readouterr()
        assert shown.out == ("" if quiet else "done\n")
        lines = shown.err.splitlines()
        assert lines[:-4] == ([] if quiet else ["before", "note: a note"])
        assert lines[-4] == lines[-1] == "=" * len(lines[-1])
        assert lines[-3].startswith("warning: half of the images half")
        assert max(map(len, lines)) <= 96
        console.result("again", {})
        assert "warning" not in capsys.readouterr().err


def test_the_box_of_a_warning_is_no_wider_than_the_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    console = Console()
    console.warn("half of the images " * 9 + "are missing")
    console.result("done", {})
    lines = capsys.readouterr().err.splitlines()
    assert max(map(len, lines)) == len(lines[0]) == len(lines[-1]) <= 60


NARROW = """
from kd3_pipeline.console import Console
with Console().progress("dedup: looking for test images among them", 12345) as advance:
    advance(2345, "a note that is longer than what is left of the line")
"""


def test_on_a_narrow_terminal_count_and_time_stay():
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": "60", "TERM": "xterm"}
    with subprocess.Popen([sys.executable, "-c", NARROW], stderr=theirs, env=environment):
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while part := os.read(ours, 4096):
                shown += part
    os.close(ours)
    last = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown.decode()).split("\r")[-1].strip("\n")
    assert "2345/12345" in shown.decode()
    assert re.search(r"-:--:--|\d:\d\d:\d\d", shown.decode())
    assert len(last) <= 60


LOCALE = """
import sys
from kd3_pipeline.console import Console, write_any_text
write_any_text()
Console(as_json="json" in sys.argv).result("embed: Füchse → data/embed …", {"name": "Fuchs 🦊 →"})
"""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_locale_without_letters_stops_nothing(encoding: str):
    def printed(*arguments: str) -> str:
        environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
        command = [sys.executable, "-c", LOCALE, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, check=True)
        return done.stdout.decode(encoding)

    fox = {"ascii": "F\\xfcchse"}.get(encoding, "Füchse")
    arrow, more = ("→", "…") if encoding == "utf-8" else ("->", "...")
    assert printed() == f"embed: {fox} {arrow} data/embed {more}\n"
    assert json.loads(printed("json")) == {"name": "Fuchs 🦊 →"}


def test_json_has_no_number_that_a_reader_rounds(capsys):
    Console(as_json=True).result("", {"hash": 2**63, "rows": [2**53, -(2**53) - 1], "ok": True})
    found = json.loads(capsys.readouterr().out)
    assert found == {"hash": str(2**63), "rows": [2**53, str(-(2**53) - 1)], "ok": True}


def test_quiet_prints_nothing_but_a_result_that_is_asked_for(capsys):
    Console(quiet=True).result("embed: done", {"images": 3})
    assert capsys.readouterr() == ("", "")
    Console(quiet=True, as_json=True).result("embed: done", {"images": 3})
    assert json.loads(capsys.readouterr().out) == {"images": 3}
