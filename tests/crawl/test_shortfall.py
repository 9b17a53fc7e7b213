"""Wanted, got and why: what is said of classes that have fewer images than were asked for."""

import time

import pytest

from kd3_pipeline.crawl.backlog import Backlog, PutOffHost
from kd3_pipeline.crawl.gather import Gathered
from kd3_pipeline.crawl.pack import summary
from kd3_pipeline.crawl.search_account import ClassAccount, QueryAccount, SearchAccount
from kd3_pipeline.crawl.shortfall import (
    MOST_ROWS,
    MOST_TOLD,
    add_shortfall,
    class_table,
    later_line,
    shortfall_lines,
    warning,
)
from kd3_pipeline.crawl.wording import clock
from kd3_pipeline.manifest import Candidate, Fetched, manifest

SOON = time.time() + 600


def own(text, results, ended="", waits=False):
    return QueryAccount(text, "", results, results, ended, waits)


def counted(outcomes, wanted, account=None, backlog=None):
    """The summary of a crawl with these outcomes of each class, in order."""
    found, candidates = {}, []
    for label, (name, kinds) in enumerate(outcomes.items()):
        for rank, kind in enumerate(kinds):
            url = f"http://img.test/{label}/{rank}.jpg"
            one = Candidate(label, name, "test", name, rank, url)
            candidates.append(one)
            record = Fetched(url, kind, id=f"{label}.{rank}" if kind == "ok" else None)
            if kind == "busy":
                record = backlog.take(record, "img.test")
            if kind != "not_needed":
                found[one] = record
    later = backlog.summary(found, wanted) if backlog else {"images": 0, "hosts": {}}
    every = [wanted] * len(outcomes)
    gathered = Gathered(candidates, found, {}, wanted=every, account=account, later=later)
    table = manifest(candidates, found)
    counts = summary(table, list(outcomes))
    add_shortfall(counts, table, gathered)
    return counts


def account(*classes, **changes):
    return SearchAccount("bing", "www.bing.com", classes, **changes)


def test_a_full_class_has_no_why() -> None:
    found = counted({"cat": ["ok"] * 4}, 4, account(ClassAccount("cat", 9, (own("cat", 9),))))
    (cat,) = found["classes"]
    assert (cat["wanted"], cat["stored"], cat["results"], cat["why"]) == (4, 4, 9, "")
    assert cat["queries"] == [
        {"query": "cat", "variant": "", "results": 9, "new": 9, "ended": "enough were found"}
    ]
    assert (found["short"], found["empty"], later_line(found), warning(found)) == ([], [], "", "")
    assert shortfall_lines(found) == []


def test_an_exhausted_class_says_of_how_many_queries_and_variations() -> None:
    queries = (
        own("cat photo", 240, "its limit of 240 results a query"),
        own("kitten", 36, "it repeats itself"),
        QueryAccount("cat photo", "type-photo", 90, 0, "nothing new on 3 pages", False),
        QueryAccount("feline", "synonym", 20, 8, "there are no more", False),
    )
    found = counted(
        {"cat": ["ok", "ok", "http_error", "timeout", "http_error"]},
        4,
        account(ClassAccount("cat", 276, queries, ("filters",))),
    )
    assert found["short"] == []
    assert shortfall_lines(found) == [
        "cat: 2 of 4 images: bing gave 276 results for 2 queries and 2 variations, and none that"
        " are new any more; 240 results a query is its limit; 3 gave none (2 http_error,"
        " 1 timeout)",
        "  'cat photo': 240 results; its limit of 240 results a query",
        "  'kitten': 36 results; it repeats itself",
        "  its 2 variations: 8 new results (synonym 8)",
    ]


def test_images_that_a_host_puts_off_are_told_with_the_time() -> None:
    backlog = Backlog()
    backlog.hosts["img.test"] = PutOffHost("asks for 10 min", SOON)
    found = counted(
        {"cat": ["ok", "busy", "busy", "busy"]},
        4,
        account(ClassAccount("cat", 4, (own("cat", 4),))),
        backlog,
    )
    until = clock(SOON)
    assert found["classes"][0]["why"].startswith(f"3 images put off by img.test until {until}; ")
    assert later_line(found) == (
        f"put off: 3 images (img.test 3): run the same command again after {until}; it asks only"
        " for what is left"
    )
    assert found["later"]["images"] == 3 and found["later"]["pages"] == 0
    assert found["short"] == ["cat"]


def test_pages_that_are_put_off_are_told_with_the_time() -> None:
    waiting = own("dog", 0, "put off: it answered 429", waits=True)
    found = counted(
        {"cat": ["ok"], "dog": []},
        1,
        account(
            ClassAccount("cat", 1, (own("cat", 1),)),
            ClassAccount("dog", 0, (waiting,)),
            waiting=1,
            again_at=SOON,
            stopped="it answered 429, and asks for a pause of 10 min",
        ),
    )
    until = clock(SOON)
    assert found["classes"][1]["why"] == (
        f"1 query of bing put off until {until}: it answered 429, and asks for a pause of 10 min"
    )
    assert later_line(found).startswith(
        f"put off: 1 page of results: run the same command again after {until}"
    )
    assert (found["empty"], found["short"]) == (["dog"], ["dog"])


