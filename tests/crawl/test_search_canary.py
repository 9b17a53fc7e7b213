"""A search that is given other pages than it asks for: before its first page, and on its way."""

from dataclasses import replace

import pytest

from kd3_pipeline.crawl.canary import NOUNS
from kd3_pipeline.errors import ExternalError
from tests.crawl.hosts import serving
from tests.crawl.searching import (
    PLAIN,
    answering,
    asked,
    bing,
    find,
    images,
    page,
    paged,
    searched,
)

CHECKED = replace(PLAIN, canary=True)
DECOY = images("decoy", range(20))

pytestmark = pytest.mark.usefixtures("short_pauses")


def test_two_unrelated_queries_are_asked_before_the_first_page_and_no_other(tmp_path):
    with serving(host := answering(paged(20))) as hosts:
        find(hosts, bing(), ["cat", "dog"], 20, tmp_path, manner=CHECKED)
        assert asked(host) == [(NOUNS[0], 0), (NOUNS[1], 0), ("cat", 0), ("dog", 0)]
        find(hosts, bing(), ["cat", "dog"], 20, tmp_path, manner=CHECKED)
        assert len(asked(host)) == 4, "nothing was asked for, so nothing was to be checked"


def test_an_engine_that_answers_all_the_same_is_not_crawled(tmp_path):
    with (
        serving(host := answering(lambda query, first: DECOY)) as hosts,
        pytest.raises(ExternalError) as caught,
    ):
        find(hosts, bing(), ["cat", "dog"], 20, tmp_path, manner=CHECKED)
    assert f"'{NOUNS[0]}' and '{NOUNS[1]}'" in str(caught.value)
    assert caught.value.exit_code == 3
    assert (tmp_path / "unreadable.html").read_bytes() == DECOY
    assert len(asked(host)) == 2


def test_who_cannot_be_checked_is_not_asked(tmp_path):
    with (
        serving(host := answering(lambda query, first: 503)) as hosts,
        pytest.raises(ExternalError, match="it answered 503"),
    ):
        find(hosts, bing(), ["cat", "dog"], 20, tmp_path, manner=CHECKED)
    assert {query for query, _ in asked(host)} == {NOUNS[0]}


def test_a_list_that_two_classes_are_given_stops_the_search_and_is_forgotten(tmp_path):
    true = []

    def answer(query, first):
        decoy = query in ("dog", "owl") and not true
        return DECOY if decoy else paged(20)(query, first)

    with serving(host := answering(answer)) as hosts:
        with pytest.raises(ExternalError) as caught:
            find(hosts, bing(), ["cat", "dog", "owl"], 20, tmp_path, manner=CHECKED)
        assert "'dog' (class 'dog') and 'owl' (class 'owl')" in str(caught.value)
        assert (tmp_path / "unreadable.html").read_bytes() == DECOY
        true.append(True)
        before = len(asked(host))
        found = find(hosts, bing(), ["cat", "dog", "owl"], 20, tmp_path, manner=CHECKED)
    assert len({one.url for one in found}) == 60
    assert asked(host)[before + 2 :] == [("dog", 0), ("owl", 0)], "cat was true"


def test_a_list_that_two_classes_are_given_after_true_pages_stops_the_search(tmp_path):
    true = []

    def answer(query, first):
        if first >= 40 and not true and query in ("cat", "owl"):
            return images("decoy", range(first, first + 20))
        return paged(100)(query, first)

    with serving(host := answering(answer)) as hosts:
        with pytest.raises(ExternalError, match=r"'cat' .class 'cat'. and 'owl' "):
            find(hosts, bing(), ["cat", "dog", "owl"], 60, tmp_path, manner=CHECKED)
        true.append(True)
        before = len(asked(host))
        found = find(hosts, bing(), ["cat", "dog", "owl"], 60, tmp_path, manner=CHECKED)
    assert len({one.url for one in found}) == 180
    assert not any("decoy" in one.url for one in found)
    assert {query for query, _ in asked(host)[before + 2 :]} == {"cat", "owl"}, "dog was true"


def test_the_few_results_that_are_left_of_a_later_page_may_be_another_class_s(tmp_path):
    def answer(query, first):
        if first == 20:
            return images("shared", range(9))
        return images(query, range(20)) if first < 20 else page()

    with serving(answering(answer)) as hosts:
        found = find(hosts, bing(), ["cat", "dog"], 40, tmp_path, manner=CHECKED)
    assert len(found) == 2 * 29


def test_queries_with_a_word_in_common_may_be_given_the_same_by_an_engine_that_is_true(tmp_path):
    def answer(query, first):
        return images(query.split()[0], range(20))

    classes = {"cat": ["small cat"], "dog": ["small dog"]}
    with serving(host := answering(answer)) as hosts:
        for _ in range(2):
            assert len(find(hosts, bing(), classes, 20, tmp_path, manner=CHECKED)) == 40
    checks = [query for query, _ in asked(host) if query in NOUNS]
    assert checks == [*NOUNS[:2], *NOUNS[:2]], "once more when it looked like a decoy"


def test_queries_with_a_word_in_common_do_not_hide_a_decoy(tmp_path):
    seen = []

    def answer(query, first):
        seen.append(query)
        return DECOY if len(seen) > 2 else paged(20)(query, first)

    with (
        serving(answering(answer)) as hosts,
        pytest.raises(ExternalError, match="100% of the addresses"),
    ):
        find(hosts, bing(), {"a": ["small cat"], "b": ["small dog"]}, 20, tmp_path, manner=CHECKED)
    with serving(answering(paged(20))) as hosts:
        found = find(
            hosts, bing(), {"a": ["small cat"], "b": ["small dog"]}, 20, tmp_path, manner=CHECKED
        )
    assert len({one.url for one in found}) == 40


def test_a_page_of_another_query_is_asked_for_once_more_and_then_put_off(tmp_path):
    def answer(query, first):
        wrong = query == "dog"
        text = images(query, range(20)).decode()
        address = f"/images/async?q={'wallpaper' if wrong else query}&amp;first=20"
        return text.replace("<div ", f'<div data-nextUrl="{address}" ', 1).encode()

    with serving(host := answering(answer)) as hosts:
        found, account = searched(hosts, bing(), ["cat", "dog"], 20, tmp_path, manner=CHECKED)
    assert {one.class_name for one in found} == {"cat"}
    assert "answer to 'wallpaper'" in account.classes[1].queries[0].ended
    assert account.waiting == 1
    assert asked(host)[2:] == [("cat", 0), ("dog", 0), ("dog", 0)]


def test_without_the_check_what_comes_is_taken(tmp_path):
    with serving(host := answering(lambda query, first: DECOY if not first else page())) as hosts:
        assert len(find(hosts, bing(), ["cat", "dog"], 20, tmp_path)) == 40
    assert {query for query, _ in asked(host)} == {"cat", "dog"}
