"""Dedup beside imagededup: good pictures dropped, edited copies found, pairs flagged by style.

    python -m benchmarks.dedup_quality --data ../shared/data --imagededup /tmp/idd/bin/python \\
        --real FOLDER --sheets FOLDER
    python -m benchmarks.dedup_quality --data ../shared/data --each 60 --edited 20 --images 300

Kinds: `--each` drawn pictures of every kind in `benchmarks.dedup_kinds`, no two of which show the
same, and the real ones of each folder in `--real` (at most `--most`, one of those with equal
pixels). Whatever is dropped there is dropped wrongly. Kinds and edits have two halves: nobody tunes
on the one that is held out.
Edits: `--edited` originals of each style of PACS and of Tiny-ImageNet, each edit of all of them. A
copy is found where it is flagged with its original.
Styles: all pairs flagged among `--images` of each style, and among all of PACS together, but those
known to show the same (`SAME`); pairs that are left may still be true, which `--sheets` shows.

imagededup is PHash with its own defaults, radius 10; it needs an environment of its own, with some
GB of torch:

    python3 -m venv --without-pip /tmp/idd
    python3 -m pip --python /tmp/idd/bin/python install imagededup
"""

import argparse
import hashlib
import io
import json
import sys
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from benchmarks import dedup_edits, dedup_kinds
from benchmarks.dedup_stage import ImageDedup, Judged, dropped, flag_pairs
from benchmarks.limits import processor
from benchmarks.pictures import SAME, edited, fingerprints_of, load, styles
from kd3_pipeline.dedup.judgement import LOW_INFORMATION

PACS = "pacs-dog-horse/train.parquet"
TINY = "tiny-imagenet-32/train-00000-of-00002.parquet"
TINY_NAME = "Tiny-ImageNet"
TABLES = ("kinds", "edits", "styles")
TUNING, HELD_OUT = "tuning", "held out"
MOST_DROPPED = 200  # pictures on a sheet
TILE = 128  # pixels
Shown = tuple[list[bytes], str]  # pictures side by side on a sheet, and what is below them


@dataclass
class Bench:
    """Options of one run, imagededup's process, and what sheets will show."""

    given: argparse.Namespace
    theirs: ImageDedup | None
    gone: dict[str, list[Shown]] = field(default_factory=dict)  # by kind or style
    flagged: list[Shown] = field(default_factory=list)

    def judge(self, name: str, files: Sequence[bytes]) -> tuple[Judged, dict[str, Any]]:
        """What becomes of distinct pictures, by both."""
        ours = dropped(files)
        for row in np.flatnonzero(ours.dropped).tolist():
            original = int(ours.original[row])
            pictures = [files[row]] + ([files[original]] if original >= 0 else [])
            shown = pictures, f"{name}: {ours.reasons[row]}"
            self.gone.setdefault(name, []).append(shown)
        theirs = self.theirs.judge(files) if self.theirs else None
        return ours, {
            "pictures": len(files),
            "dropped": int(ours.dropped.sum()),
            "low_information": ours.count(LOW_INFORMATION),
            "imagededup": int(theirs.removed.sum()) if theirs else None,
            "imagededup_unread": theirs.unread if theirs else None,
            "imagededup_pairs": sorted(theirs.pairs) if theirs else [],
        }

    def kinds(self) -> list[dict[str, Any]]:
        """Drawn and real kinds, what is dropped of each."""
        rows = []
        for name in dedup_kinds.KINDS if self.given.kinds is None else self.given.kinds:
            say(name)
            half = HELD_OUT if name in dedup_kinds.HELD_OUT else TUNING
            files = dedup_kinds.drawn(name, self.given.each, self.given.seed)
            rows.append({"kind": name, "of": f"drawn, {half}", **self.judge(name, files)[1]})
        folders = sorted(self.given.real.iterdir()) if self.given.real else []
        for folder in filter(Path.is_dir, folders):
            say(folder.name)
            half = HELD_OUT if zlib.crc32(folder.name.encode()) % 2 else TUNING
            files, same = distinct(folder, self.given.most, self.given.seed)
            row = self.judge(folder.name, files)[1]
            rows.append({"kind": folder.name, "of": f"real, {half}", "same": same, **row})
        return rows

    def edits(self) -> list[dict[str, Any]]:
        """Each edit's copies that are found, by source of the originals."""
        rows = []
        sources = {name: files[: self.given.edited] for name, files in self.sources().items()}
        for name in dedup_edits.ALL if self.given.edits is None else self.given.edits:
            say(name)
            half = HELD_OUT if name in dedup_edits.HELD_OUT else TUNING
            row: dict[str, Any] = {"edit": name, "of": half, "ours": {}, "imagededup": {}}
            for source, files in sources.items():
                both = [*files, *edited(files, dedup_edits.ALL[name], self.given.seed)]
                i, j, _ = flag_pairs(fingerprints_of(both), both)
                row["ours"][source] = float((j - i == len(files)).sum()) / len(files)
                if self.theirs:
                    pairs = self.theirs.judge(both).pairs
                    found = sum(other - one == len(files) for one, other in pairs)
                    row["imagededup"][source] = found / len(files)
            rows.append(row)
        return rows

    def styles(self) -> list[dict[str, Any]]:
        """Flagged pairs and dropped pictures among those of each style."""
        rows = []
        found = {name: files[: self.given.images] for name, files in self.sources().items()}
        together = [file for name, files in found.items() if name != TINY_NAME for file in files]
        found["PACS together"] = list(dict.fromkeys(together))
        for name, files in found.items():
            say(name)
            names = [hashlib.sha256(file).hexdigest()[:8] for file in files]
            i, j, alike = flag_pairs(fingerprints_of(files), files)
            order = np.argsort(-alike, kind="stable")
            new = [n for n in order.tolist() if frozenset((names[i[n]], names[j[n]])) not in SAME]
            for n in new:
                text = f"{name} {alike[n]:.3f} {names[i[n]]} {names[j[n]]}"
                self.flagged.append(([files[i[n]], files[j[n]]], text))
            judged, row = self.judge(name, files)
            theirs = row.pop("imagededup_pairs")
            same = [frozenset((names[one], names[other])) in SAME for one, other in theirs]
            rows.append(
                {
                    "style": name,
                    **row,
                    "known": len(i) - len(new),
                    "flagged": len(new),
                    "imagededup_flagged": len(same) - sum(same) if self.theirs else None,
                    "reasons": Counter(reason for reason in judged.reasons if reason),
                    "pairs": [[names[i[n]], names[j[n]], float(alike[n])] for n in new],
                }
            )
        return rows

    def sources(self) -> dict[str, list[bytes]]:
        """Real pictures by style, in an order of the seed, each file once."""
        found = styles(self.given.data / PACS) | {TINY_NAME: load(self.given.data / TINY)}
        shuffled = {}
        for name, files in found.items():
            files = list(dict.fromkeys(files))
            order = np.random.default_rng(self.given.seed).permutation(len(files)).tolist()
            shuffled[name] = [files[row] for row in order]
        return shuffled


