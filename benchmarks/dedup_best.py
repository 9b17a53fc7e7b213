"""The best copy: how often the original is chosen among edited copies of itself.

    python -m benchmarks.dedup_best --data ../shared/data/pacs-dog-horse/train.parquet
    python -m benchmarks.dedup_best --data … --half 0     # the half on which limits were chosen

Originals are photographs, paintings, cartoons and drawn scenes. For each edit the table shows in
how many of them the original is ranked above its copy, and in how many it has the larger area,
which alone decided before; and at last how often it is the best of a group of all copies. Copies
that show as much as the original (IMPOSSIBLE) are listed, and not counted: nothing tells them.
"""

import argparse
import io
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from benchmarks.pictures import BICUBIC, saved
from kd3_pipeline.dedup.quality import Measures, best_first, measure

Copy = Callable[[Image.Image], bytes]
BILINEAR, LANCZOS = Image.Resampling.BILINEAR, Image.Resampling.LANCZOS
NEAREST = Image.Resampling.NEAREST
IMPOSSIBLE = ("saved again, quality 95", "watermark")


def scaled(image: Image.Image, across: float, down: float = 0.0) -> Image.Image:
    size = round(image.width * across), round(image.height * (down or across))
    return image.resize(size, BICUBIC)


def framed(colour: str, share: float, scale: float = 1.0) -> Copy:
    def copy(image: Image.Image) -> bytes:
        image = scaled(image, scale) if scale != 1 else image
        return saved(ImageOps.expand(image, round(share * max(image.size)), colour))

    return copy


def letterboxed(image: Image.Image) -> bytes:
    return saved(ImageOps.expand(image, (0, round(0.2 * image.height)), "black"))


def enlarged(side: int, scale: float, how: Image.Resampling, quality: int) -> Copy:
    """A thumbnail of `side` pixels, blown up to `scale` of the original's size."""

    def copy(image: Image.Image) -> bytes:
        small = image.copy()
        small.thumbnail((side, side), LANCZOS)
        size = round(image.width * scale), round(image.height * scale)
        return saved(small.resize(size, how), quality)

    return copy


def grey(scale: float, quality: int = 92) -> Copy:
    return lambda image: saved(scaled(image, scale).convert("L").convert("RGB"), quality)


def sepia(image: Image.Image) -> bytes:
    levels = np.asarray(image.convert("L"), np.float32)[..., None] * (1.07, 0.89, 0.69)
    return saved(Image.fromarray(levels.clip(0, 255).astype(np.uint8)))


def compressed(quality: int, scale: float) -> Copy:
    return lambda image: saved(scaled(image, scale), quality)


def hidden(quality: int, scale: float) -> Copy:
    """Compressed, then enlarged and saved well."""

    def copy(image: Image.Image) -> bytes:
        return saved(scaled(Image.open(io.BytesIO(saved(image, quality))), scale))

    return copy


def as_png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def compressed_png(quality: int) -> Copy:
    return lambda image: as_png(Image.open(io.BytesIO(saved(image, quality))))


def sharpened(scale: float) -> Copy:
    return lambda image: saved(scaled(image, scale).filter(ImageFilter.UnsharpMask(1.5, 60, 2)))


def blurred(sigma: float, scale: float) -> Copy:
    return lambda image: saved(scaled(image.filter(ImageFilter.GaussianBlur(sigma)), scale))


def captioned(share: float, paper: str, ink: str, scale: float = 1.0) -> Copy:
    def copy(image: Image.Image) -> bytes:
        image = scaled(image, scale)
        bar = round(share * image.height)
        page = Image.new("RGB", (image.width, image.height + bar), paper)
        page.paste(image)
        middle = image.width / 2, image.height + bar / 2
        drawn = ImageDraw.Draw(page)
        drawn.text(middle, "what it shows here", ink, anchor="mm", font_size=bar / 2)
        return saved(page)

    return copy


def cropped(image: Image.Image) -> bytes:
    return saved(image.crop((0, 0, int(0.9 * image.width), int(0.9 * image.height))), 95)


def watermarked(image: Image.Image) -> bytes:
    image = image.copy()
    middle = image.width / 2, image.height / 2
    drawn = ImageDraw.Draw(image)
    drawn.text(middle, "example.com", "white", anchor="mm", font_size=image.width / 8)
    return saved(image, 95)


