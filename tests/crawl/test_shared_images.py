"""Classes whose first results are the same pictures: each gets its own, in whatever order."""

import random
import time
from collections import Counter

import pytest

from kd3_pipeline.crawl.gather import gather
from kd3_pipeline.manifest import DUPLICATE, NOT_NEEDED, STORED, Candidate, manifest
from tests.crawl.hosts import Host, crawl, picture, serving

NAMES = ("fox", "red fox", "vixen")


def late(seed):
    """A host that answers in another order for each seed: /7.jpg is the same on all hosts."""
    rng, host = random.Random(seed), Host()
    waits = [rng.random() / 50 for _ in range(200)]

    def route(request):
        number = int(request.path[1:-4])
        time.sleep(waits[number % 200])
        request.reply(picture(number))

    host.otherwise, host.routes = route, {}
    return host


def candidates(lists):
    """Of each class the pictures of these numbers, from its own host."""
    return [
        Candidate(label, NAMES[label], "urls", "", rank, f"http://{label}.test/{number}.jpg")
        for label, numbers in enumerate(lists)
        for rank, number in enumerate(numbers)
    ]


def gathered(folder, lists, seed, wanted=5, order=None):
    """The manifest's outcomes by class, and all that it says of each candidate."""
    found = candidates(lists)
    if order is not None:
        found.sort(key=order)
    with serving(*(late(seed + label) for label in range(len(lists)))) as hosts:

        def get(some, refused):
            limits = {"per_class": wanted, "robots": False, "opt_outs": "none"}
            return crawl(folder, some, hosts, refused=refused, timeout=9.0, **limits)

        result = gather(lambda _: found, get, len(lists), wanted, 0, lambda _: False)
    table = manifest(result.candidates, result.found).to_pylist()
    counts = Counter((row["class"], row["outcome"]) for row in table)
    return counts, [(row["url"], row["outcome"], row["id"]) for row in table]


SHARED = range(10)
LISTS = {
    "the second begins with the first": ([*SHARED], [*SHARED, *range(100, 120)]),
    "each has all of the others": (
        [*SHARED, *range(20, 30)],
        [*SHARED, *range(40, 50)],
        [*SHARED, *range(60, 70)],
    ),
    "the shared ones come last": ([*range(20, 25), *SHARED], [*SHARED, *range(40, 50)]),
    "a chain": (
        [*range(0, 8)],
        [*range(3, 14)],
        [*range(8, 30)],
    ),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_class_counts_only_what_is_stored_for_it(tmp_path, name):
    lists = LISTS[name]
    seen = []
    for seed in (1, 50, 99):
        counts, rows = gathered(tmp_path / str(seed), lists, seed)
        for label in range(len(lists)):
            assert counts[NAMES[label], STORED] == 5, counts
        seen.append(rows)
    assert seen[0] == seen[1] == seen[2]  # whichever host answered first


def test_a_picture_is_of_the_class_that_lists_it_first(tmp_path):
    """A list may have its classes in any order."""
    lists = LISTS["the second begins with the first"]
    counts, _ = gathered(tmp_path, lists, 7, order=lambda one: (one.rank, -one.label))
    assert counts["red fox", STORED] == counts["fox", STORED] == 5
    assert counts["fox", DUPLICATE] + counts["red fox", DUPLICATE] > 0


def test_a_class_without_others_takes_no_more_than_it_needs(tmp_path):
    counts, _ = gathered(tmp_path, (range(20), range(40, 60)), 3)
    assert counts == {
        (name, kind): n for name in NAMES[:2] for kind, n in ((STORED, 5), (NOT_NEEDED, 15))
    }
