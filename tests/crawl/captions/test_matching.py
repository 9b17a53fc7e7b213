"""Captions name a class by whole words, whatever the signs and the script."""

from collections.abc import Sequence

import pyarrow as pa
import pytest

from kd3_pipeline.classes import ImageClass
from kd3_pipeline.crawl.captions import matching
from kd3_pipeline.crawl.captions.matching import CaptionMatcher


def matched(queries: dict[str, Sequence[str]], captions: list[str | None]) -> dict[str, str]:
    """The class of each caption that names one, with a star if it names others, too."""
    matcher = CaptionMatcher([ImageClass(name, tuple(asked)) for name, asked in queries.items()])
    hits = matcher.hits(pa.array(captions, pa.large_string()))
    names = list(queries)
    return {
        captions[row] or "": names[matcher.labels[query]] + "*" * bool(several)
        for row, query, several in zip(
            hits.rows.tolist(), hits.queries.tolist(), hits.several.tolist(), strict=True
        )
    }


@pytest.fixture(params=["filtered", "looked up"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of matching find the same."""
    if request.param == "looked up":
        monkeypatch.setattr(matching, "FILTERED_BY", 0)


@pytest.mark.parametrize(
    ("query", "yes", "no"),
    [
        ("cat", ["cat", "A CAT.", "cat's eye", "(cat)", "my_cat_1.jpg"], ["cats", "concat", "cät"]),
        ("cat", ["“cat”", "猫 cat 猫", "x\x00cat\x1b[31m"], ["cat9", "éc at", "écat", "caté", ""]),
        (
            "red fox",
            ["Red-Fox", "a red  fox", "red_fox"],
            ["red", "fox red", "redfox", "red a fox"],
        ),
        ("cat photo", ["a cat", "photo of a cat"], ["photo"]),
        ("photo", ["a photo"], ["a cat"]),
        ("C++ photo", ["a c++ book"], ["photo of c"]),
        ("aquarium_fish", ["an aquarium fish"], ["aquarium", "aquariumfish"]),
        ("C++", ["learn C++ now", "c++"], ["c", "C+", "C++11", "a-c"]),
        ("AT&T", ["AT&T store", "at&t"], ["at t", "AT&TX", "at & t"]),
        (".NET", ["a .net book"], ["example.net", "net"]),
        ("[a-z]+ (x|y)", ["[A-Z]+ (x|y)"], ["abc x", "a"]),
        ("\\d.*", ["\\D.*"], ["5", "d"]),
        ("école", ["ÉCOLE", "e\u0301cole", "l'école"], ["ecole", "écoles"]),
        ("straße", ["Straße"], ["strasse"]),
        ("猫", ["一只可爱的猫", "猫", "黒猫です"], ["犬"]),
        ("고양이", ["귀여운 고양이가 있다"], ["강아지"]),
        ("🐱", ["a 🐱 here"], ["a 🐶"]),
        ("t-shirt", ["T-Shirt", "t shirt"], ["tshirt", "shirt"]),
    ],
)
def test_a_query_matches_whole_words_only(query: str, yes: list[str], no: list[str]) -> None:
    assert list(matched({"it": [query]}, [*yes, None, *no])) == yes


def test_a_match_within_a_longer_one_of_another_class_counts_for_nothing() -> None:
    queries = {"dog": ["dog"], "hot dog": ["hot dog"], "c": ["c"], "c++": ["c++"], "猫": ["猫"]}
    queries |= {"熊猫": ["熊猫"]}
    captions = ["a dog", "a hot dog", "c", "c++", "猫", "大熊猫"]
    classes = ["dog", "hot dog", "c", "c++", "猫", "熊猫"]
    assert matched(queries, captions) == dict(zip(captions, classes, strict=True))


def test_a_caption_of_several_classes_goes_to_the_longest_query_and_is_marked() -> None:
    queries = {"cat": ["cat", "kitten"], "bird": ["bird"]}
    found = matched(queries, ["cat and kitten", "a bird and a cat", "bird bird"])
    assert found == {"cat and kitten": "cat", "a bird and a cat": "bird*", "bird bird": "bird"}


def test_classes_that_share_a_query_are_told() -> None:
    matcher = CaptionMatcher([ImageClass("bird", ("crane",)), ImageClass("machine", ("Crane",))])
    assert matcher.shared == [("crane", [0, 1])]


def test_thousands_of_queries_are_told_apart() -> None:
    names = [f"thing{index} of kind {index % 7}" for index in range(3000)]
    captions = [f"here is a {name}, large" for name in names[::50]]
    found = matched({name: [name] for name in names}, [*captions, "thing1 of kind 2", "thing"])
    assert found == dict(zip(captions, names[::50], strict=True))
