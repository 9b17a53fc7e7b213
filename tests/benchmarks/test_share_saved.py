"""The share benchmark in small, without a browser: what ours saves, and how shares are counted."""

import sys

import pytest

from benchmarks.share_cases import cases
from benchmarks.share_saved import Place, main, measured, ours, share, table
from benchmarks.share_web import Case, serving

WHOLE = {"signed addresses", "spaces and letters", "colour profiles"}
NONE = {"no pictures", "left on purpose"}


def test_there_are_200_addresses_each_with_bytes_of_its_own():
    listed = cases(0)
    assert len(listed) == len({case.url for case in listed}) == 200
    files = [case.files[0] for case in listed if case.files]
    assert len(files) == len(set(files)) > 180
    again = [case for case in cases(0) if case.name != "animated AVIF"]  # it has a date inside
    assert [one.files for one in again if one not in listed] == []
    assert files[0] != cases(1)[0].files[0]


def test_ours_saves_the_pictures_and_nothing_else(tmp_path):
    listed = [case for case in cases(0) if case.kind in WHOLE | NONE]
    with serving(listed) as (server, port):
        saved = ours(Place(listed, port, tmp_path, ""))
    got = {case.name: one for case, one in zip(listed, saved, strict=True)}
    assert got == {case.name: case.kind in WHOLE for case in listed}
    asked = {target for name, target in server.asked if name == "signed.test"}
    listed_so = {case.url.removeprefix("http://signed.test") for case in listed}
    assert asked - listed_so == {"/robots.txt", "/.well-known/tdmrep.json"}


def test_what_a_client_stored_is_known_by_its_bytes(tmp_path):
    listed = [case for case in cases(0) if case.kind == "lengths and ends"]
    cut = next(case for case in listed if case.name == "2 bytes too few")
    stored = Place(listed, 0, tmp_path, "").stored([listed[0].files[0], cut.files[1], b"else"])
    assert [case.name for case, one in zip(listed, stored, strict=True) if one] == [
        listed[0].name,
        cut.name,
    ]


def test_shares_are_of_what_is_shown_and_what_is_left_on_purpose_is_told(capsys):
    listed = [Case("kind", name, f"http://{name}.test/") for name in "abcd"]
    listed[2].refused = "a rule"
    found = {"browser": [True, True, True, False], "ours": [True, False, False, True]}
    assert share(found["browser"], found["ours"], [True] * 4) == (1, 3)
    table(listed, found | {"whole": [True, True, True, False]}, ["browser", "ours"])
    output = capsys.readouterr().out
    assert "| kind | 4 | 3 | 2 |" in output
    assert "| ours | 1 of 3 (33.3%) | 1 of 2 (50.0%) | 0 | 1 |" in output


def test_what_is_not_there_is_left_out_loudly(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("benchmarks.share_saved.CHROMIUM", tmp_path / "none")
    monkeypatch.setattr("benchmarks.share_saved.measured", lambda *_: ([], {}))
    monkeypatch.setattr(sys, "argv", ["share_saved", "--arms", "browser,img2dataset"])
    main()
    output = capsys.readouterr().out
    assert "img2dataset is LEFT OUT" in output and "the browser is LEFT OUT" in output


@pytest.mark.slow
def test_icrawler_gets_the_same_list(monkeypatch):
    few = [case for case in cases(0) if case.kind == "statuses"]
    monkeypatch.setattr("benchmarks.share_saved.cases", lambda seed: few)
    _, found = measured(["ours", "icrawler"], 0, "")
    assert sum(found["ours"]) == 4 and found["icrawler"][0] is False
    assert [case.name for case, one in zip(few, found["icrawler"], strict=True) if one]
