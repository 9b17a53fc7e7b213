import numpy as np
import pytest

from pipeline.dedup.grouping import best_first, groups


def grouped(total, pairs, rank=None):
    """Groups over {(i, j): similarity}; the first image is the best where no rank is given."""
    i, j = np.array(list(pairs), np.int64).reshape(-1, 2).T
    rank = np.arange(total) if rank is None else np.array(rank)
    return groups(total, i, j, np.array(list(pairs.values()), np.float32), rank)


@pytest.mark.parametrize("total", [0, 1, 5])
def test_without_pairs_each_image_stands_for_itself(total):
    found = grouped(total, {})
    assert found.group.tolist() == found.representative.tolist() == list(range(total))
    assert found.similarity.tolist() == [1.0] * total
    assert (found.group.dtype, found.representative.dtype) == (np.int64, np.int64)
    assert found.similarity.dtype == np.float32


def test_a_chain_does_not_pull_its_ends_together():
    chain = {(0, 1): 0.5, (1, 2): 0.75}
    assert grouped(3, chain).representative.tolist() == [0, 0, 2]
    assert grouped(3, chain, rank=[1, 0, 2]).representative.tolist() == [1, 1, 1]
    assert grouped(3, chain, rank=[2, 1, 0]).representative.tolist() == [0, 2, 2]
    assert grouped(3, chain, rank=[1, 2, 0]).representative.tolist() == [0, 2, 2]


def test_members_have_their_similarity_to_the_representative():
    found = grouped(4, {(3, 0): 0.875, (1, 3): 0.5, (0, 1): 0.25}, rank=[1, 2, 3, 0])
    assert found.representative.tolist() == [3, 3, 2, 3]
    assert found.similarity.tolist() == [0.875, 0.5, 1.0, 1.0]
    assert found.group.tolist() == [0, 0, 1, 0]


def test_a_member_of_two_stars_goes_to_the_better_one():
    between = {(0, 2): 0.5, (1, 2): 0.9}
    assert grouped(3, between).representative.tolist() == [0, 1, 0]
    assert grouped(3, between, rank=[1, 0, 2]).representative.tolist() == [0, 1, 1]


def test_groups_are_numbered_by_their_first_image():
    found = grouped(5, {(0, 4): 0.9, (1, 3): 0.9}, rank=[4, 3, 2, 1, 0])
    assert found.group.tolist() == [0, 1, 2, 1, 0]
    assert found.representative.tolist() == [4, 3, 2, 3, 4]


def test_all_alike_are_one_group_around_the_best():
    i, j = np.triu_indices(300, 1)
    rank = np.roll(np.arange(300), 123)
    found = groups(300, i, j, np.full(len(i), 0.5, np.float32), rank)
    assert set(found.representative.tolist()) == {123}
    assert set(found.group.tolist()) == {0}


def test_the_best_has_most_pixels_then_bytes_then_provenance_then_the_first_id():
    #                  a       b       c       d       e
    areas, sizes = [100, 100, 400, 100, 100], [9, 9, 1, 9, 50]
    rank = best_first(areas, sizes, [2, 3, 0, 3, 0], ["a", "d", "c", "b", "e"])
    assert rank.tolist() == [4, 3, 0, 2, 1]
    assert best_first([], [], [], []).tolist() == []


@pytest.mark.parametrize("seed", range(40))
def test_groups_are_stars_whatever_the_order_of_images_and_pairs(seed):
    draws = np.random.default_rng(seed)
    total = int(draws.integers(2, 60))
    i, j = np.triu_indices(total, 1)
    some = draws.random(len(i)) < draws.uniform(0, 0.3)
    i, j = i[some], j[some]
    similarity = draws.random(len(i), np.float32)
    rank = best_first(*draws.integers(0, 3, (3, total)), [f"{k:03}" for k in range(total)])
    found = groups(total, i, j, similarity, rank)

    like = {frozenset(pair): s for *pair, s in zip(i.tolist(), j.tolist(), similarity, strict=True)}
    for image, best in enumerate(found.representative.tolist()):
        assert found.representative[best] == best
        assert found.group[image] == found.group[best]
        if image != best:
            assert found.similarity[image] == like[frozenset((image, best))]
            assert rank[best] < rank[image]
            better = [  # it is in the group of its best neighbour that stands for itself
                other
                for other in range(total)
                if frozenset((image, other)) in like and found.representative[other] == other
            ]
            assert best == min(better, key=lambda other: rank[other])
    heads = np.unique(found.representative)
    assert len(np.unique(found.group)) == len(heads)
    assert not any(frozenset((a, b)) in like for a in heads.tolist() for b in heads.tolist())

    place = draws.permutation(total)  # image k is now at place[k]
    shuffled = draws.permutation(len(i))
    flip = draws.random(len(i)) < 0.5
    one, other = place[np.where(flip, j, i)], place[np.where(flip, i, j)]
    moved_rank = np.empty(total, np.int64)
    moved_rank[place] = rank
    moved = groups(total, one[shuffled], other[shuffled], similarity[shuffled], moved_rank)
    assert moved.representative[place].tolist() == place[found.representative].tolist()
    assert moved.similarity[place].tolist() == found.similarity.tolist()