COPIES: tuple[dict[str, Copy], dict[str, Copy]] = (
    {
        "border black 5%": framed("black", 0.05),
        "border white 15%": framed("white", 0.15),
        "border red 2%": framed("#c03028", 0.02),
        "border blue 5%, x1.3": framed("#345", 0.05, 1.3),
        "letterbox": letterboxed,
        "thumbnail 32, x3 bilinear": enlarged(32, 3, BILINEAR, 92),
        "thumbnail 64, x2 bicubic": enlarged(64, 2, BICUBIC, 92),
        "thumbnail 64, x1 nearest": enlarged(64, 1, NEAREST, 75),
        "thumbnail 96, x3 bilinear": enlarged(96, 3, BILINEAR, 75),
        "thumbnail 128, x1 bicubic": enlarged(128, 1, BICUBIC, 92),
        "thumbnail 160, x1.4 Lanczos": enlarged(160, 1.4, LANCZOS, 92),
        "grey": grey(1),
        "grey, x1.5": grey(1.5),
        "sepia": sepia,
        "quality 10, x1.5": compressed(10, 1.5),
        "quality 30, x1.1": compressed(30, 1.1),
        "quality 60, x2": compressed(60, 2),
        "quality 20, then x1.3 quality 92": hidden(20, 1.3),
        "quality 30, then PNG": compressed_png(30),
        "squeezed to 3:4": lambda image: saved(scaled(image, 0.75, 1)),
        "stretched to 8:5": lambda image: saved(scaled(image, 1.6, 1)),
        "PNG": as_png,
        "half the size": compressed(92, 0.5),
        "twice the size": compressed(92, 2),
        "sharpened": sharpened(1),
        "sharpened, x1.5": sharpened(1.5),
        "blurred, x1.2": blurred(1, 1.2),
        "caption black on white": captioned(0.15, "white", "black"),
        "caption white on black": captioned(0.2, "black", "white"),
        "cropped by 10%": cropped,
        "saved again, quality 95": compressed(95, 1),
        "watermark": watermarked,
    },
    {
        "border black 12%": framed("black", 0.12),
        "border white 4%": framed("white", 0.04),
        "border green 3%": framed("#2a7040", 0.03),
        "border grey 8%, x1.2": framed("#888", 0.08, 1.2),
        "letterbox": letterboxed,
        "thumbnail 40, x4 bicubic": enlarged(40, 4, BICUBIC, 85),
        "thumbnail 48, x4.4 Lanczos": enlarged(48, 4.4, LANCZOS, 75),
        "thumbnail 80, x1 bilinear": enlarged(80, 1, BILINEAR, 92),
        "thumbnail 72, x2.5 nearest": enlarged(72, 2.5, NEAREST, 85),
        "thumbnail 112, x2 bicubic": enlarged(112, 2, BICUBIC, 80),
        "thumbnail 144, x1.2 bilinear": enlarged(144, 1.2, BILINEAR, 92),
        "thumbnail 160, x3 Lanczos": enlarged(160, 3, LANCZOS, 85),
        "grey, quality 20, x1.1": grey(1.1, 20),
        "grey, x2": grey(2),
        "sepia": sepia,
        "quality 15, x1.2": compressed(15, 1.2),
        "quality 40, x1.6": compressed(40, 1.6),
        "quality 50, x1.25": compressed(50, 1.25),
        "quality 25, then x1.4 quality 92": hidden(25, 1.4),
        "quality 45, then PNG": compressed_png(45),
        "squeezed to 2:3": lambda image: saved(scaled(image, 1, 0.67)),
        "stretched to 4:3": lambda image: saved(scaled(image, 1.33, 1)),
        "PNG": as_png,
        "0.6 of the size": compressed(92, 0.6),
        "x1.7": compressed(90, 1.7),
        "sharpened": sharpened(1),
        "sharpened, x1.25": sharpened(1.25),
        "blurred, x1.5": blurred(1.3, 1.5),
        "caption black on yellow": captioned(0.12, "#fffbe0", "#222", 1.2),
        "caption white on blue": captioned(0.18, "#203060", "white"),
        "cropped by 10%": cropped,
        "saved again, quality 95": compressed(95, 1),
        "watermark": watermarked,
    },
)