def test_without_a_time_it_is_in_some_minutes() -> None:
    waiting = own("cat", 1, "put off: it answered 503", waits=True)
    found = counted({"cat": ["ok"]}, 4, account(ClassAccount("cat", 1, (waiting,)), waiting=1))
    assert "again in some minutes" in later_line(found)
    assert found["classes"][0]["why"] == (
        "bing gave 1 result for 1 query; 1 query of bing put off: it answered 503"
    )


def test_whom_an_engine_refuses_for_good_is_not_told_to_try_again() -> None:
    why = "it answered 403: no robots"
    one = ClassAccount("cat", 1, (own("cat", 1, f"refused: {why}", waits=True),))
    found = counted({"cat": ["ok"]}, 4, account(one, waiting=1, refused=why))
    assert f"bing refused 1 query: {why}" in found["classes"][0]["why"]
    assert (later_line(found), found["refused"]) == ("", why)


def test_of_a_list_its_addresses_are_the_reason() -> None:
    found = counted({"cat": ["ok", "http_error"], "dog": []}, 2)
    assert [one["why"] for one in found["classes"]] == [
        "2 addresses listed for it; 1 gave none (http_error)",
        "0 addresses listed for it",
    ]
    assert found["classes"][0]["queries"] == []


def test_the_warning_names_classes_under_half_and_no_others() -> None:
    outcomes = {"cat": ["ok"] * 10, "dog": ["ok"] * 5, "owl": ["ok"] * 4, "\x1b[1mfox": []}
    found = counted(outcomes, 10)
    assert found["short"] == ["owl", "\x1b[1mfox"]
    assert warning(found) == (
        "2 of 4 classes have less than half of the images wanted: owl 4 of 10, [1mfox 0 of 10"
    )


def test_a_table_of_few_classes_has_them_all() -> None:
    found = counted({"cat": ["ok", "timeout"], "dog": ["ok", "ok"]}, 2)
    assert class_table(found).splitlines() == [
        "class  wanted  stored  timeout",
        "cat         2       1        1",
        "dog         2       2        0",
        "all         4       3        1",
    ]


def test_images_without_a_class_have_a_row_so_that_the_rows_add_up() -> None:
    found = counted({"cat": ["ok"], "dog": ["ok", "ok"]}, 2)
    found["outcomes"] = {"stored": 8, "truncated": 1}
    assert class_table(found).splitlines() == [
        "class  wanted  stored  truncated",
        "cat         2       1          0",
        "dog         2       2          0",
        "none                5          1",
        "all         4       8          1",
    ]


@pytest.mark.parametrize("short", [0, 3, 60])
def test_a_table_of_many_classes_has_the_short_ones(short) -> None:
    outcomes = {f"c{n}": ["ok"] * (1 if n < short else 2) for n in range(100)}
    found = counted(outcomes, 2)
    lines = class_table(found).splitlines()
    shown = min(short, MOST_ROWS)
    assert len(lines) == 1 + shown + (short > MOST_ROWS) + 1 + 1
    assert lines[1 + shown + (short > MOST_ROWS)].split() == [
        *(f"{100 - short}", "full", "classes"),
        *(f"{2 * (100 - short)}",) * 2,
    ]
    assert lines[-1].split() == ["all", "200", f"{200 - short}"]
    if short > MOST_ROWS:
        assert lines[1 + shown].startswith(f"{short - MOST_ROWS} more")
        told = shortfall_lines(found)
        assert len(told) == MOST_TOLD + 2 and "40 more classes" in told[-2]


def test_of_many_short_classes_those_that_lack_most_are_told() -> None:
    outcomes = {f"c{n}": ["ok"] * (n % 7) for n in range(70)}
    found = counted(outcomes, 7)
    told = shortfall_lines(found)
    assert [line.split(":")[0] for line in told[:3]] == ["c0", "c7", "c14"]
    assert all(line.split(" of ")[0][-1] in "01" for line in told[:MOST_TOLD])
    assert told[-1] == "reports/crawl.json has every class and query"


def test_without_a_number_wanted_nothing_is_short() -> None:
    gathered = Gathered([], {}, {})
    table = manifest([], {})
    counts = {"outcomes": {}, "classes": [{"name": "cat", "stored": 0, "outcomes": {}}]}
    add_shortfall(counts, table, gathered)
    assert (counts["short"], counts["empty"]) == ([], ["cat"])
    assert counts["classes"][0]["wanted"] is None
    assert class_table(counts).splitlines() == ["class  stored", "cat         0", "all         0"]
