import numpy as np
import pytest

from kd3_pipeline.dedup import stars as module
from kd3_pipeline.dedup.near import PAIRED
from kd3_pipeline.dedup.stars import Stars, Terms, find_members, find_stars

PARTS = ("centre", "distance", "similarity", "resembles", "capped")
LEAST = 0.8


def plain(hashes, ordered, terms, verify):
    """One image after the other, as the module's first lines say it."""
    found, centres = Stars.single(len(hashes)), []
    for image in ordered.tolist():
        near = sorted(
            (distance, place, centre)
            for place, centre in enumerate(centres)
            if (distance := bits(hashes, image, centre)) <= terms.radius
        )
        more = 0 < terms.compared < len(near)
        alike = {}
        for distance, _, centre in near[: terms.compared or None]:
            one, other = np.array([image]), np.array([centre])
            similarity = alike[centre] = verify(one, other)[0]
            needed = terms.needed(one, other)[0] if terms.needed else 0
            if similarity >= max(terms.similarity, needed):
                found.centre[image] = centre
                found.distance[image], found.similarity[image] = distance, similarity
                break
        else:
            centres.append(image)
            found.capped[image] = more
            best = max(alike, key=alike.get, default=-1)
            if alike.get(best, -1) >= terms.similarity:
                found.resembles[image] = best
    return found


def bits(hashes, i, j):
    pairs = [(one, other) for a, b in PAIRED for one, other in ((a, b), (b, a))]
    return min((int(hashes[i, a]) ^ int(hashes[j, b])).bit_count() for a, b in pairs)


def crowd(total, seed, spread=5):
    """Keys of images that are near each other: some bits of common ones are changed."""
    draws = np.random.default_rng(seed)
    hashes = np.tile(draws.integers(0, 2**64, 4, dtype=np.uint64), (total, 1))
    for _ in range(spread):
        flips = np.uint64(1) << draws.integers(0, 64, (total, 4), dtype=np.uint64)
        hashes ^= np.where(draws.random((total, 4)) < 0.6, flips, np.uint64(0))
    return hashes


class Verifier:
    """Similarities from a matrix, and which were asked for."""

    def __init__(self, similarity):
        self.similarity, self.asked, self.calls = similarity, [], 0

    def __call__(self, i, j):
        self.calls += 1
        self.asked += zip(i.tolist(), j.tolist(), strict=True)
        return self.similarity[i, j].astype(np.float32)


def one_picture(total):
    return Verifier(np.ones((total, total)))


def of_pictures(pictures):
    """A verifier that knows which picture each image shows."""
    return Verifier(np.equal.outer(pictures, pictures).astype(float))


def assert_same(found, expected):
    for name in PARTS:
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name
        assert getattr(found, name).dtype == getattr(expected, name).dtype


@pytest.fixture(params=[(32, 512, 64), (0, 512, 512), (0, 7, 3), (0, 1, 1)], ids=str)
def way(request, monkeypatch):
    """All pairs at once, and crowds in batches of several sizes."""
    for name, value in zip(("CROWD", "BATCH", "FIRST_BATCH"), request.param, strict=True):
        monkeypatch.setattr(module, name, value)


@pytest.mark.parametrize("least", [0.3, 0.7, 0.95])
@pytest.mark.parametrize("compared", [0, 1, 3])
def test_stars_are_those_of_one_image_after_the_other(way, least, compared):
    seen = np.zeros(3, int)
    for seed in range(8):
        draws = np.random.default_rng([seed, compared])
        total = int(draws.integers(1, 70))
        hashes, alike = crowd(total, seed, int(draws.integers(1, 8))), draws.random((total, total))
        label = draws.integers(0, 2, total)
        verify = Verifier(np.maximum(alike, alike.T))
        terms = Terms(
            int(draws.integers(0, 12)),
            least,
            compared,
            (lambda i, j, label=label: 0.97 * (label[i] != label[j])) if seed % 2 else None,
        )
        ordered = draws.permutation(total)[: draws.integers(1, total + 1)]
        found = find_stars(hashes, ordered, terms, verify)
        assert len(set(verify.asked)) == len(verify.asked) == found.verified
        assert_same(found, plain(hashes, ordered, terms, verify))
        seen += [(found.centre != np.arange(total)).sum(), found.capped.sum(), 0]
        seen[2] += (found.resembles >= 0).sum()
    if least == 0.7:  # where some join, some stand, and some are nearly alike
        assert seen[0] and seen[2] and bool(seen[1]) == (compared > 0)


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_the_input_does_not_matter(way, seed):
    draws = np.random.default_rng(seed)
    hashes, alike = crowd(60, seed), draws.random((60, 60))
    alike = np.maximum(alike, alike.T)
    terms = Terms(6, LEAST, 5)
    expected = find_stars(hashes, np.arange(60), terms, Verifier(alike))
    moved = draws.permutation(60)  # image k of before is image moved[k]
    back = np.argsort(moved)
    found = find_stars(hashes[back], moved, terms, Verifier(alike[np.ix_(back, back)]))
    assert np.array_equal(back[found.centre[moved]], expected.centre)
    for name in ("distance", "similarity", "capped"):
        assert np.array_equal(getattr(found, name)[moved], getattr(expected, name))


def test_copies_of_some_pictures_are_compared_with_their_centres_only(way):
    pictures = np.arange(300) % 3
    verify = of_pictures(pictures)
    found = find_stars(crowd(300, 0), np.arange(300), Terms(64, LEAST), verify)
    assert found.centre.tolist() == pictures.tolist()
    assert found.verified <= 3 * 300


