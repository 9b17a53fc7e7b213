"""Exported files in every runtime that is here: how far each is from the student.

    pipeline export --set export.runtimes=[] && python -m benchmarks.runtimes models/export
    python -m benchmarks.runtimes models/export OTHER/export --web NODE_MODULES

Takes export folders, as one that takes bytes and one that takes floats. Each file is run by its own
runtime, and the ONNX files by the others too, on web images of data/embed (noise where there are
none) in one batch; the student is model.safetensors. A difference is told in spreads: deviations of
the student's logits over the classes (kd3_pipeline.export.checks). --web runs onnxruntime-web,
which `npm install onnxruntime-web` puts into NODE_MODULES, in WebAssembly under node.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.limits import processor
from kd3_pipeline.embeddings import Embeddings
from kd3_pipeline.export.checks import FLOAT, HALF, compare
from kd3_pipeline.export.files import FP16, INT8, LITERT, ONNX, TORCH
from kd3_pipeline.export.model import open_model
from kd3_pipeline.export.program import ABOUT, INPUT, InputKind, as_input
from kd3_pipeline.export.runtimes import RUNTIMES, RuntimeFailure

OWN = (ONNX, TORCH, FP16, INT8, LITERT)
EVERYWHERE = (ONNX, FP16, INT8)
IMAGES = 64
WEB = """
const ort = require(process.argv[1] + "/onnxruntime-web");
const [file, data, out, kind, ...dims] = process.argv.slice(2);
const fs = require("fs");
ort.env.wasm.numThreads = 1;
(async () => {
  const session = await ort.InferenceSession.create(file, { executionProviders: ["wasm"] });
  const bytes = fs.readFileSync(data);
  const values = kind == "uint8" ? new Uint8Array(bytes)
    : new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
  const given = new ort.Tensor(kind == "uint8" ? "uint8" : "float32", values, dims.map(Number));
  const answer = (await session.run({ images: given })).logits;
  fs.writeFileSync(out, Buffer.from(answer.data.buffer));
  process.exit(0);
})().catch((error) => { console.error(String(error.message || error)); process.exit(1); });
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("folders", nargs="+", type=Path, help="of pipeline export")
    options.add_argument("--embed", type=Path, default=Path("data/embed"), help="web images")
    options.add_argument("--web", type=Path, help="node_modules with onnxruntime-web")
    given = options.parse_args()
    print(f"{processor()}; {IMAGES} images, one batch, in spreads of the student's logits\n")
    print("| folder | input | file | runtime | spreads | logits | another class | |")
    print("|---|---|---|---|---|---|---|---|")
    for folder in given.folders:
        for row in _rows(folder, given.embed, given.web):
            print(f"| {folder} | {' | '.join(row)} |", flush=True)


def _rows(folder: Path, embed: Path, web: Path | None) -> Iterator[list[str]]:
    student = open_model(folder / "model.safetensors")
    pixels = _images(embed, student.input_size)
    expected = student.logits(pixels)
    kind = _kind(folder)

    def row(file: str, runtime: str, ask: Callable[[], np.ndarray]) -> list[str]:
        try:
            found = compare(ask(), expected, HALF if file == FP16 else FLOAT)
        except RuntimeFailure as error:
            return [kind, file, runtime, "", "", "", f"does not run: {error}"]
        verdict = "" if found.agrees or file == INT8 else "**not the student**"
        figures = [f"{found.relative:.1e}", f"{found.difference:.1e}", str(found.others)]
        return [kind, file, runtime, *figures, verdict]

    for file in OWN:
        if (folder / file).is_file():
            model = open_model(folder / file)
            yield row(file, model.runtime, lambda model=model: model.logits(pixels))
    images = as_input(pixels, kind)
    for file in EVERYWHERE:
        path = folder / file
        if not path.is_file():
            continue
        for name, runtime in RUNTIMES.items():
            if runtime.lacking:
                lacking = f"skipped: {', '.join(runtime.lacking)} not installed"
                yield [kind, file, name, "", "", "", lacking]
            else:
                ask = lambda runtime=runtime, path=path: runtime.logits(path, kind, images)  # noqa: E731
                yield row(file, runtime.name, ask)
        if web:
            version = json.loads((web / "onnxruntime-web/package.json").read_text())["version"]
            ask = lambda path=path: _by_node(web, path, kind, images)  # noqa: E731
            yield row(file, f"onnxruntime-web {version}", ask)


def _images(embed: Path, side: int) -> np.ndarray:
    """uint8 [IMAGES, side, side, 3]: from the web, evenly spread, or noise."""
    if not embed.is_dir():
        print(f"(no {embed}: images of noise)", file=sys.stderr)
        return np.random.default_rng(0).integers(0, 256, (IMAGES, side, side, 3), np.uint8)
    found = Embeddings.open(embed).centre(side)
    return found[np.arange(IMAGES) * len(found) // IMAGES]


def _kind(folder: Path) -> InputKind:
    """What the ONNX file of a folder takes, as it says itself."""
    import onnx

    told = {one.key: one.value for one in onnx.load(folder / ONNX).metadata_props}
    return json.loads(told[ABOUT])["input"]


def _by_node(modules: Path, path: Path, kind: InputKind, images: np.ndarray) -> np.ndarray:
    assert INPUT == "images"
    with tempfile.TemporaryDirectory() as name:
        given, out = Path(name) / "in", Path(name) / "out"
        given.write_bytes(np.ascontiguousarray(images).tobytes())
        places = [str(modules.resolve()), str(path), str(given), str(out), kind]
        command = ["node", "-e", WEB, "--", *places, *map(str, images.shape)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeFailure(f"node: {(done.stderr.strip().splitlines() or ['?'])[-1][:200]}")
        return np.frombuffer(out.read_bytes(), np.float32).reshape(len(images), -1)


if __name__ == "__main__":
    main()
