"""Ideas about images and losses, screened on maps that the teacher is asked for once.

    python -m benchmarks.cifar10.screen --data DATA --work WORK balanced sure sure.refined
    python -m benchmarks.cifar10.screen --data DATA --work WORK --loss pooled balanced
    python -m benchmarks.cifar10.screen --data DATA --work WORK --worth 0.4 random

A ResNet-8 behind SimKD's transfer module learns from 10,000 images in three fixed views each, by
the maps of ResNet-56. What gains here is worth a parameter of the product; the rest is a line of
benchmarks/RESULTS.md. Images are named by how they are chosen, and what is then done to them,
joined by dots. The web is stored as the originals are: JPEG of the same tables.
"""

import argparse
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image, JpegImagePlugin
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from kd3_pipeline.console import no_progress
from kd3_pipeline.embed import moments as embed_moments
from kd3_pipeline.embed.balance import balance
from kd3_pipeline.embed.moments import MomentPass
from kd3_pipeline.embed.refine import distance, moments, to_bytes
from kd3_pipeline.kd3 import Transfer
from kd3_pipeline.models import build
from kd3_pipeline.models.checkpoint import ModelConfig
from kd3_pipeline.models.norms import hooked, norms_to_match
from kd3_pipeline.pixels import normalise

CLASSES, COUNT, VIEWS, BATCH, RATE = 10, 10_000, 3, 128, 0.6
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
HELD = 2000  # web images that no pool has


@dataclass(frozen=True)
class Pool:
    """Images uint8 [N, 32, 32, 3], their views int64 [V, N, 3] (row, column, mirrored), and the
    teacher's maps of these, float16 [V, N, 64, 8, 8]."""

    pixels: np.ndarray
    views: np.ndarray
    maps: np.ndarray

    def of(self, rows: np.ndarray) -> "Pool":
        return Pool(self.pixels[rows], self.views[:, rows], np.stack([m[rows] for m in self.maps]))


def decoded(paths: Sequence[Path], again: dict[str, Any] | None = None) -> np.ndarray:
    """Images of Parquet files, uint8 [N, 32, 32, 3]; `again`: written as such a JPEG first."""
    found = []
    for path in paths:
        for batch in pq.ParquetFile(path).iter_batches(2000, columns=["image"]):
            for one in batch.column(0).to_pylist():
                image = Image.open(io.BytesIO(one["bytes"])).convert("RGB")
                if again:
                    file = io.BytesIO()
                    image.save(file, "JPEG", **again)
                    image = Image.open(file).convert("RGB")
                found.append(np.asarray(image))
    return np.stack(found)


def as_stored(path: Path) -> dict[str, Any]:
    """How the first image of a Parquet file is compressed."""
    first = next(pq.ParquetFile(path).iter_batches(1, columns=["image"])).column(0)[0].as_py()
    image = Image.open(io.BytesIO(first["bytes"]))
    assert isinstance(image, JpegImagePlugin.JpegImageFile)
    return {"qtables": image.quantization, "subsampling": JpegImagePlugin.get_sampling(image)}


def shown(pixels: np.ndarray) -> Tensor:
    return normalise(torch.from_numpy(np.ascontiguousarray(pixels)), MEAN, STD)


def cut(pixels: np.ndarray, view: Tensor) -> Tensor:
    """Normalised crops [B, 3, 32, 32] of images reflected by 4 at their borders."""
    images = functional.pad(shown(pixels), (4, 4, 4, 4), mode="reflect")
    along = torch.arange(32)
    rows = (view[:, 1, None] + along)[:, :, None]
    columns = torch.where(view[:, 2, None].bool(), 31 - along, along) + view[:, 0, None]
    which = torch.arange(len(pixels))[:, None, None]
    crops = images.permute(0, 2, 3, 1)[which, rows, columns[:, None, :]]
    return crops.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def answered(pixels: np.ndarray, teacher: Any) -> Pool:
    """A pool of images, for which the teacher is asked now."""
    generator = torch.Generator().manual_seed(11)
    views = torch.zeros(VIEWS, len(pixels), 3, dtype=torch.int64)
    maps = np.empty((VIEWS, len(pixels), 64, 8, 8), np.float16)
    for view, found in zip(views, maps, strict=True):
        view[:, 0], view[:, 1] = torch.randint(0, 9, (2, len(pixels)), generator=generator)
        view[:, 2] = torch.randint(0, 2, (len(pixels),), generator=generator)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            for start in range(0, len(pixels), 500):
                part = slice(start, start + 500)
                crops = cut(pixels[part], view[part])
                found[part] = teacher.features(crops).float().numpy()
    return Pool(pixels, views.numpy(), maps)


