"""All pairs of images whose hashes differ in few bits, exactly, for thousands to millions.

The search is the block permutation of Manku, Jain and Das Sarma, "Detecting near-duplicates for web
crawling" (WWW 2007). 64 bits are cut into radius + k blocks; hashes within the radius agree on at
least k whole blocks, so for each choice of k blocks only hashes that agree on them are compared.
k = 0 is brute force.

Where crowds of images are near each other, all pairs are too many to hold: `nearest` compares some
images with some others, and holds what is nearest.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby, pairwise

import numpy as np

from kd3_pipeline.console import Advance, no_progress

BITS = 64
MOST_PAIRS = 20_000_000  # that may come out; they take 0.9 GB until they are in order
PART_BITS = 15  # more than 2^16 hashes are first split into parts of about 2^15, to stay in cache
KEY_BITS = 16  # that numpy sorts by radix
CHUNK = 2**15  # hashes compared at once, for the same reason
SPARSE = 1 / 6  # of a chunk: fewer than these are compared by their places
EVERY = 4  # steps between looks at how many are left
COMBINED = 2**20  # pairs expanded or filtered at once
TILE = 16, 4096  # images and others whose distances are computed at once, to stay in cache

# nanoseconds a hash to sort it for a table or a split, and to compare it; and of what is done once,
# measured on a server core of 2023
SORT_COST, SPLIT_COST, COMPARE_COST = 8.0, 40.0, 0.8
TABLE_COST, STEP_COST = 40_000.0, 4_000.0
MOST_SHARED = 6

# which keys of one image are compared with which of another, by their places in hashing.KEYS
WHOLE, TRIMMED, CENTRE, MIRRORED, QUARTER, HALF = range(6)
PAIRED = ((WHOLE, WHOLE), (TRIMMED, TRIMMED), (TRIMMED, CENTRE), (WHOLE, MIRRORED))
TURNED = (*PAIRED, (WHOLE, QUARTER), (WHOLE, HALF))
DISTANCE_BITS = 7  # of a packed pair, which leaves room for 2^28 images
PLACE_BITS = 32  # of a packed place among others, beside a distance and a place of 25 bits

SMALLEST_RADIUS, LARGEST_RADIUS = 4, 12
FEW = 20_000  # images, of which more pairs can be verified
FALSE_RATE = 1.6e-5  # false candidates, of all pairs of images, at the largest radius
BUDGET = 1_000_000  # candidates to verify, at 0.7 ms each


class Crowded(Exception):
    """More pairs than were asked for."""


Block = tuple[int, int]  # bits of a hash: its lowest bit, and how many
Keys = Sequence[tuple[int, int]]
Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Plan:
    """How a search goes: one table for each choice of `shared` of `blocks` blocks."""

    total: int
    radius: int
    blocks: int
    shared: int  # 0 is brute force
    split: int  # highest bits of the first shared block, by which the hashes are first split
    seconds: float  # expected, where hashes are evenly spread

    @property
    def tables(self) -> int:
        return math.comb(self.blocks, self.shared)

    def __str__(self) -> str:
        if not self.shared:
            return f"{self.total:,} hashes, every pair compared"
        how = f"{self.tables:,} tables on {self.shared} of {self.blocks} blocks"
        return f"{self.total:,} hashes, {how}"


def plan(total: int, radius: int) -> Plan:
    """The fastest plan for `total` different hashes, by an estimate of its time.

    More blocks mean more tables, each of which compares a hash with fewer others, about
    total / 2^(bits of the key).
    """
    split = max(total.bit_length() - PART_BITS, 0) if total >= 2 ** (PART_BITS + 1) else 0
    plans = [_plan(total, radius, 1, 0, 0, total / 2)]
    for shared in range(1, min(MOST_SHARED, BITS - radius) + 1):
        blocks = radius + shared
        first = min(split, BITS // blocks)
        bits = min(shared * BITS / blocks, first + KEY_BITS)
        plans.append(_plan(total, radius, blocks, shared, first, total / 2**bits + EVERY))
    return min(plans, key=lambda one: one.seconds)


def _plan(total: int, radius: int, blocks: int, shared: int, split: int, steps: float) -> Plan:
    """A plan in which each table compares a hash with `steps` others."""
    calls = 2**split * (TABLE_COST + steps * STEP_COST)
    table = calls + total * (SORT_COST + steps * COMPARE_COST)
    splits = (radius + 1) * total * SPLIT_COST if split else 0.0
    cost = math.comb(blocks, shared) * table + splits
    return Plan(total, radius, blocks, shared, split, cost * 1e-9)


def radius_for(total: int) -> int:
    """The radius in bits that `auto` means for `total` images.

    The largest even one from 4 to 12 (distances of phash are even) at which at most a million false
    candidates are expected, about 12 minutes of verifying on one core: total² / 2 × 1.6e-5 ×
    10^((radius - 12) / 2), measured on 100,000 images of Tiny-ImageNet with the keys of `PAIRED`.
    Up to 20,000 images it is 14, which finds more crops and captions and costs half a minute.
    """
    if total <= FEW:
        return LARGEST_RADIUS + 2
    excess = total**2 / 2 * FALSE_RATE / BUDGET
    return max(LARGEST_RADIUS - 2 * math.ceil(math.log10(max(excess, 1))), SMALLEST_RADIUS)


def pairs_within(hashes: np.ndarray, radius: int, advance: Advance = no_progress) -> Pairs:
    """All pairs i < j at Hamming distance ≤ `radius`, exactly.

    Args:
        hashes: uint64 [N].
        advance: called with the number of tables done, and the plan as a note.

    Returns:
        i and j (int64 [P]) and their distance in bits (uint8 [P]), sorted by i, then j.

    Raises:
        Crowded: there are more than 20 million pairs.
    """
    every = np.ones(len(hashes), bool)
    return candidate_pairs(hashes[:, None], radius, every, ((0, 0),), advance)


def candidate_pairs(
    hashes: np.ndarray,
    radius: int,
    eligible: np.ndarray,
    paired: Keys | None = None,
    advance: Advance = no_progress,
    most: int = MOST_PAIRS,
) -> Pairs:
    """All pairs of images that are within `radius` bits by one of several keys, exactly.

    One search over all keys of all images; of what it finds, the keys in `paired` count.

    Args:
        hashes: uint64 [N, K], the keys of each image.
        eligible: bool [N]; other images are in no pair.
        paired: (a, b) compares key a of either image with key b of the other; by default as
            `pairings` says.
        advance: called with the number of tables done, and the plan as a note.
        most: pairs, that memory may be bounded.

    Returns:
        i < j (int64 [P]) and their smallest distance (uint8 [P]), each pair once, sorted.

    Raises:
        Crowded: there are more than `most` pairs, or so many of keys that there may well be.
    """
    paired = paired or pairings(hashes)
    used = sorted({key for keys in paired for key in keys})
    allowed = np.zeros((len(used), len(used)), bool)
    for keys in paired:
        first, second = map(used.index, keys)
        allowed[first, second] = allowed[second, first] = True
    images = np.flatnonzero(eligible)
    # entry e is key used[e % len(used)] of images[e // len(used)]
    entries = np.ascontiguousarray(hashes[images][:, used]).reshape(-1)
    # the keys of two near images make several pairs, and those of one image may be near each other
    most_of_keys = len(used) * (most + len(images))
    a, b = _distinct_within(entries, radius, most_of_keys, advance)
    order = np.argsort(entries)
    entries = entries[order]
    starts = np.flatnonzero(_changes(entries))
    repeats = np.diff(starts, append=len(entries))
    several = np.flatnonzero(repeats > 1)  # a hash that entries share is near itself
    a = np.concatenate([np.searchsorted(entries[starts], a), several])
    b = np.concatenate([np.searchsorted(entries[starts], b), several])
    ends = np.cumsum(repeats[a] * repeats[b])
    if len(ends) and ends[-1] > 2 * len(used) * most_of_keys:  # too many even if all are copies
        raise Crowded

    found, size = [np.empty(0, np.uint64)], 0
    for begin in range(0, int(ends[-1]) if len(ends) else 0, COMBINED):
        combined = np.arange(begin, min(begin + COMBINED, int(ends[-1])))
        pair = np.searchsorted(ends, combined, side="right")
        one, other = np.divmod(ends[pair] - 1 - combined, repeats[b[pair]])
        one, other = one + starts[a[pair]], other + starts[b[pair]]
        distance = np.bitwise_count(entries[one] ^ entries[other])
        good = (one < other) | (distance > 0)  # entries of one hash come up both ways round
        one, other = order[one], order[other]
        good &= allowed[one % len(used), other % len(used)]
        i, j = images[one // len(used)], images[other // len(used)]
        good &= i != j
        packed = np.minimum(i, j)[good] * len(hashes) + np.maximum(i, j)[good]
        found.append(packed.astype(np.uint64) << DISTANCE_BITS | distance[good])
        size += len(packed)
        if size > most:
            found = [_smallest(found)]
            size = len(found[0])
            if size > most:
                raise Crowded
    pairs = _smallest(found)
    i, j = np.divmod((pairs >> DISTANCE_BITS).astype(np.int64), max(len(hashes), 1))
    return i, j, (pairs & (2**DISTANCE_BITS - 1)).astype(np.uint8)


def _smallest(found: list[np.ndarray]) -> np.ndarray:
    """Packed pairs (the distance is in the low bits) in order, each at its smallest distance."""
    pairs = np.concatenate(found)
    pairs.sort()
    return pairs[_changes(pairs >> DISTANCE_BITS)]


def _changes(ordered: np.ndarray) -> np.ndarray:
    """Where a sorted array has another value than before."""
    return np.concatenate([np.ones(min(len(ordered), 1), bool), ordered[1:] != ordered[:-1]])


def bits_apart(one: np.ndarray, other: np.ndarray, paired: Keys | None = None) -> np.ndarray:
    """Smallest distances of pairs of images by every key: uint8 [P].

    Args:
        one, other: uint64 [P, K], the keys of the two images of each pair.
    """
    both = both_ways(paired or pairings(one))
    return np.min([np.bitwise_count(one[:, a] ^ other[:, b]) for a, b in both], axis=0)


def pairings(hashes: np.ndarray) -> Keys:
    """Which keys are compared with which, of hashes [N, K] with or without those of turns."""
    return TURNED if hashes.shape[1] > QUARTER else PAIRED


def nearest(
    hashes: np.ndarray, others: np.ndarray, radius: int, most: int = 0, paired: Keys | None = None
) -> Pairs:
    """The nearest of some other images to each image, by every key, by brute force.

    Args:
        hashes: uint64 [N, K], the keys of each image.
        others: uint64 [M, K], the keys of the images that they are compared with.
        most: of the others that an image gets: those of least distance, of equal ones the first;
            0 is all within the radius.

    Returns:
        Rows of `hashes` and of `others` (int64 [P]) and their smallest distance (uint8 [P]),
        sorted by row, distance and other.
    """
    paired = paired or pairings(hashes)
    height, width = TILE
    distance = np.empty((len(hashes), width), np.uint8)
    below = np.full(len(hashes), radius + 1, np.uint8)  # of distances that are still wanted
    found = np.empty(0, np.uint64)
    for start in range(0, len(others), width):
        columns = np.ascontiguousarray(others[start : start + width].T)
        count = columns.shape[1]
        for top in range(0, len(hashes), height):
            rows = hashes[top : top + height]
            _distances(rows, columns, paired, distance[top : top + height, :count])
        row, column = np.divmod(np.flatnonzero(distance[:, :count] < below[:, None]), count)
        apart = distance[row, column].astype(np.uint64)
        key = row.astype(np.uint64) << DISTANCE_BITS | apart
        found = np.concatenate([found, key << PLACE_BITS | (column + start).astype(np.uint64)])
        found.sort()
        if most:
            row = (found >> (DISTANCE_BITS + PLACE_BITS)).astype(np.int64)
            place = np.arange(len(found)) - np.searchsorted(row, row)
            full = place == most - 1  # no later one that is as far as this can come before it
            below[row[full]] = _distance_of(found[full])
            found = found[place < most]
    row = (found >> (DISTANCE_BITS + PLACE_BITS)).astype(np.int64)
    return row, (found & (2**PLACE_BITS - 1)).astype(np.int64), _distance_of(found)


def both_ways(paired: Keys) -> Keys:
    """Pairings, each from either side."""
    return sorted({keys for one, other in paired for keys in ((one, other), (other, one))})


def _distances(rows: np.ndarray, columns: np.ndarray, paired: Keys, out: np.ndarray) -> None:
    """Smallest bits between images, uint8 [R, C], of keys uint64 [R, K] and [K, C]."""
    difference, bits = np.empty(out.shape, np.uint64), np.empty(out.shape, np.uint8)
    out[:] = BITS
    for one, other in both_ways(paired):
        np.bitwise_xor(rows[:, one, None], columns[other], out=difference)
        np.bitwise_count(difference, out=bits)
        np.minimum(out, bits, out=out)


def _distance_of(packed: np.ndarray) -> np.ndarray:
    return (packed >> PLACE_BITS & (2**DISTANCE_BITS - 1)).astype(np.uint8)


def _distinct_within(
    hashes: np.ndarray, radius: int, most: int, advance: Advance
) -> tuple[np.ndarray, np.ndarray]:
    """Each pair of different hashes within the radius, once, in no order: uint64 [P] and [P]."""
    values = np.sort(hashes)
    values = values[_changes(values)]
    found, size = [np.empty((2, 0), np.uint64)], 0
    planned = plan(len(values), radius)
    edges = [BITS * block // planned.blocks for block in range(planned.blocks + 1)]
    blocks = [(low, high - low) for low, high in pairwise(edges)]
    tables = list(combinations(range(planned.blocks), planned.shared)) if radius else []
    for first, group in groupby(tables, lambda table: table[: planned.split > 0]):
        parts = _parts(values, blocks[first[0]], planned.split) if first else [values]
        chosen = list(group)
        for part in parts:
            for table in chosen:
                for pairs in _agreeing(part, blocks, table, planned.split, radius):
                    found.append(pairs)
                    size += pairs.shape[1]
                    if size > most:
                        raise Crowded
        advance(len(chosen), str(planned))
    a, b = np.concatenate(found, axis=1)
    return a, b


def _parts(values: np.ndarray, block: Block, bits: int) -> Iterator[np.ndarray]:
    """The hashes that agree on the highest bits of a block, where there are several."""
    key = _top(values, block, bits)
    ordered = values[np.argsort(key, kind="stable")]
    ends = np.cumsum(np.bincount(key))
    for begin, end in pairwise([0, *ends]):
        if end - begin > 1:
            yield ordered[begin:end]


def _top(values: np.ndarray, block: Block, bits: int) -> np.ndarray:
    """The highest bits of a block: uint16 [N]."""
    low, width = block
    return (values >> (low + width - bits) & ((1 << bits) - 1)).astype(np.uint16)


def _agreeing(
    values: np.ndarray, blocks: Sequence[Block], table: tuple[int, ...], split: int, radius: int
) -> Iterator[np.ndarray]:
    """The table's pairs within the radius: uint64 [2, P].

    Only those for which these are the first blocks that agree, so that each pair comes up in one
    table.
    """
    key, free = np.zeros(len(values), np.uint16), KEY_BITS
    for block in table:
        low, width = blocks[block]
        if block == table[0]:
            width -= split  # they agree on these bits already
        bits = min(free, width)
        key = key << bits | _top(values, (low, width), bits)
        free -= bits
    order = np.argsort(key, kind="stable")
    masks = [((1 << width) - 1) << low for low, width in blocks]
    same = sum(masks[block] for block in table)
    before = [masks[block] for block in range(max(table, default=0)) if block not in table]
    for pairs in _compared(values[order], key[order], radius):
        difference = pairs[0] ^ pairs[1]
        good = difference & same == 0
        for mask in before:
            good &= difference & mask != 0
        yield pairs[:, good]


def _compared(values: np.ndarray, key: np.ndarray, radius: int) -> Iterator[np.ndarray]:
    """Pairs within the radius, uint64 [2, P]: all that agree on the (sorted) key, and some others.

    Compares each hash with the one that is 1, 2, … places on, until no key goes on so far.
    """
    total = len(values)
    difference, distance = np.empty(CHUNK, np.uint64), np.empty(CHUNK, np.uint8)
    found, size = [], 0
    for begin in range(0, total - 1, CHUNK):
        step, places = 0, None
        while True:
            step += 1
            if places is None:
                count = max(min(CHUNK, total - step - begin), 0)
                one, other = values[begin:][:count], values[begin + step :][:count]
                if step % EVERY == 1 or not count:
                    agree = key[begin:][:count] == key[begin + step :][:count]
                    if np.count_nonzero(agree) <= count * SPARSE:
                        places = np.flatnonzero(agree) + begin
            if places is not None:
                places = places[: places.searchsorted(total - step)]
                places = places[key[places] == key[places + step]]
                if not len(places):
                    break
                one, other = values[places], values[places + step]
            np.bitwise_xor(one, other, out=difference[: len(one)])
            np.bitwise_count(difference[: len(one)], out=distance[: len(one)])
            near = distance[: len(one)] <= radius
            if np.count_nonzero(near):
                found.append(np.stack([one[near], other[near]]))
                size += found[-1].shape[1]
            if size > COMBINED:
                yield np.concatenate(found, axis=1)
                found, size = [], 0
    if found:
        yield np.concatenate(found, axis=1)
