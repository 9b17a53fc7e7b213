"""What is said of a teacher's mean and std: the right ones and eight wrong ones, for many teachers.

    python -m benchmarks.normalisation --teachers ../shared/data/teachers \\
        --cifar10 ../shared/data/cifar10 --images tiny=PARQUET --images photos=PARQUET

Teachers are public ResNets of CIFAR-10 in files (*.th and *.safetensors, ImageNet's mean and std),
with --folded each also with its batch norms folded away, and two that are trained here on a part
of CIFAR-10: a ResNet-8 on values from 0 to 1, and a small vision transformer on values from -1 to
1 (--own-epochs 0: none). Thresholds were chosen with the ResNet-20; its rows are no evidence.
Accuracy is on 1,000 test images. The demo's web images are a further set.
"""

import argparse
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.limits import processor
from kd3_pipeline.demo.domains import WEB_STYLES, draw_web
from kd3_pipeline.evaluate.logits import logits_of
from kd3_pipeline.frames import Frame
from kd3_pipeline.labelled import load_labelled
from kd3_pipeline.models import build
from kd3_pipeline.models.checkpoint import ModelConfig
from kd3_pipeline.models.fuse import fuse
from kd3_pipeline.models.network import Network
from kd3_pipeline.pixels import normalise, pad_crop
from kd3_pipeline.teacher.normalisation import (
    CONFIGURED,
    NORMALISATIONS,
    NormalisationCheck,
    check_normalisation,
    check_order,
    judged,
    near_to,
)

SIDE, CLASSES, BATCH = 32, 10, 128
IMAGENET = NORMALISATIONS["ImageNet"]
Values = tuple[tuple[float, ...], tuple[float, ...]]
OWN = {  # of teachers trained here: normalisation, largest rate
    "resnet8": ("none, 0 to 1", 0.01),
    "vit": ("0.5 / 0.5", 0.001),
}


