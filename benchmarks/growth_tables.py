"""Growth of what dedup, distill's record and the report hold of every image."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.allocated import Figure, measured
from kd3_pipeline.dedup.fingerprints import ARRAYS, COLUMNS, Fingerprints
from kd3_pipeline.dedup.judgement import Rules, judge, summarise
from kd3_pipeline.dedup.near import radius_for
from kd3_pipeline.dedup.provenance import Provenance
from kd3_pipeline.distill.outputs import selection_table
from kd3_pipeline.distill.trainer import Trained
from kd3_pipeline.embeddings import LOGITS, Embeddings, write_images
from kd3_pipeline.manifest import SCHEMA as MANIFEST
from kd3_pipeline.report.catalogue import Catalogue
from kd3_pipeline.report.dropped.choice import Dropped
from kd3_pipeline.report.flow import Flow, count_flow, read_candidates
from kd3_pipeline.report.galleries import build_galleries
from kd3_pipeline.report.origins import read_origins
from kd3_pipeline.report.sections import selection as selection_section
from kd3_pipeline.report.stored import Images, read_images
from kd3_pipeline.store import write_table

CLASSES, EPOCHS, BLOCK = 100, 240, 100_000
ISSUES = ("blurred", "dark")


def ids_of(first: int, last: int) -> pa.Array:
    """Ids of some rows, which look like hashes."""
    return pa.array([f"{row * 0x9E3779B97F4A7C15 % 2**64:016x}" * 4 for row in range(first, last)])


def all_ids(rows: int) -> pa.Array:
    """Ids of all rows."""
    return pa.concat_arrays([ids_of(at, min(at + BLOCK, rows)) for at in range(0, rows, BLOCK)])


def write_manifest(path: Path, rows: int) -> None:
    """Writes a crawl's manifest: of every two candidates one was stored."""
    with pq.ParquetWriter(path, MANIFEST, compression="zstd") as writer:
        for first in range(0, rows, BLOCK):
            some = range(first, min(first + BLOCK, rows))
            stored = len(some)
            columns = {
                name: pa.nulls(2 * stored, MANIFEST.field(name).type) for name in MANIFEST.names
            }
            labels = np.arange(some.start, some.stop) % CLASSES
            pages = [f"https://site-{row % 1000}.example/{row}/a-page" for row in some]
            columns |= {
                "id": pa.concat_arrays(
                    [ids_of(some.start, some.stop), pa.nulls(stored, pa.string())]
                ),
                "label": pa.array(np.tile(labels, 2)),
                "class": pa.array([f"class {label}" for label in labels] * 2),
                "engine": pa.array(["bing"] * 2 * stored),
                "query": pa.array([f"query {label}" for label in labels] * 2),
                "url": pa.array([f"{page}.jpg" for page in pages] * 2),
                "page_url": pa.array(pages * 2),
                "title": pa.array(["A title of some words"] * 2 * stored),
                "outcome": pa.array(["stored"] * stored + ["http"] * stored),
            }
            writer.write_table(pa.table(columns, schema=MANIFEST))


