"""One pass of the teacher over the kept images: pixels, features and logits."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from pipeline.console import Advance
from pipeline.errors import UserError
from pipeline.images import Fit, ImageError, decode, to_square
from pipeline.models.checkpoint import ModelConfig
from pipeline.models.network import Network, pool
from pipeline.pixels import normalise
from pipeline.store import read_shard, shard_paths, write_table


@dataclass(frozen=True)
class KeptImage:
    """A kept image in the crawl's shards."""

    id: str
    shard: int
    row: int
    label: int


def kept_images(verdicts: pa.Table) -> list[KeptImage]:
    """The images that dedup kept, in the order of the shards.

    Raises:
        UserError: none was kept.
    """
    columns = verdicts.select(["id", "shard", "row", "label", "kept"]).to_pylist()
    kept = [KeptImage(r["id"], r["shard"], r["row"], r["label"]) for r in columns if r["kept"]]
    if not kept:
        raise UserError("dedup kept no image", "crawl more, or lower dedup.radius")
    return sorted(kept, key=lambda image: (image.shard, image.row))


@torch.inference_mode()
def embed(
    kept: list[KeptImage],
    crawl: Path,
    network: Network,
    config: ModelConfig,
    folder: Path,
    *,
    batch_size: int,
    fit: Fit,
    device: torch.device,
    advance: Advance,
) -> None:
    """Writes `pixels.npy` (uint8 [N, S, S, 3]), `features.npy` (float16 [N, D]), `logits.npy`
    (float32 [N, C]) and `images.parquet` (row → id, label) into `folder`.

    Raises:
        UserError: an image can no longer be read (shard, row and id are named).
    """
    total, side = len(kept), config.input_size
    folder.mkdir(parents=True, exist_ok=True)
    pixels = _array(folder / "pixels.npy", np.uint8, (total, side, side, 3))
    features = _array(folder / "features.npy", np.float16, (total, network.feature_channels))
    logits = _array(folder / "logits.npy", np.float32, (total, len(config.class_names)))
    start = 0
    for batch in _batches(_squares(kept, crawl, side, fit), batch_size):
        end = start + len(batch)
        pixels[start:end] = batch
        images = normalise(torch.from_numpy(batch).to(device), config.mean, config.std)
        pooled = pool(network.features(images))
        features[start:end] = pooled.half().cpu().numpy()
        logits[start:end] = network.classify(pooled).float().cpu().numpy()
        advance(len(batch))
        start = end
    for array in (pixels, features, logits):
        array.flush()
    rows = {
        "row": pa.array(range(total), pa.int64()),
        "id": [image.id for image in kept],
        "label": pa.array([image.label for image in kept], pa.int64()),
    }
    write_table(folder / "images.parquet", pa.table(rows))


def _squares(kept: list[KeptImage], crawl: Path, side: int, fit: Fit) -> Iterator[np.ndarray]:
    by_shard: dict[int, dict[int, KeptImage]] = {}
    for image in kept:
        by_shard.setdefault(image.shard, {})[image.row] = image
    paths = shard_paths(crawl)
    for shard, wanted in sorted(by_shard.items()):
        if shard >= len(paths):
            raise UserError(f"{crawl} has no shard {shard}", "run `dvc repro dedup`")
        for row, stored in enumerate(read_shard(paths[shard])):
            if row not in wanted:
                continue
            place = f"{paths[shard]}: row {row}"
            if stored.id != wanted.pop(row).id:
                raise UserError(f"{place} is not the image that dedup saw", "run `dvc repro dedup`")
            try:
                yield to_square(decode(stored.data), side, fit)
            except ImageError as error:
                raise UserError(f"{place} ({stored.id}) cannot be decoded: {error}") from None
        if wanted:
            raise UserError(f"{paths[shard]} has no row {min(wanted)}", "run `dvc repro dedup`")


def _batches(squares: Iterator[np.ndarray], batch_size: int) -> Iterator[np.ndarray]:
    batch = []
    for square in squares:
        batch.append(square)
        if len(batch) == batch_size:
            yield np.stack(batch)
            batch = []
    if batch:
        yield np.stack(batch)


def _array(path: Path, dtype: type, shape: tuple[int, ...]) -> np.memmap:
    return np.lib.format.open_memmap(path, "w+", dtype, shape)