class ViT(Network):
    """A small vision transformer for 32 pixels: patches of 8, class token, layer norms."""

    cut = "vector"

    def __init__(self, width: int = 96, depth: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(0.02 * torch.randn(1, 17, width))
        layer = nn.TransformerEncoderLayer(
            width, 3, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.fc = nn.Linear(width, CLASSES)
        self.feature_channels = width

    def features(self, images: torch.Tensor) -> torch.Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.places
        return self.norm(self.layers(x)[:, 0])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--teachers", type=Path, help="folder of public ResNets")
    options.add_argument("--pattern", default="resnet*", help="of their names")
    options.add_argument("--folded", action="store_true", help="also without their batch norms")
    options.add_argument("--cifar10", type=Path, help="folder with train.parquet and test.parquet")
    options.add_argument("--images", action="append", default=[], metavar="NAME=PATH")
    options.add_argument("--own-images", type=int, default=8000, help="to train our teachers with")
    options.add_argument("--own-epochs", type=int, default=5)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--smoke", action="store_true", help="random data, seconds")
    given = options.parse_args()
    torch.set_num_threads(1)
    if given.smoke:
        train, test = (random_images(count, given.seed + count) for count in (256, 128))
        given.own_epochs = 1
    else:
        train = labelled(given.cifar10 / "train.parquet", "train", given.own_images, given.seed)
        test = labelled(given.cifar10 / "test.parquet", "test", 1000, given.seed)
    sets = {"cifar10": test[0][:512], "demo's web": demo_web(64 if given.smoke else 512)}
    for one in given.images:
        name, path = one.split("=", 1)
        sets[name] = labelled(Path(path), "train", 512, given.seed)[0]
    print(
        f"{processor()}, torch {torch.__version__}, seed {given.seed}; 512 images a set; our own"
        f" teachers: {len(train[0]):,} images, {given.own_epochs} epochs\n"
    )
    head = ["teacher", "configured", "accuracy", *sets]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    said: Counter[tuple[str, str]] = Counter()
    for name, network, right in teachers(given, train):
        for row in rows_of(name, network, right, sets, test, said):
            print(f"| {' | '.join(row)} |", flush=True)
    print("\n| configured | " + " | ".join(("fits", "wrong", "unknown")) + " |\n|---|---|---|---|")
    for kind in ("right", "near", "gross"):
        counts = [said[kind, verdict] for verdict in ("fits", "wrong", "unknown")]
        print(f"| {kind} | {' | '.join(map(str, counts))} |")


def rows_of(
    name: str,
    network: Network,
    right: str,
    sets: dict[str, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    said: Counter[tuple[str, str]],
) -> Iterator[list[str]]:
    """A row for the right normalisation, for each wrong one, and for the other order of colours."""
    best = accuracy(network, NORMALISATIONS[right], test)
    checks = {
        name: check_normalisation(network, config_of(NORMALISATIONS[right]), images)
        for name, images in sets.items()
    }
    wrong = [one for one in NORMALISATIONS if one != right]
    for configured in [right, *wrong]:
        reached = accuracy(network, NORMALISATIONS[configured], test)
        kind = "right" if configured == right else "near" if best - reached < 0.05 else "gross"
        row = [name, f"{configured} ({kind})", f"{reached:.1%}"]
        for check in checks.values():
            check = as_if(check, right, configured)
            said[kind, check.verdict] += 1
            row.append(told(check))
        yield row
    flipped = np.ascontiguousarray(test[0][..., ::-1])
    reached = accuracy(network, NORMALISATIONS[right], (flipped, test[1]))
    orders = [
        (
            check_order(network, config_of(NORMALISATIONS[right]), images),
            check_order(
                network, config_of(NORMALISATIONS[right]), np.ascontiguousarray(images[..., ::-1])
            ),
        )
        for images in (every[:256] for every in sets.values())
    ]
    yield [
        name,
        "colours in the other order: said where right / where wrong",
        f"{reached:.1%}",
        *(f"{one.verdict} / {other.verdict}" for one, other in orders),
    ]


def as_if(check: NormalisationCheck, right: str, configured: str) -> NormalisationCheck:
    """The check of a teacher where another normalisation is configured: nothing is passed anew."""
    known = [
        replace(one, name=right) if one.name == CONFIGURED else one for one in check.measurements
    ]
    if len(known) == 1:  # not judged
        return check
    chosen = next(one for one in known if one.name == configured)
    others = [one for one in known if one.name != configured]
    measurements = [replace(chosen, name=CONFIGURED), *others]
    return judged(measurements, check.divergence, near_to(NORMALISATIONS[configured]))


def told(check: NormalisationCheck) -> str:
    first = check.measurements[0]
    value = first.diversity if np.isnan(first.first) else first.first
    better = f" → {check.better}" if check.better else ""
    return check.verdict + ("" if np.isnan(value) else f" ({value:.3g})") + better


def teachers(
    given: argparse.Namespace, train: tuple[np.ndarray, np.ndarray]
) -> Iterator[tuple[str, Network, str]]:
    """Names, networks and the name of the normalisation that each was trained with."""
    files = sorted(given.teachers.glob(given.pattern)) if given.teachers else []
    for path in files:
        network = public(path)
        yield path.stem, network, "ImageNet"
        if given.folded:
            yield f"{path.stem}, folded", fuse(network), "ImageNet"
    for kind, (right, rate) in OWN.items() if given.own_epochs else ():
        torch.manual_seed(given.seed)
        network = ViT() if kind == "vit" else build(kind, CLASSES)
        fit(network, train, NORMALISATIONS[right], rate, given.own_epochs, given.seed)
        yield f"ours, {kind}", network, right


def public(path: Path) -> Network:
    """A ResNet of the paper's form, its zero-padded shortcuts as 1×1 convolutions (exact)."""
    from safetensors.torch import load_file

    if path.suffix == ".safetensors":
        state = load_file(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    state = {
        name.removeprefix("module.").replace("linear.", "fc."): value
        for name, value in state.items()
    }
    network = build(re.match(r"resnet\d+", path.name)[0], CLASSES)  # type: ignore[index]
    for name, own in network.state_dict().items():
        if name in state:
            continue
        if name.endswith("downsample.0.weight"):
            outputs, inputs = own.shape[:2]
            value = torch.zeros_like(own)
            for channel in range(inputs):
                value[channel + outputs // 4, channel] = 1
        elif name.endswith("downsample.1.running_var"):
            value = torch.full_like(own, 1 - 1e-5)
        else:
            value = torch.ones_like(own) if name.endswith("1.weight") else torch.zeros_like(own)
        state[name] = value
    network.load_state_dict(state)
    return network.eval()


def fit(
    network: Network,
    train: tuple[np.ndarray, np.ndarray],
    values: Values,
    rate: float,
    epochs: int,
    seed: int,
) -> None:
    """AdamW, one cycle, crops and mirrors."""
    pixels, labels = (torch.from_numpy(one) for one in train)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), rate, weight_decay=0.05)
    steps = len(pixels) // BATCH
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * steps)
    network.train()
    for _ in range(epochs):
        order = torch.randperm(len(pixels), generator=generator)
        for step in range(steps):
            rows = order[step * BATCH : (step + 1) * BATCH]
            crops = pad_crop(pixels[rows], generator, SIDE // 8, True)
            loss = functional.cross_entropy(network(normalise(crops, *values)), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cycle.step()
    network.eval()


def accuracy(network: Network, values: Values, test: tuple[np.ndarray, np.ndarray]) -> float:
    found = logits_of(network, test[0], *values, 256, torch.device("cpu"))
    return float((found.argmax(1) == test[1]).mean())


def config_of(values: Values) -> ModelConfig:
    names = [str(label) for label in range(CLASSES)]
    return ModelConfig({}, names, list(values[0]), list(values[1]), SIDE, "")


def labelled(path: Path, split: str, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    data = load_labelled(str(path), split, Frame(SIDE), count, seed)  # type: ignore[arg-type]
    return np.asarray(data.pixels), data.labels


def demo_web(count: int) -> np.ndarray:
    """Pictures as the demo's web has them, of all classes and styles."""
    rng = np.random.default_rng(0)
    return np.stack(
        [
            np.asarray(draw_web(row % CLASSES, WEB_STYLES[row % len(WEB_STYLES)], SIDE, rng))
            for row in range(count)
        ]
    )


def random_images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    from kd3_pipeline.demo.domains import original_images

    return original_images("train", count, SIDE, seed)


if __name__ == "__main__":
    main()
