import io

import imagehash
import numpy as np
import pytest
from PIL import Image

from kd3_pipeline.dedup import near
from kd3_pipeline.dedup.near import (
    PAIRED,
    Crowded,
    Plan,
    bits_apart,
    candidate_pairs,
    nearest,
    pairs_within,
    plan,
    radius_for,
)
from tests.dedup.real import PACS, PHOTOGRAPHS, real_images

TREND = 2.0  # how much of the hashes of `skewed` is common to all, beside noise of 1


def planted(total, seed, spread=17):
    """Random hashes, a third of them copies with less than `spread` bits changed."""
    draws = np.random.default_rng(seed)
    hashes = draws.integers(0, 2**64, total, dtype=np.uint64)
    for k in range(total // 3):
        value = int(hashes[draws.integers(total // 3, total)])
        for bit in draws.choice(64, draws.integers(spread), replace=False).tolist():
            value ^= 1 << bit
        hashes[k] = value
    return draws.permutation(hashes)


def skewed(total, seed):
    """Hashes with 32 bits set that have much in common, as pictures of one subject do."""
    draws = np.random.default_rng(seed)
    field = TREND * draws.normal(size=64) + draws.normal(size=(total, 64))
    bits = field > np.median(field, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def brute(hashes, radius):
    distance = np.bitwise_count(hashes[:, None] ^ hashes[None])
    i, j = np.nonzero(np.triu(distance <= radius, 1))
    return i, j, distance[i, j]


def assert_same(found, expected):
    assert [column.dtype for column in found] == [np.int64, np.int64, np.uint8]
    for ours, theirs in zip(found, expected, strict=True):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("draw", [planted, skewed])
@pytest.mark.parametrize("radius", range(17))
def test_pairs_are_those_of_brute_force(radius, draw):
    for total in (2, 40, 700):
        hashes = draw(total, radius)
        expected = brute(hashes, radius)
        assert_same(pairs_within(hashes, radius), expected)
    assert draw is skewed or len(expected[0])


@pytest.mark.parametrize(
    ("radius", "shared"),
    [
        pytest.param(radius, shared, marks=[pytest.mark.slow] if radius * shared > 12 else [])
        for radius in (1, 2, 3, 4, 6, 8)
        for shared in range(5)
    ],
)
def test_every_plan_finds_the_same(monkeypatch, radius, shared):
    hashes = np.concatenate([planted(300, shared), skewed(200, shared)])
    expected = brute(hashes, radius)
    for split, chunk in ((0, 2**15), (1, 64), (min(64 // (radius + shared), 9), 100)):
        blocks, split = (radius + shared, split) if shared else (1, 0)
        chosen = Plan(len(hashes), radius, blocks, shared, split, 0.0)
        monkeypatch.setattr(near, "plan", lambda total, radius, chosen=chosen: chosen)
        monkeypatch.setattr(near, "CHUNK", chunk)
        assert_same(pairs_within(hashes, radius), expected)


def switches(radius, most):
    """The numbers of hashes, up to `most`, from which on the plan is another."""

    def kind(total):
        return plan(total, radius).shared, plan(total, radius).split

    found, total = [], 2
    while total < most:
        after = min(total * 2, most)
        while kind(after) != kind(total):
            low, high = total, after
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if kind(middle) == kind(total) else (low, middle)
            found.append(high)
            total = high
        total = after
    return found


# at 16 it never does
@pytest.mark.parametrize(
    "radius", [2, 5, 8, *(pytest.param(radius, marks=pytest.mark.slow) for radius in (10, 12))]
)
def test_nothing_is_lost_where_the_plan_changes(radius):
    totals = switches(radius, 6000)
    assert totals
    for total in totals:
        before, after = plan(total - 1, radius), plan(total, radius)
        assert (before.shared, before.split) != (after.shared, after.split)
        for count in (total - 1, total):
            hashes = planted(count, total)
            assert_same(pairs_within(hashes, radius), brute(hashes, radius))


def test_nothing_is_lost_where_hashes_are_split_first():
    for total in (2**16 - 1, 2**16):
        assert (plan(total, 4).split > 0) == (total == 2**16)
        hashes = planted(total, 1, 5)
        i, j, distance = pairs_within(hashes, 4)
        sample = np.arange(0, total, total // 40)
        apart = np.bitwise_count(hashes[sample][:, None] ^ hashes[None])
        expected = {
            (min(a, b), max(a, b), int(apart[k, b]))
            for k, a in enumerate(sample.tolist())
            for b in np.flatnonzero(apart[k] <= 4).tolist()
            if a != b
        }
        some = np.isin(i, sample) | np.isin(j, sample)
        found = zip(i[some].tolist(), j[some].tolist(), distance[some].tolist(), strict=True)
        assert set(found) == expected
        assert len(expected) > 10
        # a third are copies, but some of one original
        assert len(i) >= total // 3
        assert np.array_equal(distance, np.bitwise_count(hashes[i] ^ hashes[j]))
        assert (np.diff(i * total + j) > 0).all() and (i < j).all()


def test_a_plan_says_what_it_does_and_has_more_blocks_for_more_hashes():
    assert plan(100, 8).shared == 0
    assert str(plan(100, 8)) == "100 hashes, every pair compared"
    assert [plan(10**power, 8).shared for power in (2, 4, 6, 8)] == sorted(
        plan(10**power, 8).shared for power in (2, 4, 6, 8)
    )
    one = plan(100_000, 8)
    assert one.blocks == 8 + one.shared
    assert str(one) == f"100,000 hashes, {one.tables} tables on {one.shared} of {one.blocks} blocks"


@pytest.mark.parametrize("radius", [0, 1, 8, 33, 63, 64])
def test_hashes_may_use_all_bits_and_differ_in_all(radius):
    hashes = np.array([0, 2**64 - 1, 2**63, 2**63 + 1, 2**33 - 1, 0], np.uint64)
    assert_same(pairs_within(hashes, radius), brute(hashes, radius))


@pytest.mark.parametrize("total", [0, 1])
def test_none_and_one_have_no_pairs(total):
    nothing = [np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.uint8)]
    for radius in (0, 16):
        assert_same(pairs_within(np.zeros(total, np.uint64), radius), nothing)
        keys, eligible = np.zeros((total, 4), np.uint64), np.ones(total, bool)
        assert_same(candidate_pairs(keys, radius, eligible), nothing)


@pytest.mark.parametrize("radius", [0, 4])
def test_all_identical_are_all_pairs(radius):
    hashes = np.full(1500, 77, np.uint64)  # more pairs than are combined at once
    assert_same(pairs_within(hashes, radius), brute(hashes, radius))


@pytest.mark.parametrize("radius", [0, 6])
def test_copies_of_near_hashes_are_paired_each_with_each(radius):
    hashes = np.tile(np.array([5, 7, 2**60, 2**60 + 1, 2**33], np.uint64), 40)
    assert_same(pairs_within(hashes, radius), brute(hashes, radius))


def test_all_far_apart_have_no_pairs():
    hashes = np.array([0xFF << shift for shift in range(0, 64, 8)], np.uint64)
    assert len(pairs_within(hashes, 15)[0]) == 0
    assert len(pairs_within(hashes, 16)[0]) == 28


@pytest.mark.parametrize("radius", [0, 8])
@pytest.mark.parametrize("paired", [((0, 0),), PAIRED])
def test_a_search_ends_as_soon_as_there_are_more_pairs_than_asked_for(radius, paired):
    for draw in (lambda total: np.full(total, 3), np.arange):
        keys = np.tile(draw(128)[:, None], 4).astype(np.uint64)
        everyone = np.ones(128, bool)
        found = candidate_pairs(keys, radius, everyone, paired)
        most = len(found[0])
        assert_same(candidate_pairs(keys, radius, everyone, paired, most=most), found)
        if most:
            with pytest.raises(Crowded):
                candidate_pairs(keys, radius, everyone, paired, most=most - 1)


def test_a_crowd_of_equal_hashes_is_refused_before_its_pairs_are_made():
    with pytest.raises(Crowded):  # 5 million million pairs
        pairs_within(np.zeros(10**6, np.uint64), 4)


def test_the_order_of_the_hashes_does_not_matter():
    hashes = planted(400, 3)
    i, j, distance = pairs_within(hashes, 8)
    expected = {(frozenset(p), d) for *p, d in zip(i.tolist(), j.tolist(), distance, strict=True)}
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(400)
        i, j, distance = pairs_within(hashes[order], 8)
        i, j = order[i].tolist(), order[j].tolist()
        assert {(frozenset(p), d) for *p, d in zip(i, j, distance, strict=True)} == expected


def test_progress_counts_every_table_once():
    done, notes = [], []

    def advance(n=1, note=""):
        done.append(n)
        notes.append(note)

    hashes = planted(70_000, 1, 2)
    pairs_within(hashes, 4, advance)
    chosen = plan(len(np.unique(hashes)), 4)
    assert sum(done) == chosen.tables
    assert set(notes) == {str(chosen)}


def keyed(total, seed):
    """Four keys an image: often equal among themselves, near those of others in all combinations"""
    draws = np.random.default_rng(seed)
    keys = draws.choice(planted(total, seed), (total, 4))
    keys[: total // 2, 1] = keys[: total // 2, 0]
    return draws.permutation(keys)


def brute_keys(keys, radius, eligible, paired):
    distance = np.full((len(keys), len(keys)), 255, np.uint8)
    for one, other in paired:
        apart = np.bitwise_count(keys[:, None, one] ^ keys[None, :, other])
        distance = np.minimum(distance, np.minimum(apart, apart.T))
    near_enough = (distance <= radius) & eligible[:, None] & eligible[None]
    i, j = np.nonzero(np.triu(near_enough, 1))
    return i, j, distance[i, j]


@pytest.mark.parametrize("radius", [0, 2, 8, 12, 16])
@pytest.mark.parametrize("seed", range(3))
def test_candidates_are_those_of_every_combination_of_keys(monkeypatch, radius, seed):
    keys = keyed(200, seed)
    eligible = np.random.default_rng(seed).random(200) < 0.8
    for paired in (PAIRED, ((0, 0),), ((1, 1), (3, 2)), ((0, 3),)):
        expected = brute_keys(keys, radius, eligible, paired)
        assert len(expected[0])
        assert_same(candidate_pairs(keys, radius, eligible, paired), expected)
    monkeypatch.setattr(near, "COMBINED", 37)
    most = len(expected[0])  # repeats do not count
    assert_same(candidate_pairs(keys, radius, eligible, paired, most=most), expected)


@pytest.mark.parametrize("radius", [0, 2, 8, 16, 64])
@pytest.mark.parametrize("tile", [(16, 2048), (3, 7)])
def test_the_nearest_are_those_of_every_combination_of_keys(monkeypatch, radius, tile):
    monkeypatch.setattr(near, "TILE", tile)
    keys = np.concatenate([keyed(60, radius), keyed(20, 1), keyed(20, 1)])
    for paired in (PAIRED, ((0, 0),), ((0, 3),)):
        apart = np.min(
            [
                np.bitwise_count(keys[:50, None, a] ^ keys[None, 50:, b])
                for one, other in paired
                for a, b in ((one, other), (other, one))
            ],
            axis=0,
        )
        assert np.array_equal(
            bits_apart(keys[:50], keys[50:], paired), apart[np.arange(50), np.arange(50)]
        )
        for most in (0, 1, 3, 100):
            expected = []
            for row in range(50):
                order = np.argsort(apart[row], kind="stable")
                order = order[apart[row, order] <= radius][: most or None]
                expected += [(row, place, apart[row, place]) for place in order.tolist()]
            found = nearest(keys[:50], keys[50:], radius, most, paired)
            assert_same(found, np.array(expected, int).reshape(-1, 3).T)
    assert len(nearest(keys[:0], keys, radius)[0]) == len(nearest(keys, keys[:0], radius)[0]) == 0


def test_images_that_are_not_eligible_cost_nothing_and_are_in_no_pair():
    keys = np.zeros((20_000, 4), np.uint64)  # 200 million pairs of blank images
    keys[7:10] = 2**40
    eligible = np.zeros(20_000, bool)
    eligible[[7, 9, 11]] = True
    i, j, distance = candidate_pairs(keys, 1, eligible)
    assert (i.tolist(), j.tolist(), distance.tolist()) == ([7, 7, 9], [9, 11, 11], [0, 1, 1])


def test_the_radius_shrinks_as_images_grow_in_number():
    totals = [0, 1, 20_000, 20_001, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000, 10**9]
    assert [radius_for(total) for total in totals] == [14, 14, 14, 12, 12, 12, 10, 8, 6, 4]


@pytest.mark.parametrize("source", [PHOTOGRAPHS, PACS])
def test_pairs_of_real_pictures_are_those_of_brute_force(source):
    images = [Image.open(io.BytesIO(data)) for data in real_images(source, 300)]
    bits = [imagehash.phash(image).hash.ravel() for image in images]
    hashes = np.packbits(np.array(bits), axis=1).view(np.uint64)[:, 0]
    for radius in (8, 12, 20):
        expected = brute(hashes, radius)
        assert_same(pairs_within(hashes, radius), expected)
    assert len(expected[0])
