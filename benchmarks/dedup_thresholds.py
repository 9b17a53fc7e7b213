"""Radius and similarity: edited copies found, and unlike pairs taken for one, at several of each.

    python -m benchmarks.dedup_thresholds --data ../shared/data/pacs-dog-horse/train.parquet \\
        --others ../shared/data/tiny-imagenet-32/*.parquet
    python -m benchmarks.dedup_thresholds --data … --images 400 --edited 40

Of `--images` real images, `--edited` are edited in 26 ways, and each copy is looked for by the
stage's own hashes, candidates and verification, and by a plain pHash. Unlike pairs are all others
among the images. Both are cut in halves by the seed: a default that is chosen on the first half is
judged by the second, which the tables show.

Pairs of the file that show the same picture (SAME) are not counted. They were found by eye among
the candidates of any key at 14 bits, those above a similarity of 0.64. `--others` are many more
images, of which every flagged pair is counted, true or not, and the largest group.
"""

import argparse
import hashlib
import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image, ImageDraw

from benchmarks.limits import processor
from benchmarks.pictures import EDITS, SAME, edited, fingerprints_of, load
from pipeline.dedup.fingerprints import Fingerprints
from pipeline.dedup.near import PAIRED, candidate_pairs
from pipeline.dedup.stars import Terms, find_stars
from pipeline.dedup.verifier import verifier
from pipeline.dedup.verify import similarity

RADII = (8, 10, 12, 14)
AT_ONCE = 2000  # pairs verified
LEAST = (-1.0, 0.70, 0.75, 0.80, 0.85, 0.90)  # similarity; -1 verifies nothing


@dataclass(frozen=True)
class Unlike:
    """Pairs i < j of the images that are near by some key, none known to be of one picture."""

    i: np.ndarray
    j: np.ndarray
    distance: np.ndarray
    similarity: np.ndarray
    plain: np.ndarray  # bits between the two whole pictures' hashes
    images: int
    cost: float  # seconds of CPU time to verify one

    @classmethod
    def among(cls, fingerprints: Fingerprints, names: Sequence[str]) -> "Unlike":
        i, j, distance = candidate_pairs(fingerprints.hashes, max(RADII), fingerprints.comparable)
        started = time.process_time()
        alike = similarity(
            fingerprints.grey[i], fingerprints.trim[i], fingerprints.grey[j], fingerprints.trim[j]
        )
        cost = (time.process_time() - started) / max(len(i), 1)
        plain = np.bitwise_count(fingerprints.hashes[i, 0] ^ fingerprints.hashes[j, 0])
        both = (frozenset((names[a], names[b])) for a, b in zip(i, j, strict=True))
        unlike = np.array([len(pair) == 2 and pair not in SAME for pair in both], bool)
        parts = (part[unlike] for part in (i, j, distance, alike, plain))
        return cls(*parts, len(fingerprints.hashes), cost)

    def flagged(self, radius: int, least: float, half: int | None = None) -> np.ndarray:
        """bool [P]; of a half are the pairs whose images are both at its places."""
        chosen = (self.distance <= radius) & (self.similarity >= least)
        return chosen & self._within(half)

    def flagged_plain(self, radius: int) -> np.ndarray:
        return self.plain <= radius

    def _within(self, half: int | None) -> np.ndarray:
        if half is None:
            return np.ones(len(self.i), bool)
        return (self.i % 2 == half) & (self.j % 2 == half)


@dataclass(frozen=True)
class Copies:
    """How near copies by one edit are to their originals, which are the first images."""

    distance: np.ndarray  # bits by the nearest of the stage's keys; 65 where nothing is looked for
    similarity: np.ndarray
    plain: np.ndarray  # bits between the two whole pictures' hashes

    @classmethod
    def of(
        cls, name: str, files: Sequence[bytes], fingerprints: Fingerprints, seed: int
    ) -> "Copies":
        copies = fingerprints_of(edited(files, EDITS[name], seed))
        count = len(files)
        near = [
            np.bitwise_count(fingerprints.hashes[:count, one] ^ copies.hashes[:, other])
            for pair in PAIRED
            for one, other in (pair, pair[::-1])
        ]
        known = fingerprints.comparable[:count] & copies.comparable
        return cls(
            np.where(known, np.min(near, axis=0), 65),
            similarity(
                fingerprints.grey[:count], fingerprints.trim[:count], copies.grey, copies.trim
            ),
            near[0],
        )

    def found(self, radius: int, least: float, half: int) -> float:
        """The share of one half's copies."""
        found = (self.distance <= radius) & (self.similarity >= least)
        return float(found[half::2].mean())

    def found_plain(self, radius: int, half: int) -> float:
        return float((self.plain <= radius)[half::2].mean())


