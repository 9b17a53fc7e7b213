"""Named issues: how many pictures that have one are found, and how many that have none are said to.

    python -m benchmarks.dedup_issues --data ../shared/data/pacs-dog-horse/train.parquet \\
        --small ../shared/data/tiny-imagenet-32/train-00000-of-00002.parquet
    python -m benchmarks.dedup_issues --data … --cleanvision /path/to/venv/bin/python

Pictures with an issue are made of real ones, or drawn; those without are the real ones themselves:
photographs, paintings, cartoons, sketches, and thumbnails of 32 pixels (`--small`). Limits were
chosen on the first half (`--half 0`), of other pictures and with other strengths than the second.
cleanvision, in a Python that has it, sees the same files; it has no text, collage and tiny subject.
"""

import argparse
import io
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from benchmarks.pictures import BICUBIC, fingerprints_of, saved
from kd3_pipeline.dedup.issues import issues
from kd3_pipeline.params import Dedup

Make = Callable[[Sequence[Image.Image], np.random.Generator], Image.Image]
FONTS = Path("/usr/share/fonts/truetype/dejavu")  # of Debian's package fonts-dejavu
WORDS = (
    *("the", "of", "a", "picture", "and", "to", "horse", "dog", "in", "is", "on", "that", "was"),
    *("training", "images", "class", "network", "results", "table", "more", "than", "each"),
    *("paper", "method", "question", "answer", "street", "number", "open", "closed", "annual"),
)
THEIRS = {
    "blurred": "is_blurry_issue",
    "dark": "is_dark_issue",
    "light": "is_light_issue",
    "odd_aspect": "is_odd_aspect_ratio_issue",
    "grey": "is_grayscale_issue",
}
SCRIPT = """
import sys, json
from cleanvision import Imagelab
lab = Imagelab(data_path=sys.argv[1])
names = ["blurry", "dark", "light", "odd_aspect_ratio", "grayscale"]
lab.find_issues({name: {} for name in names}, n_jobs=1, verbose=False)
found = lab.issues
rows = {path.rsplit("/", 1)[-1]: {c: bool(v) for c, v in row.items() if c.startswith("is_")}
        for path, row in found.to_dict("index").items()}
json.dump(rows, open(sys.argv[2], "w"))
"""


@dataclass(frozen=True)
class Kind:
    """Pictures with one issue: how each is made, by half."""

    issue: str
    name: str
    make: tuple[Make, Make]


def blurred(sigma: float) -> Make:
    """By a deviation in 227ths of the picture's side."""
    return lambda real, _: real[0].filter(ImageFilter.GaussianBlur(sigma * real[0].width / 227))


def enlarged(side: int) -> Make:
    """A thumbnail blown up."""
    return lambda real, _: real[0].resize((side, side), BICUBIC).resize(real[0].size, BICUBIC)


def moved(pixels: int) -> Make:
    """Blurred by a move to the side."""

    def make(real: Sequence[Image.Image], _: np.random.Generator) -> Image.Image:
        levels = np.asarray(real[0]).astype(np.float32)
        mean = np.mean([np.roll(levels, step, 1) for step in range(pixels)], axis=0)
        return Image.fromarray(mean[:, pixels:].astype(np.uint8))

    return make


def toned(black: float, white: float, gamma: float) -> Make:
    """With other brightness: levels of black and white from 0 to 1."""
    levels = [round(255 * (black + (white - black) * (k / 255) ** gamma)) for k in range(256)]
    return lambda real, _: real[0].point(levels * 3)


def squeezed(across: float, down: float) -> Make:
    return lambda real, _: real[0].resize(
        (round(real[0].width * across), round(real[0].height * down)), BICUBIC
    )


def grey(real: Sequence[Image.Image], _: np.random.Generator) -> Image.Image:
    return real[0].convert("L")


def grey_rgb(real: Sequence[Image.Image], _: np.random.Generator) -> Image.Image:
    return real[0].convert("L").convert("RGB")


