"""The canary: pages that are not what was asked for, and lists that two classes share."""

import pytest

from kd3_pipeline.crawl.canary import (
    FEWEST,
    NOUNS,
    SharedLists,
    canary_alarm,
    canary_queries,
    shared,
    wrong_page,
)
from kd3_pipeline.crawl.engines.engine import Query, Result, ResultPage


def results(*numbers: int) -> list[Result]:
    return [Result(f"http://0.test/{number}.jpg") for number in numbers]


@pytest.mark.parametrize(
    ("a", "b", "share"),
    [
        (range(10), range(10), 1.0),
        (range(10), range(5, 20), 0.5),
        (range(4), range(2, 100), 0.5),
        (range(10), range(10, 20), 0.0),
        ((), range(10), 0.0),
        ((), (), 0.0),
        ((1, 1, 1, 2), (1, 3, 3, 3), 0.5),
    ],
)
def test_the_share_is_of_the_smaller_list_and_counts_addresses_once(a, b, share) -> None:
    assert shared(results(*a), results(*b)) == share
    assert shared(results(*b), results(*a)) == share


def test_an_original_is_compared_and_not_its_smaller_picture() -> None:
    small = [Result("http://t.test/320px-1.jpg", original="http://0.test/1.jpg")]
    assert shared(small, results(1)) == 1.0
    other = [Result("http://t.test/320px-1.jpg", original="http://0.test/2.jpg")]
    assert shared(small, other) == 0.0


def test_canary_queries_are_in_no_query_of_the_crawl() -> None:
    assert canary_queries(["cat", "dog"]) == NOUNS[:2]
    assert canary_queries([f"red {NOUNS[0].upper()}s outdoors"]) == NOUNS[1:3]
    assert canary_queries(NOUNS[:-2]) == NOUNS[-2:]


def test_a_crawl_of_every_noun_has_canary_queries_too() -> None:
    assert canary_queries(NOUNS[:-1]) == (NOUNS[-1], NOUNS[0])
    assert len(set(canary_queries(NOUNS))) == 2


def test_the_nouns_are_different_words() -> None:
    assert len(set(NOUNS)) == len(NOUNS)
    assert not [one for one in NOUNS for other in NOUNS if one != other and one in other]


def test_the_canary_fails_on_the_same_list_and_on_a_good_part_of_it() -> None:
    words = ("violin", "cactus")
    assert "100%" in canary_alarm(words, [results(*range(35)), results(*range(35))])
    assert "20%" in canary_alarm(words, [results(*range(10)), results(*range(8, 40))])


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_same_few_results_of_everyday_words_fail_the_canary(count: int) -> None:
    few = results(*range(count))
    assert "100%" in canary_alarm(("violin", "cactus"), [few, few])


def test_the_canary_bears_a_stray_image_and_says_nothing_of_an_empty_page() -> None:
    words = ("violin", "cactus")
    assert not canary_alarm(words, [results(*range(35)), results(*range(34, 69))])
    assert not canary_alarm(words, [results(1, 2, 3), results(3, 4, 5)])
    assert not canary_alarm(words, [results(), results(*range(35))])
    assert not canary_alarm(words, [results(), results()])


@pytest.mark.parametrize(
    "stated",
    ["", "Polar Bear", "polar+bear", " polar  bear", "polar%20bear", "ｐolar bear", '"polar bear"'],
)
def test_a_page_of_the_query_is_right_however_it_is_written(stated: str) -> None:
    assert wrong_page(Query("polar bear"), ResultPage([], None, stated)) == ""
    assert wrong_page("polar bear", ResultPage([], None, stated)) == ""


@pytest.mark.parametrize(
    ("asked", "stated"), [("cat", "dog"), ("cat", "cats"), ("猫", "犬"), ("?", "!"), ("c++", "c d")]
)
def test_a_page_of_another_query_is_wrong_and_named(asked: str, stated: str) -> None:
    said = wrong_page(Query(asked), ResultPage([], None, stated))
    assert f"'{asked}'" in said and f"'{stated}'" in said


def test_an_escaped_sign_is_the_sign() -> None:
    assert wrong_page("rock & roll", ResultPage([], None, "Rock &amp; Roll")) == ""
    assert wrong_page("咖啡 意式", ResultPage([], None, "咖啡+意式")) == ""


def test_a_list_that_two_classes_are_given_is_told_with_both() -> None:
    lists = SharedLists()
    assert lists.add("cat", "kitten", results(*range(35))) == ""
    said = lists.add("dog", "puppy", results(*range(35)))
    assert said == (
        "'kitten' (class 'cat') and 'puppy' (class 'dog') bring the same images: 35 of 35 addresses"
    )


def test_half_a_list_is_told_and_less_is_not() -> None:
    lists = SharedLists()
    lists.add("cat", "kitten", results(*range(100)))
    assert lists.add("dog", "puppy", results(*range(51, 151))) == ""
    assert "50 of 100" in lists.add("bird", "finch", results(*range(-50, 50)))


def test_a_class_may_share_with_itself_and_a_few_addresses_say_nothing() -> None:
    lists = SharedLists()
    lists.add("cat", "kitten", results(*range(35)))
    assert lists.add("cat", "feline", results(*range(35))) == ""
    assert lists.add("dog", "puppy", results(*range(FEWEST - 1))) == ""
    assert "dog" in lists.add("dog", "hound", results(*range(FEWEST)))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("crane", "Crane"),
        ("sunglass", "sunglasses"),
        ("truck", "pickup truck"),
        ("cat", "cats outdoors"),
        ("polar_bear", "bear polar"),
    ],
)
def test_queries_of_which_one_says_more_may_share(one: str, other: str) -> None:
    for first, second in ((one, other), (other, one)):
        lists = SharedLists()
        lists.add("a", first, results(*range(35)))
        assert lists.add("b", second, results(*range(35))) == ""


@pytest.mark.parametrize(
    ("one", "other"), [("cat outdoors", "dog outdoors"), ("cat", "cattle"), ("tree", "truck")]
)
def test_queries_that_only_look_alike_may_not(one: str, other: str) -> None:
    lists = SharedLists()
    lists.add("a", one, results(*range(35)))
    assert lists.add("b", other, results(*range(35))) != ""