def recall(copies: Mapping[str, Copies], half: int, radius: int, least: float) -> float:
    return float(np.mean([copy.found(radius, least, half) for copy in copies.values()]))


def plain_recall(copies: Mapping[str, Copies], half: int, radius: int) -> float:
    return float(np.mean([copy.found_plain(radius, half) for copy in copies.values()]))


def among_others(paths: Sequence[Path], radius: int, least: float) -> dict[str, Any]:
    """What is flagged among many images of which no pair is known, files once each."""
    fingerprints = fingerprints_of(sorted({file for path in paths for file in load(path)}))
    i, j, _ = candidate_pairs(fingerprints.hashes, radius, fingerprints.comparable)
    alike = np.concatenate(
        [np.empty(0, np.float32)]
        + [
            similarity(
                fingerprints.grey[a],
                fingerprints.trim[a],
                fingerprints.grey[b],
                fingerprints.trim[b],
            )
            for start in range(0, len(i), AT_ONCE)
            for a, b in [(i[start : start + AT_ONCE], j[start : start + AT_ONCE])]
        ]
    )
    ordered = np.flatnonzero(fingerprints.comparable)
    terms = Terms(radius, least)
    stars = find_stars(fingerprints.hashes, ordered, terms, verifier(fingerprints, None))
    return {
        "images": len(fingerprints.grey),
        "radius": radius,
        "candidates": len(i),
        "flagged": [int((alike >= one).sum()) for one in LEAST],
        "largest_group": int(np.bincount(stars.centre).max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="Parquet with a column image")
    parser.add_argument("--images", type=int, default=1600)
    parser.add_argument("--edited", type=int, default=400, help="of the images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--radius", type=int, default=12, help="of the default, in bits")
    parser.add_argument("--similarity", type=float, default=0.85, help="of the default")
    parser.add_argument("--others", type=Path, nargs="*", default=[], help="Parquet files")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sheet", type=Path, help="PNG of the most similar pairs of the images")
    options = parser.parse_args()

    files = load(options.data)
    order = np.random.default_rng(options.seed).permutation(len(files))[: options.images]
    files = [files[row] for row in order]
    names = [hashlib.sha256(file).hexdigest()[:8] for file in files]
    fingerprints = fingerprints_of(files)
    pairs = Unlike.among(fingerprints, names)
    copies = {
        name: Copies.of(name, files[: options.edited], fingerprints, options.seed) for name in EDITS
    }

    default = options.radius, options.similarity
    report = {
        "machine": processor(),
        "versions": {"python": platform.python_version(), "numpy": np.__version__}
        | {"pillow": PIL.__version__},
        "seed": options.seed,
        "images": len(files),
        "edited": min(options.edited, len(files)),
        "default": {"radius": default[0], "similarity": default[1]},
        "verify_ms_a_pair": pairs.cost * 1e3,
        "points": [
            {
                "radius": radius,
                "similarity": least,
                "recall": [recall(copies, half, radius, least) for half in (0, 1)],
                "flagged": [int(pairs.flagged(radius, least, half).sum()) for half in (0, 1)],
                "flagged_of_all": int(pairs.flagged(radius, least).sum()),
            }
            for radius in RADII
            for least in LEAST
        ],
        "plain": [
            {
                "radius": radius,
                "recall": [plain_recall(copies, half, radius) for half in (0, 1)],
                "flagged_of_all": int(pairs.flagged_plain(radius).sum()),
            }
            for radius in (8, 10)
        ],
        "edits": {
            name: {
                "plain 8": copy.found_plain(8, 1),
                "plain 10": copy.found_plain(10, 1),
                "candidates": copy.found(default[0], -1, 1),
                "default": copy.found(*default, 1),
                "similarity_5_percent": float(np.quantile(copy.similarity, 0.05)),
            }
            for name, copy in copies.items()
        },
        "flagged": [
            [
                names[pairs.i[n]],
                names[pairs.j[n]],
                int(pairs.distance[n]),
                float(pairs.similarity[n]),
            ]
            for n in np.flatnonzero(pairs.flagged(*default))
        ],
        "others": among_others(options.others, *default) if options.others else None,
    }
    show(report, pairs)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    if options.sheet:
        sheet(pairs, fingerprints.grey, names).save(options.sheet)


def show(report: dict[str, Any], pairs: Unlike) -> None:
    """Markdown tables: recall and flagged pairs by point, recall by edit."""
    at = report["default"]
    total = pairs.images * (pairs.images - 1) // 2
    print(
        f"{report['machine']}; seed {report['seed']}; {report['images']:,} images, {total:,} pairs,"
        f" {report['edited']} of them edited in {len(EDITS)} ways; verification"
        f" {report['verify_ms_a_pair']:.2f} ms of CPU time a pair; default: radius {at['radius']},"
        f" similarity {at['similarity']:.2f}\n"
    )
    for half, name in enumerate(("first", "second")):
        points(report, half, name)
    for one in report["plain"]:
        print(
            f"plain pHash, radius {one['radius']}: {100 * one['recall'][1]:.1f} % on half two,"
            f" {one['flagged_of_all']} flagged of all\n"
        )
    print("| edit | plain 8 | plain 10 | candidates | default | similarity, lowest 5 % |")
    print("|---|---|---|---|---|---|")
    for name, row in report["edits"].items():
        *shares, low = row.values()
        print(f"| {name} | " + " | ".join(f"{100 * one:.1f}" for one in shares) + f" | {low:.2f} |")
    print(f"\nFlagged at the default, beside those known to be the same: {len(report['flagged'])}")
    for one, other, distance, alike in report["flagged"]:
        print(f"- {one} {other}: {distance} bits, {alike:.3f}")
    if others := report["others"]:
        counts = zip(LEAST[1:], others["flagged"][1:], strict=True)
        print(
            f"\nAmong {others['images']:,} other images, {others['candidates']:,} candidates at"
            f" radius {others['radius']}, largest group {others['largest_group']}; flagged, true or"
            f" not: " + ", ".join(f"{count} ≥ {least:.2f}" for least, count in counts)
        )


def points(report: dict[str, Any], half: int, name: str) -> None:
    """Recall and flagged pairs by radius and similarity, of one half."""
    print(f"Recall on the {name} half, % (unlike pairs flagged: in this half; among all)\n")
    print("| radius | not verified | " + " | ".join(f"≥ {least:.2f}" for least in LEAST[1:]) + " |")
    print("|---" * (1 + len(LEAST)) + "|")
    for radius in RADII:
        cells = [
            f"{100 * one['recall'][half]:.1f} ({one['flagged'][half]}; {one['flagged_of_all']})"
            for one in report["points"]
            if one["radius"] == radius
        ]
        print(f"| {radius} | " + " | ".join(cells) + " |")
    print()


def sheet(pairs: Unlike, grey: np.ndarray, names: Sequence[str], most: int = 96) -> Image.Image:
    """The pairs that are most alike, six in a row."""
    order = np.argsort(-pairs.similarity, kind="stable")[:most]
    page = Image.new("L", (6 * 270, -(-len(order) // 6) * 148), 255)
    draw = ImageDraw.Draw(page)
    for place, n in enumerate(order.tolist()):
        left, top = place % 6 * 270, place // 6 * 148
        for offset, image in ((0, pairs.i[n]), (130, pairs.j[n])):
            page.paste(Image.fromarray(grey[image]).resize((128, 128)), (left + offset, top))
        text = f"{pairs.similarity[n]:.2f} {names[pairs.i[n]]} {names[pairs.j[n]]}"
        draw.text((left, top + 129), text, 0, font_size=14)
    return page


if __name__ == "__main__":
    main()