def test_five_thousand_copies_of_one_picture_are_as_many_comparisons():
    total = 5000
    verify = lambda i, j: np.ones(len(i), np.float32)  # noqa: E731
    found = find_stars(crowd(total, 0), np.arange(total), Terms(12, LEAST), verify)
    assert (found.centre == 0).sum() > total / 2
    assert found.verified < 1.5 * total


def test_a_long_chain_from_better_to_worse_is_followed_link_by_link(way):
    # image k is near k - 1 and k + 1 only, so that each waits for the one before
    hashes = np.tile((np.uint64(1) << np.arange(60, dtype=np.uint64)) - 1, (4, 1)).T[:, :4]
    verify = one_picture(60)
    found = find_stars(np.ascontiguousarray(hashes), np.arange(60), Terms(1, LEAST), verify)
    assert found.centre.tolist() == [place - place % 2 for place in range(60)]
    assert found.verified == 30


def test_many_are_verified_in_one_call():
    verify = one_picture(1000)
    find_stars(crowd(1000, 0), np.arange(1000), Terms(64, LEAST), verify)
    assert verify.calls < 20


def test_what_is_like_nothing_is_compared_with_the_nearest_centres_only(way):
    verify = of_pictures(np.arange(100))
    found = find_stars(crowd(100, 0), np.arange(100), Terms(64, LEAST, 8), verify)
    assert (found.centre == np.arange(100)).all()
    assert found.capped.tolist() == [place > 8 for place in range(100)]
    assert set(verify.asked) >= {(place, other) for place in range(9) for other in range(place)}


def test_a_crowd_of_pictures_is_hardly_compared_with_more_than_the_nearest():
    verify = of_pictures(np.arange(1000))
    found = find_stars(crowd(1000, 0), np.arange(1000), Terms(64, LEAST, 64), verify)
    assert found.verified < 1.25 * sum(min(place, 64) for place in range(1000))
    assert verify.calls < found.verified / 50


def test_a_crowd_within_a_crawl_is_hardly_compared_with_more_than_the_nearest():
    far = np.random.default_rng(1).integers(0, 2**64, (3000, 4), dtype=np.uint64)
    hashes = np.random.default_rng(2).permutation(np.concatenate([crowd(300, 0, 2), far]))
    verify = Verifier(np.zeros((3300, 3300), np.float32))
    found = find_stars(hashes, np.arange(3300), Terms(6, LEAST, 32), verify)
    assert found.capped.sum() > 200
    assert found.verified < 1.25 * sum(min(place, 32) for place in range(300))


def test_a_chain_does_not_pull_its_ends_together(way):
    alike = np.eye(3)
    alike[0, 1] = alike[1, 0] = alike[1, 2] = alike[2, 1] = 1
    for order, centres in (([0, 1, 2], [0, 0, 2]), ([1, 0, 2], [1, 1, 1]), ([2, 1, 0], [0, 2, 2])):
        found = find_stars(crowd(3, 0), np.array(order), Terms(64, LEAST), Verifier(alike))
        assert found.centre.tolist() == centres


def test_an_image_joins_the_nearest_of_two_stars(way):
    hashes = np.tile(np.array([[0], [0b1111], [0b0111]], np.uint64), 4)
    alike = np.array([[1, 0, 0.9], [0, 1, 0.85], [0.9, 0.85, 1]])
    found = find_stars(hashes, np.arange(3), Terms(64, LEAST), Verifier(alike))
    assert (found.centre[2], found.distance[2], found.similarity[2]) == (1, 1, np.float32(0.85))


def test_images_beyond_the_radius_are_not_compared(way):
    hashes = np.tile(np.array([[0], [0b111], [0b1111]], np.uint64), 4)
    found = find_stars(hashes, np.arange(3), Terms(3, LEAST), one_picture(3))
    assert found.centre.tolist() == [0, 0, 2]
    assert found.verified == 1


def test_pairs_that_need_more_and_have_less_stay_apart_and_are_told(way):
    alike = np.array([[1, 0.9, 0.9], [0.9, 1, 0.5], [0.9, 0.5, 1]])
    needed = lambda i, j: np.where((i == 1) & (j == 0), 0.95, 0.0)  # noqa: E731
    terms = Terms(64, LEAST, needed=needed)
    found = find_stars(crowd(3, 0), np.arange(3), terms, Verifier(alike))
    assert found.centre.tolist() == [0, 1, 0]
    assert found.resembles.tolist() == [-1, 0, -1]


def test_members_join_given_centres_and_not_each_other():
    hashes = np.tile(np.array([[0], [3], [0], [0], [1], [0xFF]], np.uint64), 4)
    alike = np.ones((6, 6))
    alike[5] = alike[:, 5] = 0
    verify = Verifier(alike)
    centres, images = np.array([1, 2]), np.array([3, 5, 4])
    found = find_members(hashes, centres, images, Terms(2, LEAST), verify)
    assert found.centre.tolist() == [0, 1, 2, 2, 1, 5]  # 4 is as far from both: the first
    assert sorted(verify.asked) == [(3, 2), (4, 1)]
    nothing = np.empty(0, np.int64)
    assert find_members(hashes, nothing, images, Terms(2, LEAST), verify).verified == 0


def test_none_and_one_stand_for_themselves(way):
    for total in (0, 1):
        found = find_stars(crowd(total, 0), np.arange(total), Terms(12, LEAST), one_picture(total))
        assert_same(found, Stars.single(total))


def test_progress_counts_every_image_once(way):
    counts = []
    find_stars(
        crowd(80, 0), np.arange(80), Terms(12, LEAST), of_pictures(np.arange(80) % 9), counts.append
    )
    assert sum(counts) == 80
