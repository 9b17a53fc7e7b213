"""Variations of a query that is exhausted: which are asked, in which order, and when they end."""

import random
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import pytest

from kd3_pipeline.classes import ClassSet, ImageClass
from kd3_pipeline.crawl import result_pages as pages_module
from kd3_pipeline.crawl.class_search import FRUITLESS, NO_FILTER
from kd3_pipeline.crawl.engines.bing import Bing
from kd3_pipeline.errors import ExternalError
from tests.crawl.hosts import Host, serving
from tests.crawl.searching import PATH, PLAIN, find, images, page, searched

FILTERS = replace(PLAIN, filters=True)
EXPANSIONS = replace(PLAIN, expand="listed")
BOTH = replace(FILTERS, expand="listed")
CAT = ClassSet("", (ImageClass("cat", ("cat",), ("feline",), ("outdoors", "asleep")),))


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(pages_module, "RETRY_PAUSE", 0.001)


class Bings(Bing):
    """Bing with three filters."""

    variants = ("type-photo", "size-large", "date-pastyear")


def engine():
    return Bings("test", f"http://0.test{PATH}", 0.0)


def answering(answer):
    """A search engine that gives `answer(query, filter, first)`, the filter as Bing writes it."""
    host = Host()

    def route(request):
        fields = parse_qs(urlsplit(request.path).query)
        words = fields.get("qft", [""])[0].rpartition(":")[2]
        found = answer(fields["q"][0], words, int(fields["first"][0]))
        request.reply(*((found,) if isinstance(found, bytes) else (b"oops", found)))

    host.routes[PATH] = route
    return host


def asked(host):
    """(query, filter, offset) of every request."""
    found = []
    for target in host.targets:
        fields = parse_qs(urlsplit(target).query)
        words = fields.get("qft", [""])[0].rpartition(":")[2]
        found.append((fields["q"][0], words.rpartition("-")[2], int(fields["first"][0])))
    return found


def cut(total, size=20, at=0):
    """An answer of `total` results a query and filter, all of them different."""

    def answer(query, words, first):
        return images(f"{query} {words}", range(first, min(first + size, total)))

    return answer


def variants(found):
    """Candidates by variant, in the order of the variants' first ones."""
    return list(Counter(one.variant for one in found).items())


def test_a_class_that_is_full_is_not_varied(tmp_path):
    with serving(host := answering(cut(100))) as hosts:
        found = find(hosts, engine(), CAT, 60, tmp_path, manner=BOTH)
    assert variants(found) == [("", 60)]
    assert {words for _, words, _ in asked(host)} == {""}


def test_filters_come_one_after_the_other_and_only_as_far_as_needed(tmp_path):
    with serving(answering(cut(30))) as hosts:
        found = find(hosts, engine(), CAT, 100, tmp_path, manner=BOTH)
        # three fifths of what is wanted: the rest is surplus, which no filter has to bring
        assert variants(found) == [("", 30), ("type-photo", 30)]
        more = find(hosts, engine(), CAT, 200, tmp_path, manner=BOTH)
    assert more[: len(found)] == found
    assert variants(more) == [(name, 30) for name in ("", *Bings.variants)]
    assert {one.query for one in more} == {"cat"}


def test_then_expansions_take_turns(tmp_path):
    with serving(host := answering(cut(30))) as hosts:
        found = find(hosts, engine(), CAT, 130, tmp_path, manner=EXPANSIONS)
    names = ["synonym", "context-outdoors", "context-asleep"]
    assert variants(found) == [("", 30), *((name, 20) for name in names)][: len(variants(found))]
    assert [entry for entry in asked(host) if entry[0] != "cat"] == [
        ("feline", "", 0),
        ("cat outdoors", "", 0),
        ("cat asleep", "", 0),
    ][: len(variants(found)) - 1]
    with serving(answering(cut(30))) as hosts:
        found = find(hosts, engine(), CAT, 1000, tmp_path / "all", manner=EXPANSIONS)
    order = [one.variant for one in found if one.variant]
    rounds = [name for number in (20, 10) for name in names for _ in range(number)]
    assert order == rounds
    assert [one.rank for one in found if one.variant == "synonym"] == list(range(30))


def test_a_second_search_asks_nothing_and_finds_the_same(tmp_path):
    with serving(host := answering(cut(30))) as hosts:
        found = find(hosts, engine(), CAT, 1000, tmp_path, manner=BOTH)
        before = len(host.targets)
        assert find(hosts, engine(), CAT, 1000, tmp_path, manner=BOTH) == found
    assert len(host.targets) == before
    assert len(found) == 30 * 7


def test_filters_that_change_nothing_are_given_up_soon(tmp_path):
    with serving(host := answering(lambda query, words, first: images(query, range(12)))) as hosts:
        found, account = searched(hosts, engine(), CAT, 1000, tmp_path, manner=FILTERS)
    assert len(found) == 12
    queries = account.classes[0].queries
    assert [one.ended for one in queries[1:]] == [NO_FILTER] * FRUITLESS
    assert account.classes[0].given_up == ("filters",)
    # the query's first page, its second twice, and a page of each filter
    assert len(host.targets) == 3 + FRUITLESS


def test_a_filter_of_the_same_ranking_is_followed_as_far_as_the_query_was(tmp_path):
    def answer(query, words, first):
        """80 results of a query; of every filter the even numbers, of twice as many."""
        numbers = range(0, 160, 2) if "photo" in words else range(80)
        return images(query, numbers[first : first + 20])

    with serving(answering(answer)) as hosts:
        found, account = searched(hosts, engine(), CAT, 1000, tmp_path, manner=FILTERS)
    assert variants(found) == [("", 80), ("type-photo", 40)]
    photo = account.classes[0].queries[1]
    assert (photo.results, photo.brought) == (80, 40)