def page(
    sizes: tuple[int, ...], names: tuple[str, ...], ink: str, paper: str, columns: int = 1
) -> Make:
    """A page of text."""

    def make(_: Sequence[Image.Image], rng: np.random.Generator) -> Image.Image:
        size = int(rng.choice(sizes))
        font = ImageFont.truetype(FONTS / f"{rng.choice(names)}.ttf", size)
        width, height = int(rng.integers(320, 700)), int(rng.integers(320, 800))
        image = Image.new("RGB", (width, height), paper)
        draw = ImageDraw.Draw(image)
        margin, gap = width // 14, width // 20
        across = (width - 2 * margin - gap * (columns - 1)) / columns
        for column in range(columns):
            left, y = margin + column * (across + gap), float(margin)
            while y < height - margin - size:
                line = ""
                while draw.textlength(line, font) < across * rng.uniform(0.8, 0.95):
                    line += str(rng.choice(WORDS)) + " "
                while draw.textlength(line, font) > across:
                    line = line.rstrip()[:-1]
                if rng.random() < 0.1:
                    line = line[: len(line) // 2]
                draw.text((left, y), line, ink, font)
                y += size * 1.35
        return image

    return make


def collage(rows: int, columns: int, gap: int, ground: str = "white") -> Make:
    """Real pictures side by side."""

    def make(real: Sequence[Image.Image], _: np.random.Generator) -> Image.Image:
        side = 160
        size = columns * side + (columns - 1) * gap, rows * side + (rows - 1) * gap
        image = Image.new("RGB", size, ground)
        for place in range(rows * columns):
            down, across = divmod(place, columns)
            part = real[place].resize((side, side), BICUBIC)
            image.paste(part, (across * (side + gap), down * (side + gap)))
        return image

    return make


def tiny(share: float, ground: str) -> Make:
    """A real picture, small on a plain ground."""

    def make(real: Sequence[Image.Image], rng: np.random.Generator) -> Image.Image:
        image = Image.new("RGB", (400, 300), ground)
        side = round((share * 400 * 300) ** 0.5)
        left, top = int(rng.integers(10, 390 - side)), int(rng.integers(10, 290 - side))
        image.paste(real[0].resize((side, side), BICUBIC), (left, top))
        return image

    return make


SERIF, SANS = ("DejaVuSerif", "DejaVuSerif-Italic"), ("DejaVuSans", "DejaVuSansCondensed")
MONO, BOLD = ("DejaVuSansMono",), ("DejaVuSans-Bold", "DejaVuSerif-Bold")
KINDS = (
    Kind("blurred", "Gaussian, weak", (blurred(1.6), blurred(1.8))),
    Kind("blurred", "Gaussian, strong", (blurred(3), blurred(4))),
    Kind("blurred", "thumbnail blown up", (enlarged(56), enlarged(64))),
    Kind("blurred", "moved", (moved(7), moved(9))),
    Kind("dark", "gamma", (toned(0, 1, 5), toned(0, 0.6, 4))),
    Kind("dark", "levels", (toned(0, 0.2, 1), toned(0, 0.25, 1))),
    Kind("light", "gamma", (toned(0.5, 1, 0.25), toned(0.6, 1, 0.3))),
    Kind("light", "levels", (toned(0.85, 1, 1), toned(0.8, 1, 1))),
    Kind("odd_aspect", "squeezed", (squeezed(1, 0.3), squeezed(3.2, 1))),
    Kind("odd_aspect", "strip", (squeezed(0.2, 1), squeezed(1, 4))),
    Kind("grey", "one channel", (grey, grey)),
    Kind("grey", "three channels", (grey_rgb, grey_rgb)),
    Kind("text", "serif", (page((12, 14), SERIF, "black", "white"),
                           page((13, 16), SERIF, "#222", "#fbf6e8"))),
    Kind("text", "sans", (page((11, 18), SANS, "#333", "white"),
                          page((12, 20), SANS, "black", "#f4f4f4", 2))),
    Kind("text", "bold, mono", (page((14, 22), BOLD, "black", "white"),
                                page((12, 15), MONO, "#ddd", "#202020"))),
    Kind("collage", "2 across", (collage(1, 2, 0), collage(1, 2, 6))),
    Kind("collage", "4", (collage(2, 2, 4), collage(2, 2, 0))),
    Kind("collage", "3 across", (collage(1, 3, 5, "black"), collage(1, 3, 0))),
    Kind("collage", "3 down", (collage(3, 1, 5), collage(3, 1, 4, "black"))),
    Kind("collage", "6", (collage(2, 3, 0), collage(3, 2, 5))),
    Kind("tiny_subject", "on white", (tiny(0.02, "white"), tiny(0.03, "white"))),
    Kind("tiny_subject", "on a colour", (tiny(0.03, "#88a0c0"), tiny(0.02, "#305030"))),
)  # fmt: skip


def real_pictures(data: Path, small: Path | None, half: int, each: int) -> dict[str, list[bytes]]:
    """Files of one half by what they are: photo, art_painting, cartoon, sketch, thumbnail."""
    table = pq.read_table(data)
    files = [image["bytes"] for image in table["image"].to_pylist()]
    domains = table["domain"].to_pylist()
    found: dict[str, list[bytes]] = {}
    for place in np.random.default_rng(0).permutation(len(files)).tolist():
        found.setdefault(domains[place], []).append(files[place])
    if small is not None:
        thumbnails = pq.read_table(small, columns=["image"])["image"].to_pylist()
        chosen = np.random.default_rng(0).permutation(len(thumbnails))[: 2 * each].tolist()
        found["thumbnail"] = [thumbnails[place]["bytes"] for place in chosen]
    return {name: some[half::2][:each] for name, some in found.items()}


def made(photographs: Sequence[bytes], half: int, each: int) -> dict[Kind, list[bytes]]:
    """Pictures with issues."""
    real = [Image.open(io.BytesIO(file)).convert("RGB") for file in photographs]
    pictures = {}
    for number, kind in enumerate(KINDS):
        files = []
        for place in range(each):
            rng = np.random.default_rng([half, number, place])
            some = [real[k] for k in rng.choice(len(real), 6, replace=False)]
            files.append(saved(kind.make[half](some, rng), int(rng.choice([75, 85, 92]))))
        pictures[kind] = files
    return pictures


def ours(files: Sequence[bytes], params: Dedup) -> tuple[dict[str, np.ndarray], float]:
    """Issues of files, and milliseconds of CPU time an image beside the fingerprints."""
    fingerprints = fingerprints_of(files)
    started = time.process_time()
    found = issues(fingerprints, params, lambda rows: (files[row] for row in rows))
    return found, (time.process_time() - started) / len(files) * 1e3


def theirs(files: Sequence[bytes], python: Path) -> dict[str, np.ndarray]:
    """The same by cleanvision."""
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder, "images")
        images.mkdir()
        names = []
        for place, file in enumerate(files):
            form = str(Image.open(io.BytesIO(file)).format).lower()
            names.append(f"{place:06d}.{form}")
            (images / names[-1]).write_bytes(file)
        out = Path(folder, "found.json")
        subprocess.run(
            [python, "-c", SCRIPT, images, out], check=True, stdout=subprocess.DEVNULL, env={}
        )
        rows = json.loads(out.read_text())
    return {name: np.array([rows[one][column] for one in names]) for name, column in THEIRS.items()}


