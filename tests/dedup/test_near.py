import random

import numpy as np
import pytest

from pipeline.dedup import near
from pipeline.dedup.near import group_near, pairs_within


def planted(count, seed, spread=12):
    """Random hashes with near-duplicates of up to `spread` bits, and some exact ones."""
    rng = random.Random(seed)
    hashes = [rng.getrandbits(64) for _ in range(count // 3)]
    while len(hashes) < count:
        value = rng.choice(hashes)
        for bit in rng.sample(range(64), rng.randrange(spread)):
            value ^= 1 << bit
        hashes.append(value)
    rng.shuffle(hashes)
    return np.array(hashes, np.uint64)


def by_hand(hashes, radius):
    values = [int(value) for value in hashes]
    return [
        (i, j, (values[i] ^ values[j]).bit_count())
        for i in range(len(values))
        for j in range(i + 1, len(values))
        if (values[i] ^ values[j]).bit_count() <= radius
    ]


@pytest.mark.parametrize("block", [1, 7, 64, 2048])
@pytest.mark.parametrize("radius", range(17))
def test_pairs_are_those_of_a_double_loop(monkeypatch, radius, block):
    monkeypatch.setattr(near, "BLOCK", block)
    hashes = planted(130, radius)
    found = list(zip(*(column.tolist() for column in pairs_within(hashes, radius)), strict=True))
    assert found == by_hand(hashes, radius)
    assert found


def test_hashes_may_use_all_bits():
    hashes = np.array([0, 2**64 - 1, 2**63, 2**63 + 1], np.uint64)
    i, j, distance = pairs_within(hashes, 64)
    assert list(zip(i.tolist(), j.tolist(), distance.tolist(), strict=True)) == by_hand(hashes, 64)


@pytest.mark.parametrize("count", [0, 1])
def test_none_and_one_have_no_pairs(count):
    assert [len(column) for column in pairs_within(np.zeros(count, np.uint64), 16)] == [0, 0, 0]


def group(hashes, radius, areas=None, sizes=None, ids=None):
    count = len(hashes)
    return group_near(
        np.array(hashes, np.uint64),
        radius,
        areas=[100] * count if areas is None else areas,
        sizes=[10] * count if sizes is None else sizes,
        ids=[f"{index:04}" for index in range(count)] if ids is None else ids,
    )


def test_nothing_gives_no_groups():
    found = group([], 4)
    assert len(found.group) == len(found.representative) == len(found.distance) == 0


def test_one_image_stands_for_itself():
    found = group([5], 4)
    assert (found.group.tolist(), found.representative.tolist()) == ([0], [0])


def test_identical_images_are_one_group():
    found = group([9] * 300, 0, areas=[1] * 200 + [2] + [1] * 99)
    assert set(found.group.tolist()) == {0}
    assert set(found.representative.tolist()) == {200}
    assert found.distance.tolist() == [0] * 300


def test_images_that_are_far_apart_are_groups_of_their_own():
    values = [0, 0b11111, 0b11111 << 10, 0b11111 << 20]
    found = group(values, 4)
    assert found.representative.tolist() == found.group.tolist() == [0, 1, 2, 3]


def test_a_chain_does_not_pull_its_ends_together():
    a, b, c = 0, 0b1111, 0b11111111  # 4 bits each step, 8 from end to end
    found = group([a, b, c], 4, areas=[3, 2, 1])
    assert found.representative.tolist() == [0, 0, 2]
    found = group([a, b, c], 4, areas=[1, 3, 1])
    assert found.representative.tolist() == [1, 1, 1]
    assert found.distance.tolist() == [4, 0, 4]


def test_the_representative_has_most_pixels_then_bytes_then_the_first_id():
    same = [7, 7, 7]
    assert group(same, 0, areas=[1, 3, 2]).representative.tolist() == [1, 1, 1]
    assert group(same, 0, sizes=[1, 2, 3]).representative.tolist() == [2, 2, 2]
    assert group(same, 0, ids=["b", "c", "a"]).representative.tolist() == [2, 2, 2]
    found = group(same, 0, areas=[2, 1, 2], sizes=[1, 9, 2]).representative.tolist()
    assert found == [2, 2, 2]


def test_groups_are_numbered_by_their_first_image():
    found = group([1 << 40, 3, 1 << 40, 1 << 60 | 255, 3], 0, areas=[1, 5, 2, 9, 7])
    assert found.group.tolist() == [0, 1, 0, 2, 1]


@pytest.mark.parametrize("radius", [0, 3, 6, 16])
@pytest.mark.parametrize("seed", range(4))
def test_groups_are_stars_and_do_not_depend_on_the_order(monkeypatch, seed, radius):
    monkeypatch.setattr(near, "BLOCK", 50)
    hashes = planted(400, seed, 8)
    rng = random.Random(seed)
    areas = [rng.randrange(5) for _ in hashes]
    sizes = [rng.randrange(5) for _ in hashes]
    ids = [f"{rng.getrandbits(64):016x}" for _ in hashes]
    seen = []
    for _ in range(3):
        order = list(range(len(hashes)))
        rng.shuffle(order)
        shuffled = [int(hashes[k]) for k in order]
        found = group(
            shuffled, radius, *([values[k] for k in order] for values in (areas, sizes, ids))
        )
        representative = found.representative.tolist()
        for place, best in enumerate(representative):
            distance = (shuffled[place] ^ shuffled[best]).bit_count()
            assert distance == found.distance[place] <= radius
            assert representative[best] == best
            assert found.group[place] == found.group[best]
        assert len(set(found.group.tolist())) == len(set(representative))
        best_of = dict.fromkeys(representative)
        for one in best_of:  # two representatives are never near-duplicates
            for other in best_of:
                assert one == other or (shuffled[one] ^ shuffled[other]).bit_count() > radius
        seen.append({ids[order[k]]: ids[order[best]] for k, best in enumerate(representative)})
    assert seen[0] == seen[1] == seen[2]


def test_many_copies_of_one_picture_take_little_memory():
    # a blank picture in 20,000 sizes: 200 million pairs
    count = 20_000
    found = group([0] * count + [0b11], 2)
    assert set(found.representative.tolist()) == {0}
    assert found.distance[-1] == 2