def distinct(folder: Path, most: int, seed: int) -> tuple[list[bytes], int]:
    """Some pictures of a folder, and how many were left out because another has their pixels."""
    seen: set[tuple[tuple[int, int], bytes]] = set()
    files: list[bytes] = []
    same = 0
    paths = sorted(path for path in folder.iterdir() if path.is_file())
    for place in np.random.default_rng(seed).permutation(len(paths)).tolist():
        with Image.open(paths[place]) as image:
            pixels = image.size, hashlib.sha256(image.convert("RGBA").tobytes()).digest()
        if pixels in seen:
            same += 1
        elif len(files) < most:
            files.append(paths[place].read_bytes())
        seen.add(pixels)
    return files, same


def say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


# --- tables, in Markdown


def share(part: float | None, whole: float = 1) -> str:
    return "–" if part is None or not whole else f"{100 * part / whole:.1f}"


def show_kinds(rows: Sequence[dict[str, Any]]) -> None:
    print("## Kinds: distinct pictures that are dropped\n")
    print("| kind | half | pictures | dropped | % | low information | imagededup | % |")
    print("|---|---|---|---|---|---|---|---|")
    totals: dict[str, Counter[str]] = {}
    for row in rows:
        total = totals.setdefault(row["of"], Counter())
        for name in ("pictures", "dropped", "low_information"):
            total[name] += row[name]
        if row["imagededup"] is not None:
            total["imagededup"] += row["imagededup"]
    measured = any(row["imagededup"] is not None for row in rows)
    for row in rows:
        print(_kind(row["kind"], row["of"], row))
    for of, total in totals.items():
        counts = {"imagededup": 0 if measured else None, **total}
        print(_kind(f"**all {of}**", "", counts))
    for row in rows:
        if row.get("same"):
            print(f"\n{row['kind']}: {row['same']} with the pixels of another left out")
        if row["imagededup_unread"]:
            print(f"\n{row['kind']}: imagededup cannot read {row['imagededup_unread']}")
    print()


def _kind(name: str, of: str, row: dict[str, Any]) -> str:
    count, theirs = row["pictures"], row["imagededup"]
    cells = [name, of, count, row["dropped"], share(row["dropped"], count)]
    cells += [row["low_information"], "–" if theirs is None else theirs, share(theirs, count)]
    return "| " + " | ".join(map(str, cells)) + " |"


def show_edits(rows: Sequence[dict[str, Any]], originals: int) -> None:
    print(f"## Edits: copies found, %, of up to {originals} originals each (imagededup)\n")
    sources = list(rows[0]["ours"]) if rows else []
    print("| edit | half | all | " + " | ".join(sources) + " |")
    print("|---" * (3 + len(sources)) + "|")
    for row in rows:
        print(_edit(row["edit"], row["of"], [row], sources))
    for half in (TUNING, HELD_OUT):
        print(_edit(f"**all {half}**", "", [row for row in rows if row["of"] == half], sources))
    print(_edit("**all**", "", rows, sources))
    print()


