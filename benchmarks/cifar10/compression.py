"""Does a teacher's memory tell how its images were compressed? Distances of re-encoded web images.

    python -m benchmarks.cifar10.compression --data DATA

The main teacher was trained on JPEGs of quality 75 with halved colours. If the distance of web
images from the moments that its batch norms remember were least at that quality, web images could
be brought to it without anybody's word; the rows say what is so.
"""

import argparse
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from kd3_pipeline.embed.refine import distance, moments
from kd3_pipeline.models import build
from kd3_pipeline.models.norms import hooked
from kd3_pipeline.pixels import normalise

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
QUALITIES = (95, 85, 75, 60, 40, 20, 10)
HALVED, WHOLE = 2, 0  # subsampling of colours, as Pillow counts it


def images(path: Path, count: int) -> list[Image.Image]:
    """So many images of a Parquet file, evenly spread over it."""
    stored = pq.read_table(path, columns=["image"])["image"]
    rows = np.linspace(0, len(stored) - 1, count).astype(int)
    return [
        Image.open(io.BytesIO(stored[int(row)].as_py()["bytes"])).convert("RGB") for row in rows
    ]


def again(image: Image.Image, quality: int, subsampling: int) -> Image.Image:
    """The image as a JPEG shows it."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, subsampling=subsampling)
    return Image.open(file).convert("RGB")


def distances(teacher: nn.Module, shown: Sequence[Image.Image]) -> tuple[float, float]:
    """Distance at the first batch norm, and the mean over all, as `embed.refine` has it."""
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in shown]))
    norms = [module for module in teacher.modules() if isinstance(module, nn.BatchNorm2d)]
    found: list[float] = []

    def note(norm: nn.Module, inputs: tuple) -> None:
        found.append(float(distance(moments(inputs[0]), norm)))

    with torch.inference_mode(), hooked(norms, note):
        teacher(normalise(pixels, MEAN, STD))
    return found[0], float(np.mean(found))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--data", type=Path, required=True, help="as docs/table.md has it")
    options.add_argument("--images", type=int, default=1000)
    given = options.parse_args()
    teacher = build("resnet56", 10)
    teacher.load_state_dict(load_file(given.data / "teachers/resnet56-jpeg.safetensors"))
    teacher.eval()
    web = images(sorted((given.data / "tiny-imagenet-32").glob("train-*.parquet"))[0], given.images)
    print("| images | first batch norm | mean of all |\n|---|---|---|")
    shown = {"originals": images(given.data / "cifar10/train.parquet", given.images), "web": web}
    for name, some in shown.items():
        print("| {} | {:.3f} | {:.3f} |".format(name, *distances(teacher, some)))
    for subsampling, colours in ((HALVED, "halved"), (WHOLE, "whole")):
        for quality in QUALITIES:
            some = [again(image, quality, subsampling) for image in web]
            told = f"web, quality {quality}, colours {colours}"
            print("| {} | {:.3f} | {:.3f} |".format(told, *distances(teacher, some)))


if __name__ == "__main__":
    main()
