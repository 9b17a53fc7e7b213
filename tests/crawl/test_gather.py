"""Rounds of search and fetch, with an engine and a web that are plain tables."""

from collections.abc import Mapping, Sequence

from kd3_pipeline.crawl.gather import gather
from kd3_pipeline.manifest import NOT_NOW, Candidate, Fetched, manifest


class Web:
    """Results by class, and the image that each address gives; addresses not named give none."""

    def __init__(self, results: Mapping[int, Sequence[str]], images: Mapping[str, str]) -> None:
        self.results, self.images = results, images
        self.asked: list[list[int]] = []
        self.rounds: list[frozenset[str]] = []

    def search(self, wanted: Sequence[int]) -> list[Candidate]:
        self.asked.append(list(wanted))
        return [
            Candidate(label, str(label), "test", "q", rank, url)
            for label, urls in self.results.items()
            for rank, url in enumerate(urls[: wanted[label]])
        ]

    def fetch(
        self, candidates: Sequence[Candidate], refused: frozenset[str]
    ) -> dict[Candidate, Fetched]:
        self.rounds.append(refused)
        return {
            one: Fetched(one.url, "ok", id=self.images[one.url])
            if one.url in self.images
            else Fetched(one.url, "http_error")
            for one in candidates
        }


def no_look(name: str) -> bool:
    raise AssertionError(f"{name} was looked at")


def same(*urls: str) -> dict[str, str]:
    """Each address gives an image of its own."""
    return {url: f"image of {url}" for url in urls}


def test_twice_as_many_results_as_wanted_are_asked_for_first() -> None:
    web = Web({0: "abcdef", 1: "ghijkl"}, same(*"abcdefghijkl"))
    gathered = gather(web.search, web.fetch, 2, 3, 0, no_look)
    assert web.asked == [[6, 6]]
    assert len(gathered.candidates) == len(gathered.found) == 12


def test_a_class_that_is_short_is_asked_for_more_and_no_other() -> None:
    results = {0: "abcd", 1: [f"{n}" for n in range(20)]}
    web = Web(results, same(*"abcd", *(f"{n}" for n in range(6, 20))))
    gathered = gather(web.search, web.fetch, 2, 2, 0, no_look)
    assert web.asked == [[4, 4], [4, 8]]
    assert {one.label for one in gathered.found} == {0, 1}


def test_a_class_that_has_no_more_results_ends_short() -> None:
    web = Web({0: "abc"}, same("a"))
    gathered = gather(web.search, web.fetch, 1, 2, 0, no_look)
    assert web.asked == [[4], [8]]
    assert sum(one.id is not None for one in gathered.found.values()) == 1


def test_a_placeholder_is_put_aside_and_made_up_for() -> None:
    web = Web({0: "abcdefghijklmno"}, {url: "gone" for url in "abcde"} | same(*"fghijklmno"))
    gathered = gather(web.search, web.fetch, 1, 3, 4, lambda name: name == "gone")
    assert gathered.refused.keys() == {"gone"}
    assert web.rounds[-1] == {"gone"}
    rows = manifest(gathered.candidates, gathered.found, gathered.refused).to_pylist()
    assert [row["outcome"] for row in rows[:6]] == ["placeholder"] * 5 + ["stored"]
    assert {row["detail"] for row in rows[:5]} == {gathered.refused["gone"]}
    assert "5 paths" in gathered.refused["gone"] and rows[5]["detail"] == ""


def test_placeholders_may_be_kept() -> None:
    web = Web({0: "abcdef"}, {url: "same" for url in "abcdef"})
    gathered = gather(web.search, web.fetch, 1, 1, 0, lambda _: True)
    assert gathered.refused == {}


def test_without_classes_there_is_one_round() -> None:
    candidates = [Candidate(-1, "", "urls", "", rank, url) for rank, url in enumerate("ab")]
    web = Web({}, same(*"ab"))
    gathered = gather(lambda _: candidates, web.fetch, 0, 2, 5, no_look)
    assert len(web.rounds) == 1
    assert len(gathered.found) == 2


def test_images_that_are_put_off_are_not_made_up_for() -> None:
    """Their host is asked by the next run; more results of the same host would not help."""
    web = Web({0: [f"{n}" for n in range(100)]}, same("0", "1"))

    def fetch(candidates: Sequence[Candidate], refused: frozenset[str]) -> dict[Candidate, Fetched]:
        found = web.fetch(candidates, refused)
        later = {one: Fetched(one.url, NOT_NOW) for one in found if one.url not in web.images}
        return found | later

    gathered = gather(web.search, fetch, 1, 4, 0, no_look)
    assert web.asked == [[8]]
    assert len(gathered.candidates) == 8


def test_where_too_few_are_put_off_more_is_asked_for() -> None:
    web = Web({0: [f"{n}" for n in range(100)]}, same("0", *(f"{n}" for n in range(8, 100))))

    def fetch(candidates: Sequence[Candidate], refused: frozenset[str]) -> dict[Candidate, Fetched]:
        return web.fetch(candidates, refused) | {
            one: Fetched(one.url, NOT_NOW) for one in candidates if one.url in ("1", "2")
        }

    gather(web.search, fetch, 1, 4, 0, no_look)
    assert web.asked == [[8], [16]]


class Fetches(Web):
    """A web of which each class is asked only for as many images as it wants, as `fetch` does."""

    def __init__(self, per_class: int, results: Mapping[int, Sequence[str]], images: dict) -> None:
        super().__init__(results, images)
        self.per_class = per_class

    def fetch(
        self, candidates: Sequence[Candidate], refused: frozenset[str]
    ) -> dict[Candidate, Fetched]:
        every, found, distinct = super().fetch(candidates, refused), {}, {}
        for one in candidates:
            ids = distinct.setdefault(one.label, set())
            if len(ids) < self.per_class:
                found[one] = every[one]
                if every[one].id not in {None, *refused}:
                    ids.add(every[one].id)
        return found


def test_an_image_of_an_earlier_class_is_made_up_for() -> None:
    shared = {"x1": "same 1", "x2": "same 2"}
    web = Fetches(
        3,
        {0: ["x1", "a", "x2", "b", "c"], 1: ["x1", "x2", "d", "e", "f", "g"]},
        same(*"abcdefg") | shared,
    )
    gathered = gather(web.search, web.fetch, 2, 3, 0, no_look)
    rows = manifest(gathered.candidates, gathered.found).to_pylist()
    outcomes = [(row["url"], row["outcome"]) for row in rows if row["label"] == 1]
    assert outcomes == [
        *(("x1", "duplicate"), ("x2", "duplicate")),
        *((url, "stored") for url in "def"),
        ("g", "not_needed"),
    ]
    assert web.asked == [[6, 6], [6, 6]]


def test_where_a_class_has_nothing_but_images_of_another_it_ends_short() -> None:
    web = Fetches(2, {0: "abcd", 1: "abcd"}, same(*"abcd"))
    gathered = gather(web.search, web.fetch, 2, 2, 0, no_look)
    rows = manifest(gathered.candidates, gathered.found).to_pylist()
    stored = [(row["label"], row["url"]) for row in rows if row["outcome"] == "stored"]
    assert stored == [(0, "a"), (0, "b"), (1, "c"), (1, "d")]
    web = Fetches(4, {0: "abcd", 1: "abcd"}, same(*"abcd"))
    gathered = gather(web.search, web.fetch, 2, 4, 0, no_look)
    rows = manifest(gathered.candidates, gathered.found).to_pylist()
    assert [row["outcome"] for row in rows] == ["stored"] * 4 + ["duplicate"] * 4