def test_a_filter_that_brings_nothing_new_for_long_is_left(tmp_path):
    def answer(query, words, first):
        """Every filter has what the query has, and in another order."""
        numbers = range(39, -1, -1) if words else range(40)
        return images(query, numbers[first : first + 10])

    with serving(host := answering(answer)) as hosts:
        found, account = searched(hosts, engine(), CAT, 1000, tmp_path, manner=FILTERS)
    assert variants(found) == [("", 40)]
    assert account.classes[0].given_up == ("filters",)
    assert len(host.targets) <= 6 + FRUITLESS * 6


def test_a_kind_of_expansion_that_brings_nothing_new_is_given_up(tmp_path):
    contexts = tuple(f"at {n}" for n in range(30))
    classes = ClassSet("", (ImageClass("cat", ("cat",), (), contexts),))
    with serving(host := answering(lambda query, words, first: images("x", range(12)))) as hosts:
        found, account = searched(hosts, engine(), classes, 1000, tmp_path, manner=EXPANSIONS)
    assert len(found) == 12
    assert account.classes[0].given_up == ("contexts",)
    assert len(host.targets) == 3 + FRUITLESS


def test_a_query_without_results_is_not_filtered_but_expanded(tmp_path):
    def answer(query, words, first):
        return page() if query == "cat" else cut(5)(query, words, first)

    with serving(host := answering(answer)) as hosts:
        found = find(hosts, engine(), CAT, 100, tmp_path, manner=BOTH)
    assert variants(found) == [("synonym", 5), ("context-outdoors", 5), ("context-asleep", 5)]
    assert {words for _, words, _ in asked(host)} == {""}


def test_variations_without_results_are_not_asked_for_by_every_run(tmp_path):
    def answer(query, words, first):
        """The query itself, one filter and one context have results; the other ones have none."""
        given = "large" in words or (query in ("cat", "cat asleep") and not words)
        return cut(20)(query, words, first) if given else page()

    with serving(host := answering(answer)) as hosts:
        found, account = searched(hosts, engine(), CAT, 1000, tmp_path, manner=BOTH)
        before = len(host.targets)
        assert find(hosts, engine(), CAT, 1000, tmp_path, manner=BOTH) == found
    assert variants(found) == [("", 20), ("size-large", 20), ("context-asleep", 20)]
    assert Counter(one.ended for one in account.classes[0].queries)["no results, twice"] == 4
    assert len(host.targets) == before


def test_what_was_put_off_is_not_varied(tmp_path):
    with serving(
        host := answering(lambda q, words, n: 503 if n else images(q, range(20)))
    ) as hosts:
        found, account = searched(hosts, engine(), CAT, 100, tmp_path, manner=BOTH)
    assert len(found) == 20 and account.waiting == 1
    assert len(host.targets) == 4


def test_a_variation_that_is_put_off_is_counted_and_gone_on_with(tmp_path):
    well = []

    def answer(query, words, first):
        return 503 if "large" in words and not well else cut(30)(query, words, first)

    with serving(answering(answer)) as hosts:
        found, account = searched(hosts, engine(), CAT, 1000, tmp_path, manner=FILTERS)
        assert account.waiting == 1
        assert variants(found) == [("", 30), ("type-photo", 30), ("date-pastyear", 30)]
        well.append(True)
        found, account = searched(hosts, engine(), CAT, 1000, tmp_path, manner=FILTERS)
    assert account.waiting == 0
    assert variants(found) == [(name, 30) for name in ("", *Bings.variants)]


def test_what_is_logged_is_used_though_the_engine_is_down(tmp_path):
    with serving(answering(cut(30))) as hosts:
        expected = find(hosts, engine(), CAT, 1000, tmp_path, manner=FILTERS)
    two = ClassSet("", (ImageClass("dog", ("dog",)), *CAT.classes))
    with serving(answering(lambda query, words, first: 503)) as hosts:
        patient = replace(FILTERS, patience=0.0)
        found, account = searched(hosts, engine(), two, 1000, tmp_path, manner=patient)
    assert [replace(one, label=0) for one in found] == expected
    assert account.waiting == 1 and [one.results for one in account.classes] == [0, 120]


@pytest.mark.parametrize("seed", range(4))
def test_after_any_refusals_the_end_is_that_of_a_search_without(tmp_path, seed):
    classes = ClassSet("", (ImageClass("dog", ("dog", "puppy"), ("hound",)), *CAT.classes))
    rng, ill = random.Random(seed), [True]

    def answer(query, words, first):
        return 503 if ill and rng.random() < 0.6 else cut(45)(query, words, first)

    with serving(answering(cut(45))) as hosts:
        expected = find(hosts, engine(), classes, 250, tmp_path / "well", manner=BOTH)
    with serving(host := answering(answer)) as hosts:
        waiting = 0
        for _ in range(4):
            with suppress(ExternalError):  # not a single answer
                _, account = searched(hosts, engine(), classes, 250, tmp_path / "ill", manner=BOTH)
                waiting += account.waiting
        assert waiting
        ill.clear()
        assert find(hosts, engine(), classes, 250, tmp_path / "ill", manner=BOTH) == expected
        before = len(host.targets)
        assert find(hosts, engine(), classes, 250, tmp_path / "ill", manner=BOTH) == expected
    assert len(host.targets) == before
