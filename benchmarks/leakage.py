"""Test images in a crawl: how many planted ones are found, and how many others are taken for one.

    python -m benchmarks.leakage --data ../shared/data --sheet pairs.png --json leakage.json
    python -m benchmarks.leakage --data ../shared/data --web 5000 --tests 2000 --planted 50

Three tables. Web originals (PACS, 227 pixels) against 32-pixel images made of them, among all other
test images: by filter, crop and light. CIFAR-10 test images enlarged, edited and planted in the
web set. The web set (Tiny-ImageNet) itself against CIFAR-10's test images: what is flagged there
counts as a false alarm, until somebody looks at it (--sheet); it may be a true copy.
"""

import argparse
import io
import json
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from benchmarks.limits import processor
from benchmarks.pictures import (
    Edit,
    cropped,
    encoded,
    enhanced,
    fingerprints_of,
    framed,
    in_turn,
    load,
    resized,
    saved,
    with_caption,
)
from kd3_pipeline.dedup.leakage import Leaks, leaks
from kd3_pipeline.frames import Frame
from kd3_pipeline.labelled import load_labelled
from kd3_pipeline.params import Dedup

SIZE = 32  # of the test images
LEAST = (0.65, 0.70, 0.75, 0.80, 0.85)  # similarity
LOWEST = 0.5  # below it nothing is looked at here
RATIO = Dedup().leak_ratio

Resampling = Image.Resampling


def small(method: Resampling) -> Edit:
    """To the test images' size by one of Pillow's filters, which all antialias but `nearest`."""
    return lambda image, _: image.resize((SIZE, SIZE), method)


def sampled(image: Image.Image, _: np.random.Generator) -> Image.Image:
    """To the test images' size by bilinear interpolation without antialiasing, as OpenCV does."""
    scale = (image.width / SIZE, 0, 0, 0, image.height / SIZE, 0)
    return image.transform((SIZE, SIZE), Image.Transform.AFFINE, scale, Resampling.BILINEAR)


def inset(share: float) -> Edit:
    """Leaves out `share` of width and height all round."""
    return lambda image, _: ImageOps.crop(image, round(share / 2 * min(image.size)))


def mirrored(image: Image.Image, _: np.random.Generator) -> Image.Image:
    return ImageOps.mirror(image)


def square(image: Image.Image, _: np.random.Generator) -> Image.Image:
    return ImageOps.fit(image, (min(image.size),) * 2)


def unchanged(image: Image.Image, _: np.random.Generator) -> Image.Image:
    return image


def wide(image: Image.Image, _: np.random.Generator) -> Image.Image:
    """The middle of a square image, 3:2."""
    return ImageOps.fit(image, (image.width, round(image.width / 1.5)))


def grey(image: Image.Image, _: np.random.Generator) -> Image.Image:
    return image.convert("L").convert("RGB")


