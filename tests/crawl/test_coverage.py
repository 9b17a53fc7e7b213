"""Rounds by coverage on answers that are known: what is asked for, when it ends, what is told."""

import pytest

from kd3_pipeline.crawl.gather import Gathered
from kd3_pipeline.crawl.rounds import by_wanted, cover
from kd3_pipeline.manifest import Candidate, Fetched

NAMES = ["cat", "dog", "emu"]


class Web:
    """Images by class, each shown as the class that its name says; `asked` keeps what was wanted.

    An image is the label that the teacher sees, None for no class of the crawl.
    """

    def __init__(self, *shows):
        self.shows, self.asked, self.shown = shows, [], []

    def gather(self, wanted):
        self.asked.append(list(wanted))
        found = {}
        for label, images in enumerate(self.shows):
            for rank, seen in enumerate(images[: wanted[label]]):
                url = f"http://x/{label}/{rank}/{seen}"
                candidate = Candidate(label, "", "bing", "q", rank, url)
                found[candidate] = Fetched(url, "ok", id=url)
        return Gathered(list(found), found, {})

    def see(self, ids):
        self.shown += ids
        last = [one.rpartition("/")[2] for one in ids]
        return [None if one == "None" else int(one) for one in last]

    def covered(self, rounds, known=(True, True, True), per_class=10):
        return cover(self.gather, self.see, NAMES, known, per_class, rounds)


def test_a_class_that_the_teacher_sees_enough_is_not_asked_for_again():
    web = Web([0] * 30, [1] * 5 + [0] * 25, [2] * 30)
    gathered, coverage = web.covered(rounds=3)
    assert web.asked == [[10, 10, 10]]
    assert len(gathered.candidates) == 30
    assert (coverage.seen, coverage.starved) == ([15, 5, 10], [])
    assert coverage.ended == "no class is starved" and coverage.rounds == []


def test_a_starved_class_is_asked_for_what_it_lacks():
    web = Web([0] * 30, [1] * 4 + [0] * 6 + [1] * 20, [2] * 30)
    gathered, coverage = web.covered(rounds=3)
    assert web.asked == [[10, 10, 10], [10, 16, 10]]
    assert coverage.more == [0, 6, 0] and coverage.rounds == [(6, 6)]
    assert (coverage.stored, coverage.seen) == ([10, 16, 10], [16, 10, 10])
    assert len(gathered.candidates) == 36


def test_images_of_other_classes_count_for_what_the_teacher_sees():
    web = Web([0] * 5 + [1] * 5, [0] * 10, [2] * 10)
    _, coverage = web.covered(rounds=3)
    assert coverage.seen == [15, 5, 10] and web.asked == [[10, 10, 10]]


def test_rounds_end_when_nothing_new_comes():
    web = Web([0] * 30, [None] * 12, [2] * 30)
    _, coverage = web.covered(rounds=9)
    assert web.asked == [[10, 10, 10], [10, 20, 10], [10, 30, 10]]
    assert coverage.rounds == [(10, 2), (10, 0)]
    assert coverage.ended == "the last one brought nothing new" and coverage.starved == [1]


def test_no_more_rounds_than_allowed():
    web = Web([0] * 30, [None] * 500, [2] * 30)
    _, coverage = web.covered(rounds=2)
    assert len(web.asked) == 3 and coverage.ended == "crawl.rounds allows no more"


def test_an_image_is_shown_once():
    web = Web([0] * 30, [None] * 500, [2] * 30)
    web.covered(rounds=3)
    assert len(web.shown) == len(set(web.shown)) == 30 + 10 * 3


def test_a_class_that_the_teacher_does_not_know_is_never_starved():
    web = Web([0] * 10, [None] * 30, [2] * 10)
    _, coverage = web.covered(rounds=3, known=(True, False, True))
    assert web.asked == [[10, 10, 10]]
    assert coverage.summary()["classes"][1]["teacher_says"] is None
    assert "unknown" in coverage.lines()[0]


def test_placeholders_and_failures_do_not_count():
    web = Web([0] * 10, [1] * 10, [2] * 10)
    whole = web.gather

    def gather(wanted):
        gathered = whole(wanted)
        refused = {one.url: "a placeholder" for one in gathered.candidates if one.label == 1}
        found = {one: image for one, image in gathered.found.items() if one.label != 2}
        return Gathered(gathered.candidates, found, refused)

    web.gather = gather
    _, coverage = web.covered(rounds=1)
    assert (coverage.stored, coverage.seen) == ([10, 0, 0], [10, 0, 0])
    assert coverage.starved == [1, 2]


def test_what_was_done_is_told():
    web = Web([0] * 30, [1] * 4 + [0] * 26, [2] * 30)
    _, coverage = web.covered(rounds=1)
    table, sentence = coverage.lines()
    assert table.splitlines()[0].split() == ["class", "stored", "teacher", "says", "asked", "more"]
    assert table.splitlines()[2].split() == ["dog", "16", "4", "6"]
    assert sentence == (
        "coverage: 1 round asked for 6 images more and brought 6; crawl.rounds allows no more;"
        " starved still: 1 of 3"
    )
    summary = coverage.summary()
    assert summary["classes"][1] == {
        "name": "dog", "stored": 16, "teacher_says": 4, "asked_more": 6, "starved": True
    }  # fmt: skip
    assert summary["rounds"] == [{"asked_more": 6, "new_images": 6}]
    assert (summary["per_class"], summary["starved_below"]) == (10, 5.0)


@pytest.mark.parametrize("starved, rows", [(2, 3), (30, 21)])
def test_of_many_classes_those_are_shown_that_lack(starved, rows):
    web = Web(*([[label] * (1 if label < starved else 30) for label in range(40)]))
    names = [f"class {label}" for label in range(40)]
    _, coverage = cover(web.gather, web.see, names, [True] * 40, 10, 1)
    table, left, _ = coverage.lines()
    assert len(table.splitlines()) == rows
    assert left == f"and {40 - rows + 1} classes more: see reports/crawl.json"


def test_candidates_are_parted_by_what_is_wanted_of_their_classes():
    some = [Candidate(label, "", "bing", "q", rank, "x") for label in (0, 1, 2) for rank in (0, 1)]
    assert list(by_wanted(some, 5)) == [(5, some)]
    assert list(by_wanted(some, [5, 9, 5])) == [(5, some[:2] + some[4:]), (9, some[2:4])]