def chosen(how: str, pool: Pool, teacher: Any) -> np.ndarray:
    """Rows of 10,000 images: at `random`, or by predicted class as many, at random (`balanced`) or
    those that the teacher is surest of (`sure`)."""
    order = np.random.default_rng(5).permutation(len(pool.pixels))
    if how == "random":
        return np.sort(order[:COUNT])
    logits = [
        torch.cat(
            [
                teacher.fc(torch.from_numpy(maps[i : i + 2000].astype(np.float32)).mean((2, 3)))
                for i in range(0, len(maps), 2000)
            ]
        ).log_softmax(1)
        for maps in pool.maps
    ]
    mean = torch.stack(logits).mean(0).exp()
    sure, answers = (mean / mean.sum(1, keepdim=True)).max(1)
    free = np.ones(len(order), bool)
    free[order[-HELD:]] = False
    generator = np.random.default_rng(7)
    rows = []
    for one in range(CLASSES):
        of = np.flatnonzero((answers.numpy() == one) & free)
        best = np.argsort(-sure.numpy()[of], kind="stable")
        ranked = generator.permutation(of) if how == "balanced" else of[best]
        rows.append(ranked[: COUNT // CLASSES])
    return np.sort(np.concatenate(rows))


class Remembered:
    """The mean distance of a batch from what the teacher's batch norms remember."""

    def __init__(self, teacher: nn.Module) -> None:
        self.norms = [m for m in teacher.modules() if isinstance(m, nn.BatchNorm2d)]
        self.teacher = teacher

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The distance, a scalar, and the logits."""
        found: list[Tensor] = []

        def note(norm: nn.Module, inputs: tuple) -> None:
            found.append(distance(moments(inputs[0]), norm))

        with hooked(self.norms, note), torch.autocast("cpu", torch.bfloat16):
            logits = self.teacher(images)
        return torch.stack(found).mean(), logits.float()


def refined(
    pixels: np.ndarray,
    teacher: Any,
    sureness: float = 0.0,
    targets: Tensor | None = None,
    against: Callable[[Tensor], Tensor] | None = None,
    weight: float = 0.0,
) -> np.ndarray:
    """Images after 8 steps of Adam to the remembered moments, in mixed batches of 250.

    Args:
        sureness: weight of the cross entropy with `targets`.
        against: a student's logits; `weight` counts how far they are from the teacher's (KL).
    """
    remembered, out = Remembered(teacher), pixels.copy()
    order = np.random.default_rng(6).permutation(len(pixels))
    for start in range(0, len(pixels), 250):
        rows = order[start : start + 250]
        before = shown(pixels[rows])
        images = before.clone().requires_grad_()
        optimizer = torch.optim.Adam([images], 0.05)
        for _ in range(8):
            apart, logits = remembered(images)
            loss = apart + 0.05 * (images - before).square().mean()
            if targets is not None:
                loss = loss + sureness * functional.cross_entropy(logits, targets[rows])
            if against is not None:
                with torch.autocast("cpu", torch.bfloat16):
                    theirs = against(images).float().log_softmax(1)
                loss = loss - weight * functional.kl_div(
                    theirs, logits.log_softmax(1), log_target=True, reduction="batchmean"
                ).clamp(max=3)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        out[rows] = to_bytes(images.detach(), MEAN, STD).numpy()
    return out


def translated(pixels: np.ndarray, teacher: Any, steps: int = 300) -> np.ndarray:
    """Images moved by one small network, which is trained so that batches of 128 have the
    remembered moments: refinement whose cost does not grow with the images."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 24), (24, 24), (24, 24), (24, 3)):
        layers += [nn.Conv2d(inputs, outputs, 3, 1, 1), nn.ReLU()]
    network = nn.Sequential(*layers[:-1]).to(memory_format=torch.channels_last)
    for values in network[-1].parameters():
        nn.init.zeros_(values)
    remembered = Remembered(teacher)
    optimizer = torch.optim.AdamW(network.parameters(), 0.003, weight_decay=0)
    generator = np.random.default_rng(3)
    for step in range(steps):
        rows = np.sort(generator.choice(len(pixels), BATCH, False))
        before = shown(pixels[rows])
        optimizer.param_groups[0]["lr"] = 0.003 * min(1, (step + 1) / 20) * (1 - step / steps)
        with torch.autocast("cpu", torch.bfloat16):
            images = (before + network(before)).float()
        loss = remembered(images)[0] + 0.05 * (images - before).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        parts = [shown(pixels[i : i + 250]) for i in range(0, len(pixels), 250)]
        moved = [to_bytes((part + network(part)).float(), MEAN, STD) for part in parts]
    return torch.cat(moved).numpy()


class Student(nn.Module):
    """ResNet-8 behind SimKD's transfer module: the teacher's maps from images."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.backbone = build("resnet8", CLASSES)
        self.transfer = Transfer(64, 64).transfer

    def forward(self, images: Tensor) -> Tensor:
        return self.transfer(self.backbone.features(images))


def losses(teacher: Any, pool: Pool) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Losses of maps [B, 64, 8, 8], the student's and the teacher's, relative to the latter."""
    some = torch.from_numpy(pool.maps[0, :2000].astype(np.float32))
    pooled, logits = some.mean((2, 3)), teacher.fc(some.mean((2, 3)))
    units = [float(one.square().mean()) for one in (some, pooled, logits)]

    def maps(ours: Tensor, theirs: Tensor) -> Tensor:
        return functional.mse_loss(ours, theirs) / units[0]

    def vectors(ours: Tensor, theirs: Tensor) -> Tensor:
        return functional.mse_loss(ours.mean((2, 3)), theirs.mean((2, 3))) / units[1]

    def answers(ours: Tensor, theirs: Tensor) -> Tensor:
        ours, theirs = (teacher.fc(one.mean((2, 3))) for one in (ours, theirs))
        return functional.mse_loss(ours, theirs) / units[2]

    return {
        "maps": maps,
        "pooled": vectors,
        "maps and logits": lambda a, b: maps(a, b) + answers(a, b),
    }


def weights(pool: Pool, teacher: nn.Module, worth: float, folder: Path) -> Tensor:
    """Moment weights of the images, float64 [N], that are worth at least a share of them."""
    classes = [str(one) for one in range(CLASSES)]
    config = ModelConfig({"name": "resnet56"}, classes, MEAN, STD, 32, "file")
    norms = norms_to_match(teacher, 32, "screen")  # type: ignore[arg-type]
    passed = MomentPass(teacher, config, torch.bfloat16, norms)  # type: ignore[arg-type]
    basis = embed_moments.basis_of(passed, pool.pixels, 256, no_progress)
    embed_moments._write(passed, basis, pool.pixels, folder, 256, no_progress)
    stored = np.load(folder / embed_moments.MOMENTS, mmap_mode="r")
    found = balance(stored, least=worth * len(stored))
    return torch.from_numpy(found.weights).double()


def trained(
    pool: Pool, loss: Callable, steps: int, seed: int, chances: Tensor | None = None
) -> Student:
    """A student after so many steps of SGD, one-cycle; `chances`: how often each image is drawn."""
    student = Student(seed).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        student.parameters(), RATE, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    views = torch.from_numpy(np.array(pool.views))
    for step in range(steps):
        generator = torch.Generator().manual_seed(seed * 10_000_019 + step)
        if chances is None:
            rows = torch.randint(0, len(pool.pixels), (BATCH,), generator=generator)
        else:
            rows = torch.multinomial(chances, BATCH, True, generator=generator)
        which = torch.randint(0, VIEWS, (BATCH,), generator=generator)
        images = cut(pool.pixels[rows.numpy()], views[which, rows])
        theirs = torch.from_numpy(pool.maps[which.numpy(), rows.numpy()]).float()
        done = step / steps
        rate = 0.04 + 0.96 * done / 0.2 if done < 0.2 else (1 - done) / 0.8
        optimizer.param_groups[0]["lr"] = RATE * rate
        with torch.autocast("cpu", torch.bfloat16):
            ours = student(images)
        value = loss(ours.float(), theirs)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return student


@torch.inference_mode()
def predicted(student: Student, teacher: Any, pixels: np.ndarray) -> np.ndarray:
    student.eval()
    parts = [shown(pixels[i : i + 500]) for i in range(0, len(pixels), 500)]
    found = [teacher.fc(student(part).mean((2, 3))).argmax(1) for part in parts]
    student.train()
    return torch.cat(found).numpy()


@torch.no_grad()
def recalibrated(student: Student, pixels: np.ndarray) -> None:
    """Gives the student's batch norms the statistics of 4,000 images."""
    for norm in student.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.reset_running_stats()
            norm.momentum = None
    rows = np.sort(np.random.default_rng(1).permutation(len(pixels))[:4000])
    for start in range(0, len(rows), 250):
        student(shown(pixels[rows[start : start + 250]]))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--data", type=Path, required=True, help="as docs/table.md has it")
    options.add_argument("--work", type=Path, required=True, help="where pools are kept")
    options.add_argument("--loss", default="maps", choices=["maps", "pooled", "maps and logits"])
    options.add_argument("--steps", type=int, default=2000)
    options.add_argument("--seeds", type=int, nargs="+", default=[0])
    options.add_argument(
        "--worth", type=float, default=0.0, help="draw by moment weights worth such a share"
    )
    options.add_argument("--statistics", default="", help="pool that batch norms are set by")
    options.add_argument("pools", nargs="+", help="such as random, sure.refined, originals")
    given = options.parse_args()
    torch.set_num_threads(1)
    work = Work(given.data, given.work)
    for name in given.pools:
        pool = work.pool(name)
        loss = losses(work.teacher, pool)[given.loss]
        folder = given.work / f"{name}-moments"
        chances = weights(pool, work.teacher, given.worth, folder) if given.worth else None
        for seed in given.seeds:
            student = trained(pool, loss, given.steps, seed, chances)
            if given.statistics:
                recalibrated(student, work.pool(given.statistics).pixels)
            right = predicted(student, work.teacher, work.test) == work.labels
            told = {"images": name, "loss": given.loss, "steps": given.steps, "seed": seed}
            told |= {"worth": given.worth} if given.worth else {}
            told |= {"statistics": given.statistics} if given.statistics else {}
            print(json.dumps(told | {"accuracy": round(100 * float(right.mean()), 2)}), flush=True)


class Work:
    """Teacher, test images, and pools by name, which are kept in a folder."""

    def __init__(self, data: Path, folder: Path) -> None:
        self.data, self.folder = data, folder
        folder.mkdir(parents=True, exist_ok=True)
        teacher = build("resnet56", CLASSES)
        teacher.load_state_dict(load_file(data / "teachers/resnet56-jpeg.safetensors"))
        teacher = teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.teacher: Any = teacher.eval().requires_grad_(False)
        test = data / "cifar10/test.parquet"
        self.test, self.stored = decoded([test]), as_stored(test)
        self.labels = np.array(pq.read_table(test, columns=["label"])["label"].to_pylist())

    def pool(self, name: str) -> Pool:
        """A pool: made once, then read."""
        parts = [self.folder / f"{name}-{part}.npy" for part in ("pixels", "views", "maps")]
        if not parts[-1].exists():
            pool = self._made(name)
            for path, values in zip(parts, (pool.pixels, pool.views, pool.maps), strict=True):
                partial = path.with_suffix(".partial.npy")
                np.save(partial, values)
                partial.replace(path)
        return Pool(*(np.load(path, mmap_mode="r") for path in parts))

    def _made(self, name: str) -> Pool:
        base, _, done = name.rpartition(".")
        if name == "web":
            files = sorted((self.data / "tiny-imagenet-32").glob("train-*.parquet"))
            return answered(decoded(files, self.stored), self.teacher)
        if name == "all-originals":
            return answered(decoded([self.data / "cifar10/train.parquet"]), self.teacher)
        if name == "originals":
            pool = self.pool("all-originals")
            return pool.of(chosen("random", pool, self.teacher))
        if name in ("random", "balanced", "sure"):
            pool = self.pool("web")
            return pool.of(chosen(name, pool, self.teacher))
        pixels = np.array(self.pool(base).pixels)
        if done == "refined":
            return answered(refined(pixels, self.teacher), self.teacher)
        if done == "translated":
            return answered(translated(pixels, self.teacher), self.teacher)
        if done in ("sharpened", "retargeted"):
            return answered(self._sharpened(pixels, done == "retargeted"), self.teacher)
        if done == "opposed":
            return answered(self._opposed(base, pixels), self.teacher)
        raise SystemExit(f"no pool '{name}'")

    def _sharpened(self, pixels: np.ndarray, evenly: bool) -> np.ndarray:
        """Refined with cross entropy: to what the teacher says, or to classes alike (0.1)."""
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            parts = [shown(pixels[i : i + 500]) for i in range(0, len(pixels), 500)]
            logits = torch.cat([self.teacher(part).float() for part in parts])
        wanted = logits.log_softmax(1) / 2
        for _ in range(20 if evenly else 0):  # Sinkhorn: classes alike
            wanted = wanted - wanted.logsumexp(0, keepdim=True)
            wanted = wanted - wanted.logsumexp(1, keepdim=True)
        return refined(pixels, self.teacher, 0.1 if evenly else 0.01, wanted.argmax(1))

    def _opposed(self, name: str, pixels: np.ndarray) -> np.ndarray:
        """Refined against a student of the refined images, 4,000 steps old."""
        pool = self.pool(f"{name}.refined")
        student = trained(pool, losses(self.teacher, pool)["maps"], 4000, 0).eval()
        student.requires_grad_(False)

        def theirs(images: Tensor) -> Tensor:
            return self.teacher.fc(student(images).float().mean((2, 3)))

        return refined(pixels, self.teacher, against=theirs, weight=0.01)


if __name__ == "__main__":
    main()