def table(
    groups: Sequence[tuple[str, str, int]], found: Sequence[dict[str, np.ndarray] | None]
) -> str:
    """Lines of issue, kind and shares in percent: of ours, and of cleanvision's."""
    lines = ["| | pictures | found | cleanvision |", "|---|---|---|---|"]
    names = list(dict.fromkeys(issue for issue, _, _ in groups if issue))
    start, places = 0, []
    for issue, name, count in groups:
        places.append((issue, name, slice(start, start + count), count))
        start += count
    for issue in names:
        for own, name, place, count in places:
            if own == issue:
                shares = [_share(one, issue, place) for one in found]
                lines.append(f"| {issue}: {name} | {count} | {' | '.join(shares)} |")
        for own, name, place, count in places:
            if not own and (issue, name) != ("grey", "sketch"):  # which are grey indeed
                shares = [_share(one, issue, place) for one in found]
                lines.append(f"| {issue}: wrongly, {name} | {count} | {' | '.join(shares)} |")
    return "\n".join(lines)


def _share(found: dict[str, np.ndarray] | None, issue: str, place: slice) -> str:
    if found is None or issue not in found:
        return "–"
    return f"{100 * found[issue][place].mean():.1f}"


def precision(
    groups: Sequence[tuple[str, str, int]], found: dict[str, np.ndarray] | None
) -> dict[str, tuple[float, float]]:
    """Precision and recall by issue, in percent; those without are the real pictures alone."""
    kinds = np.array([issue for issue, _, count in groups for _ in range(count)])
    sketches = np.array([name == "sketch" for _, name, count in groups for _ in range(count)])
    result = {}
    for issue in dict.fromkeys(kind for kind in kinds.tolist() if kind):
        if found is not None and issue in found:
            right = found[issue][kinds == issue].sum()
            without = (kinds == "") & ~(sketches & (issue == "grey"))  # which are grey indeed
            wrong = found[issue][without].sum()
            share = right / max(right + wrong, 1)
            result[issue] = (100 * float(share), 100 * float(right / (kinds == issue).sum()))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="real images, .parquet, with `domain`"
    )
    parser.add_argument("--small", type=Path, help="thumbnails, .parquet")
    parser.add_argument("--half", type=int, choices=(0, 1), default=1)
    parser.add_argument("--each", type=int, default=60, help="pictures of a kind")
    parser.add_argument("--real", type=int, default=75, help="real pictures of a kind")
    parser.add_argument("--cleanvision", type=Path, help="a Python that has cleanvision")
    options = parser.parse_args()
    real = real_pictures(options.data, options.small, options.half, options.real)
    groups = [("", name, len(files)) for name, files in real.items()]
    files = [file for some in real.values() for file in some]
    for kind, some in made(real["photo"], options.half, options.each).items():
        groups.append((kind.issue, kind.name, len(some)))
        files += some
    found, cost = ours(files, Dedup())
    other = theirs(files, options.cleanvision) if options.cleanvision else None
    print(table(groups, [found, other]))
    print("\n| | precision, recall | cleanvision |\n|---|---|---|")
    of_ours, of_theirs = precision(groups, found), precision(groups, other)
    for issue, (right, all_found) in of_ours.items():
        their = "{:.1f}, {:.1f}".format(*of_theirs[issue]) if issue in of_theirs else "–"
        print(f"| {issue} | {right:.1f}, {all_found:.1f} | {their} |")
    print(f"\n{cost:.2f} ms of CPU time an image beside the fingerprints")


if __name__ == "__main__":
    main()