def originals(data: Path, half: int, each: int) -> dict[str, list[bytes]]:
    """Real pictures of one half by what they are, and drawn scenes."""
    table = pq.read_table(data)
    files = [image["bytes"] for image in table["image"].to_pylist()]
    domains = table["domain"].to_pylist()
    found: dict[str, list[bytes]] = {"photo": [], "art_painting": [], "cartoon": []}
    for place in np.random.default_rng(1).permutation(len(files)).tolist():
        found.get(domains[place], []).append(files[place])
    chosen = {
        name: some[half::2][: each if name == "photo" else each // 3]
        for name, some in found.items()
    }
    chosen["drawn"] = [saved(_scene(2 * place + half), 95) for place in range(each // 3)]
    return chosen


def _scene(index: int) -> Image.Image:
    """Soft ground with shapes and lines, drawn large and made small."""
    rng = np.random.default_rng(index)
    coarse = rng.integers(60, 200, (5, 6, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((1200, 960), BICUBIC)
    drawn = ImageDraw.Draw(image)
    for x, y in rng.uniform(0.05, 0.8, (24, 2)):
        size = rng.uniform(20, 200)
        colour = tuple(rng.integers(0, 256, 3).tolist())
        spot = (x * 1200, y * 960, x * 1200 + size, y * 960 + size * rng.uniform(0.3, 1.5))
        (drawn.ellipse if rng.random() < 0.5 else drawn.rectangle)(spot, fill=colour)
        drawn.line((x * 1200, y * 960, *rng.uniform(0, 1000, 2)), colour, int(rng.integers(2, 9)))
    return image.resize((400, 320), LANCZOS)


def chosen(copies: Sequence[Measures]) -> int:
    """Place of the best of them; of equal ones the last, so that no original wins by its place."""
    ids = [f"{len(copies) - place:03d}" for place in range(len(copies))]
    return int(best_first(copies, [0] * len(copies), ids)[0])


def _area(file: bytes) -> int:
    width, height = Image.open(io.BytesIO(file)).size
    return width * height


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="real images with `domain`")
    parser.add_argument("--half", type=int, choices=(0, 1), default=1)
    parser.add_argument("--each", type=int, default=30, help="photographs; a third of all others")
    options = parser.parse_args()
    kinds = originals(options.data, options.half, options.each)
    copies = COPIES[options.half]
    won: dict[str, dict[str, list[bool]]] = {name: {} for name in copies}
    larger: dict[str, list[bool]] = {name: [] for name in copies}
    groups, cost, count = [], 0.0, 0
    for kind, files in kinds.items():
        for file in files:
            image = Image.open(io.BytesIO(file)).convert("RGB")
            edited = {name: make(image) for name, make in copies.items()}
            started = time.process_time()
            original = measure(file)
            measured = {name: measure(one) for name, one in edited.items()}
            cost, count = cost + time.process_time() - started, count + 1 + len(edited)
            for name, one in measured.items():
                won[name].setdefault(kind, []).append(chosen([original, one]) == 0)
                larger[name].append(_area(file) > _area(edited[name]))
            rivals = [one for name, one in measured.items() if name not in (*IMPOSSIBLE, "PNG")]
            groups.append(chosen([original, *rivals]) == 0)
    print(f"| copy | {' | '.join(kinds)} | by area |\n|---|{'---|' * (len(kinds) + 1)}")
    for name in copies:
        shares = [f"{sum(won[name][kind])} of {len(won[name][kind])}" for kind in kinds]
        star = " *" if name in IMPOSSIBLE else ""
        print(f"| {name}{star} | {' | '.join(shares)} | {sum(larger[name])} of {len(groups)} |")
    counted = [
        one for name in copies if name not in IMPOSSIBLE for some in won[name].values()
        for one in some
    ]  # fmt: skip
    print(f"\nthe original is better in {100 * np.mean(counted):.2f}% of {len(counted)} pairs, and")
    print(f"the best of {sum(groups)} of {len(groups)} groups of {len(rivals) + 1} copies")
    print(f"{cost / count * 1e3:.1f} ms of CPU time a copy")


if __name__ == "__main__":
    main()