def fingerprints(rows: int) -> Fingerprints:
    """Hashes at random, each tenth the copy of another, and pictures that take no memory."""
    draw = np.random.default_rng(1)
    number = np.arange(rows)
    columns: dict[str, Any] = {
        name: np.full(rows, 300) for name, kind in COLUMNS.items() if kind != pa.string()
    }
    columns |= {"shard": number // 2000, "row": number % 2000, "label": number % CLASSES}
    columns |= {"id": all_ids(rows), "error": pa.array([""] * rows)}
    images = pa.table(
        [pa.array(columns[name], kind) for name, kind in COLUMNS.items()], list(COLUMNS)
    )
    arrays = {
        name: np.broadcast_to(np.ones((), kind), (rows, *shape))
        for name, (kind, shape) in ARRAYS.items()
    }
    hashes = draw.integers(0, 2**64, (rows, *ARRAYS["hashes"][1]), dtype=np.uint64)
    copies = number[9::10]
    hashes[copies] = hashes[copies - 1]
    hashes[copies, 0] ^= np.uint64(1)
    arrays |= {"hashes": hashes, "range": np.broadcast_to(np.uint8(255), rows)}
    return Fingerprints(images, **arrays)


def alike(i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Similarity of pairs: neighbours are copies, others are not."""
    return (np.abs(i - j) == 1).astype(np.float32)


def dedup(rows: int, folder: Path, timed: bool, radius: int | None = None) -> list[Figure]:
    """Provenance, verdicts, their summary, and the choice of the contact sheet; writes verdicts."""
    write_manifest(folder / "manifest.parquet", rows)
    prints = fingerprints(rows)
    rules = Rules(radius_for(rows) if radius is None else radius, 0.7, 0.93, 64, "drop")
    found = {name: np.arange(rows) % 50 == place for place, name in enumerate(ISSUES)}

    def figure(table: str, work: Callable[[], Any]) -> tuple[Any, Figure]:
        return measured("dedup", table, rows, work, timed)

    provenance, first = figure("provenance", lambda: Provenance.read(folder / "manifest.parquet"))
    verdicts, second = figure(
        "verdicts", lambda: judge(prints, alike, rules, provenance, issues=found)
    )
    _, third = figure("summary", lambda: summarise(verdicts, provenance, {}, rules.radius))
    sheet = Dropped(verdicts, None, np.zeros(rows), {}, folder, folder / "manifest.parquet")
    _, fourth = figure("contact sheet", lambda: sheet.sections(0))
    write_table(folder / "verdicts.parquet", verdicts)
    return [first, second, third, fourth]


def selection(rows: int, folder: Path, timed: bool) -> list[Figure]:
    """The record of which image was trained on in which epoch; writes it."""
    kept = torch.empty(EPOCHS, rows, dtype=torch.bool).bernoulli_(0.7)
    labels, sure = torch.arange(rows) % CLASSES, torch.rand(rows)
    trained = Trained([], kept, torch.zeros(EPOCHS, CLASSES), labels, sure, EPOCHS)
    ids = all_ids(rows).to_pylist()
    out = range(0, rows, 33)
    table, figure = measured(
        "distill", "selection", rows, lambda: selection_table(ids, out, trained), timed
    )
    write_table(folder / "selection.parquet", table)
    return [figure]


def report(rows: int, folder: Path, timed: bool) -> list[Figure]:
    """What the report reads of every image: no pictures, and not the map."""
    write_images(
        folder,
        {"row": np.arange(rows), "id": all_ids(rows), "label": np.arange(rows) % CLASSES},
        [f"class {label}" for label in range(CLASSES)],
    )
    logits = np.lib.format.open_memmap(folder / LOGITS, "w+", np.float32, (rows, CLASSES))
    logits.flush()
    names = tuple(f"class {label}" for label in range(CLASSES))
    manifest = folder / "manifest.parquet"

    def whole() -> list[Any]:
        candidates = read_candidates(manifest)
        images = read_images(folder / "verdicts.parquet", folder / "selection.parquet")
        embeddings = Embeddings.open(folder)
        flow = count_flow(candidates, embeddings, images, names)
        galleries = build_galleries(_catalogue(folder, images, embeddings, flow, names), 0)
        shown = [(one.key, one.total) for one in galleries]
        return [flow, shown, read_origins(manifest, images), selection_section(images, names, {})]

    return [measured("report", "all", rows, whole, timed)[1]]


def _catalogue(
    folder: Path, images: Images, embeddings: Embeddings, flow: Flow, names: tuple[str, ...]
) -> Catalogue:
    leaks, manifest = folder / "leaks.parquet", folder / "manifest.parquet"
    return Catalogue(folder, manifest, leaks, images, embeddings, flow.names, flow.known, names, 0)