def _edit(name: str, of: str, rows: Sequence[dict[str, Any]], sources: Sequence[str]) -> str:
    cells = []
    for chosen in (sources, *([source] for source in sources)):
        ours = [row["ours"][source] for row in rows for source in chosen]
        theirs = [
            row["imagededup"][source] for row in rows for source in chosen if row["imagededup"]
        ]
        cell = share(float(np.mean(ours))) if ours else "–"
        cells.append(cell + (f" ({share(float(np.mean(theirs)))})" if theirs else ""))
    return f"| {name} | {of} | " + " | ".join(cells) + " |"


def show_styles(rows: Sequence[dict[str, Any]]) -> None:
    print("## Styles: flagged pairs beside those known to show the same\n")
    print(
        "| style | pictures | flagged | known | dropped | % | low information"
        " | imagededup flagged | dropped | % |"
    )
    print("|---" * 10 + "|")
    for row in rows:
        count, theirs = row["pictures"], row["imagededup"]
        cells = [row["style"], count, row["flagged"], row["known"], row["dropped"]]
        cells += [share(row["dropped"], count), row["low_information"]]
        cells += ["–" if one is None else one for one in (row["imagededup_flagged"], theirs)]
        print("| " + " | ".join(map(str, [*cells, share(theirs, count)])) + " |")
    print()


def some(gone: Mapping[str, Sequence[Shown]], seed: int) -> list[Shown]:
    """MOST_DROPPED of the pictures, as evenly of all kinds and styles as there are enough."""
    draws = np.random.default_rng(seed)
    turns: list[tuple[int, str, Shown]] = []
    for name, shown in gone.items():
        order = draws.permutation(len(shown)).tolist()
        turns += [(turn, name, shown[row]) for turn, row in enumerate(order)]
    turns.sort(key=lambda one: one[0])
    return [shown for _, _, shown in sorted(turns[:MOST_DROPPED], key=lambda one: one[1])]


def sheet(shown: Sequence[Shown], across: int) -> Image.Image:
    """Pictures, or pairs of them, and what is said of each."""
    wide, high = 2 * TILE + 14, TILE + 20
    page = Image.new("RGB", (across * wide, max(-(-len(shown) // across), 1) * high), "#dddddd")
    draw = ImageDraw.Draw(page)
    for place, (pictures, text) in enumerate(shown):
        left, top = place % across * wide, place // across * high
        for number, file in enumerate(pictures):
            image = Image.open(io.BytesIO(file)).convert("RGB")
            image = image.resize((TILE, round(TILE * min(image.height / image.width, 1))))
            page.paste(image, (left + number * (TILE + 2), top))
        draw.text((left, top + TILE + 2), text, "black", font_size=12)
    return page


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the data sets; without it only kinds")
    parser.add_argument("--tables", nargs="*", choices=TABLES, default=list(TABLES))
    parser.add_argument("--each", type=int, default=300, help="drawn pictures of a kind")
    parser.add_argument(
        "--kinds",
        nargs="*",
        choices=list(dedup_kinds.KINDS),
        help="default: all; without a name none",
    )
    parser.add_argument("--real", type=Path, help="folder of folders of pictures")
    parser.add_argument("--most", type=int, default=3000, help="pictures of a real kind")
    parser.add_argument("--edited", type=int, default=200, help="originals of a style")
    parser.add_argument("--edits", nargs="*", choices=list(dedup_edits.ALL), help="default: all")
    parser.add_argument("--images", type=int, default=5000, help="pictures of a style")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--imagededup", type=Path, metavar="PYTHON", help="of its environment")
    parser.add_argument("--sheets", type=Path, help="folder for flagged.png and dropped.png")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def run(given: argparse.Namespace, theirs: ImageDedup | None) -> None:
    bench = Bench(given, theirs)
    report: dict[str, Any] = {"machine": processor(), "seed": given.seed}
    if "kinds" in given.tables:
        report["kinds"] = bench.kinds()
        show_kinds(report["kinds"])
    if given.data is None:
        if set(given.tables) != {"kinds"}:
            print("Edits and styles are LEFT OUT: they need --data\n")
    else:
        if "edits" in given.tables:
            report["edits"] = bench.edits()
            show_edits(report["edits"], given.edited)
        if "styles" in given.tables:
            report["styles"] = bench.styles()
            show_styles(report["styles"])
    if given.json:
        given.json.write_text(json.dumps(report, indent=2) + "\n")
    if given.sheets:
        given.sheets.mkdir(parents=True, exist_ok=True)
        sheet(some(bench.gone, given.seed), 8).save(given.sheets / "dropped.png")
        sheet(bench.flagged, 6).save(given.sheets / "flagged.png")


def main() -> None:
    given = parsed()
    if given.imagededup:
        with ImageDedup(given.imagededup) as theirs:
            run(given, theirs)
    else:
        print("imagededup is LEFT OUT: --imagededup names the Python that has it\n")
        run(given, None)


if __name__ == "__main__":
    main()