ANTIALIASED = (Resampling.BOX, Resampling.BILINEAR, Resampling.BICUBIC, Resampling.LANCZOS)
BICUBIC = small(Resampling.BICUBIC)
# what the web has of an original, and what the test set has
MADE: dict[str, tuple[Edit, Edit]] = {
    **{f"Pillow {one.name.lower()}": (unchanged, small(one)) for one in ANTIALIASED},
    "bilinear, not antialiased": (unchanged, sampled),
    "nearest": (unchanged, small(Resampling.NEAREST)),
    "bicubic, JPEG q75": (unchanged, in_turn(BICUBIC, encoded(75))),
    "bicubic, brightness x1.2": (
        unchanged,
        in_turn(BICUBIC, enhanced(ImageEnhance.Brightness, 1.2)),
    ),
    "bicubic, greyscale": (unchanged, in_turn(grey, BICUBIC)),
    "bicubic, mirrored": (unchanged, in_turn(mirrored, BICUBIC)),
    **{
        f"crop {share} % anywhere": (unchanged, in_turn(cropped(share / 100), BICUBIC))
        for share in (5, 10, 15, 20, 30)
    },
    **{
        f"crop {share} % all round": (unchanged, in_turn(inset(share / 100), BICUBIC))
        for share in (10, 20)
    },
    "web half size, JPEG q30": (in_turn(resized(0.5, 0.5), encoded(30)), BICUBIC),
    "web 3:2, test image squashed": (wide, in_turn(wide, BICUBIC)),
    "web 3:2, test image its centre square": (wide, in_turn(wide, square, BICUBIC)),
    "web with a white border": (framed("white"), BICUBIC),
}
# what the web has of a test image
PLANTED: dict[str, Edit] = {
    "x4": resized(4, 4),
    "x8, JPEG q50": in_turn(resized(8, 8), encoded(50)),
    "x4, JPEG q30": in_turn(resized(4, 4), encoded(30)),
    "x4, squashed to 4:3": resized(16 / 3, 4),
    "x4, mirrored": in_turn(resized(4, 4), mirrored),
    "x4, brightness x1.3": in_turn(resized(4, 4), enhanced(ImageEnhance.Brightness, 1.3)),
    "x4, crop 5 %": in_turn(resized(4, 4), cropped(0.05)),
    "x4, crop 10 %": in_turn(resized(4, 4), cropped(0.1)),
    "x4, white border": in_turn(resized(4, 4), framed("white")),
    "x4, caption bar": in_turn(resized(4, 4), with_caption),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--web", type=int, default=100_000, help="Tiny-ImageNet images")
    parser.add_argument("--tests", type=int, default=10_000, help="CIFAR-10 test images")
    parser.add_argument("--planted", type=int, default=400, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sheet", type=Path, help="PNG of the most similar pairs")
    options = parser.parse_args()

    cifar10 = str(options.data / "cifar10/test.parquet")
    tests = load_labelled(cifar10, "test", Frame(SIZE), options.tests, options.seed).pixels[:]
    pacs = load(options.data / "pacs-dog-horse/train.parquet")
    order = np.random.default_rng(options.seed).permutation(len(pacs))[: options.planted]
    originals = [Image.open(io.BytesIO(pacs[row])).convert("RGB") for row in order]
    own = [Image.fromarray(pixels) for pixels in tests[: options.planted]]
    made = {}
    for name, (web, test) in MADE.items():
        shown = np.stack([np.asarray(image) for image in edited(originals, test, options.seed)])
        fingerprints = fingerprints_of(
            [saved(image) for image in edited(originals, web, options.seed)]
        )
        # the other test images are there to be mistaken for these
        made[name] = shares(
            leaks(fingerprints, np.concatenate([shown, tests]), LOWEST, RATIO), len(originals)
        )
    planted = {
        name: shares(
            leaks(
                fingerprints_of([saved(image) for image in edited(own, edit, options.seed)]),
                tests,
                LOWEST,
                RATIO,
            ),
            len(own),
        )
        for name, edit in PLANTED.items()
    }

    fingerprints = fingerprints_of(tiny_imagenet(options.data, options.web, options.seed))
    started = time.process_time()
    found = leaks(fingerprints, tests, LOWEST, RATIO)
    report = {
        "machine": processor(),
        "versions": {"python": platform.python_version(), "numpy": np.__version__}
        | {"faiss": faiss.__version__},
        "seed": options.seed,
        "web": len(fingerprints.grey),
        "tests": len(tests),
        "planted": options.planted,
        "cpu_seconds": time.process_time() - started,
        "made": made,
        "planted_recall": planted,
        "flagged": [int((found.similarity >= least).sum()) for least in LEAST],
    }
    show(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    if options.sheet:
        sheet(found, fingerprints.colour, tests).save(options.sheet)


def edited(images: Sequence[Image.Image], edit: Edit, seed: int) -> list[Image.Image]:
    return [edit(image, np.random.default_rng([seed, k])) for k, image in enumerate(images)]


def tiny_imagenet(data: Path, images: int, seed: int) -> list[bytes]:
    paths = sorted((data / "tiny-imagenet-32").glob("*.parquet"))
    files = [file for path in paths for file in load(path)]
    return [files[row] for row in np.random.default_rng(seed).permutation(len(files))[:images]]


def shares(found: Leaks, planted: int) -> list[float]:
    """Of web images that show the test image of their own row: found, by least similarity."""
    right = found.similarity[found.image == found.test]
    return [float((right >= least).sum() / planted) for least in LEAST]


def show(report: dict[str, Any]) -> None:
    """Markdown tables, in per cent by least similarity."""
    heading = " | ".join(f"≥ {least:.2f}" for least in LEAST)
    print(
        f"{report['machine']}; seed {report['seed']}; {report['web']:,} web and"
        f" {report['tests']:,} test images, {report['planted']} planted of each kind;"
        f" {report['cpu_seconds']:.0f} s of CPU time for all pairs\n"
    )
    for title, rows in (("test image", "made"), ("planted", "planted_recall")):
        print(f"| {title} | {heading} |\n" + "|---" * (1 + len(LEAST)) + "|")
        for name, row in report[rows].items():
            print(f"| {name} | " + " | ".join(f"{100 * share:.1f}" for share in row) + " |")
        print()
    pairs = report["web"] * report["tests"]
    print(f"| web images | {heading} |\n" + "|---" * (1 + len(LEAST)) + "|")
    print("| flagged | " + " | ".join(map(str, report["flagged"])) + " |")
    rates = " | ".join(f"{flagged / pairs:.1e}" for flagged in report["flagged"])
    print(f"| a pair, if all were wrong | {rates} |")


def sheet(found: Leaks, web: np.ndarray, tests: np.ndarray, most: int = 120) -> Image.Image:
    """The most similar pairs, web image and test image, ten in a row."""
    order = np.argsort(-found.similarity, kind="stable")[:most]
    page = Image.new("RGB", (10 * 140, -(-len(order) // 10) * 86), "white")
    draw = ImageDraw.Draw(page)
    for place, n in enumerate(order.tolist()):
        left, top = place % 10 * 140, place // 10 * 86
        for offset, pixels in ((0, web[found.image[n]]), (66, tests[found.test[n]])):
            page.paste(Image.fromarray(pixels).resize((64, 64)), (left + offset, top))
        text = f"{found.similarity[n]:.3f}  cos {found.cosine[n]:.2f}"
        draw.text((left, top + 65), text, "black", font_size=14)
    return page


if __name__ == "__main__":
    main()
