"""The files answer alike in other runtimes, and where nobody's code is but the runtime's."""

import copy
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import nn

from kd3_pipeline.export.checks import FLOAT as FULL
from kd3_pipeline.export.checks import HALF, Pixels, compare
from kd3_pipeline.export.files import check_files, write_files
from kd3_pipeline.export.half import LARGEST, write_fp16
from kd3_pipeline.export.model import open_model
from kd3_pipeline.export.program import InputKind, as_input
from kd3_pipeline.export.runtimes import RUNTIMES, RuntimeFailure
from kd3_pipeline.models import build
from kd3_pipeline.models.checkpoint import ModelConfig
from kd3_pipeline.models.network import Network
from kd3_pipeline.pixels import normalise
from tests.export.world import CONFIG, MEAN, NAMES, SIDE, STD, pixels, student

FLOAT, HALVES = TensorProto.FLOAT, TensorProto.FLOAT16
KINDS: list[InputKind] = ["uint8", "float"]
SEEN = pixels()[:70]


def logits_of(network: Network) -> np.ndarray:
    with torch.no_grad():
        return network(normalise(torch.from_numpy(SEEN), MEAN, STD)).numpy()


def write(folder: Path, network: Network, kind: InputKind, *formats: str, config=CONFIG) -> Path:
    given = Pixels(SEEN, SEEN, len(SEEN))
    write_files(folder, network, config, formats=formats, kind=kind, int8=None, pixels=given)
    return folder


@pytest.fixture(scope="module", params=KINDS)
def shipped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that take bytes or floats, in a folder of that name."""
    folder = tmp_path_factory.mktemp("shipped") / request.param
    return write(folder, student(), request.param, "onnx", "onnx-fp16")


@pytest.mark.parametrize("name", list(RUNTIMES))
def test_another_runtime_gives_the_students_logits(shipped: Path, name: str) -> None:
    runtime, kind = RUNTIMES[name], shipped.name
    if runtime.lacking:
        pytest.skip(f"not installed: {', '.join(runtime.lacking)}")
    images = as_input(SEEN, kind)
    if (name, kind) == ("ncnn", "uint8"):  # it has no cast
        with pytest.raises(RuntimeFailure, match="lacks a layer"):
            runtime.logits(shipped / "model.onnx", kind, images)
        return
    found = compare(runtime.logits(shipped / "model.onnx", kind, images), logits_of(student()))
    assert found.agrees and not found.others


@pytest.mark.parametrize("name", ["openvino", "opencv"])
def test_half_precision_runs_in_other_runtimes(shipped: Path, name: str) -> None:
    runtime, kind = RUNTIMES[name], shipped.name
    if runtime.lacking:
        pytest.skip(f"not installed: {', '.join(runtime.lacking)}")
    answer = runtime.logits(shipped / "model-fp16.onnx", kind, as_input(SEEN, kind))
    assert compare(answer, logits_of(student()), HALF).agrees


def test_a_file_that_no_runtime_reads_fails_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model\n" * 9)
    for runtime in RUNTIMES.values():
        if not runtime.lacking:
            with pytest.raises(RuntimeFailure) as caught:
                runtime.logits(tmp_path / "model.onnx", "uint8", SEEN)
            assert str(caught.value).isprintable()


def test_half_precision_halves_the_bytes_and_keeps_the_types_outside(shipped: Path) -> None:
    whole, half = shipped / "model.onnx", shipped / "model-fp16.onnx"
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    graph, before = onnx.load(half).graph, onnx.load(whole).graph
    kinds = [one.type.tensor_type.elem_type for one in (*graph.input, *graph.output)]
    assert kinds == [one.type.tensor_type.elem_type for one in (*before.input, *before.output)]
    assert kinds[1] == FLOAT
    assert {one.data_type for one in graph.initializer} & {FLOAT, HALVES} == {HALVES}
    given = Pixels(SEEN, SEEN, len(SEEN))
    (row,) = check_files(shipped, ["model-fp16.onnx"], logits_of(student()), given)
    assert row["agrees"] and 1e-4 < row["of_spread"] < HALF
    assert open_model(half).class_names == NAMES


class Loud(Network):
    """A network with activations that 16 bits cannot hold, between two scales."""

    def __init__(self, inner: Network) -> None:
        super().__init__()
        self.inner, self.fc = inner, inner.classifier
        self.feature_channels = inner.feature_channels
        self.up = nn.Conv2d(3, 3, 1, groups=3, bias=False)
        self.down = nn.Conv2d(3, 3, 1, groups=3, bias=False)
        nn.init.constant_(self.up.weight, 3e5)
        nn.init.constant_(self.down.weight, 1 / 3e5)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return self.inner.features(self.down(self.up(images)))


def test_what_16_bits_cannot_hold_keeps_32(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Loud(student()).eval().requires_grad_(False)
    expected = logits_of(network)
    write(tmp_path, network, "float", "onnx")
    kept = write_fp16(tmp_path / "half.onnx", tmp_path / "model.onnx", as_input(SEEN, "float"))
    assert kept >= 2
    assert compare(open_model(tmp_path / "half.onnx").logits(SEEN), expected, HALF).agrees
    weights = onnx.load(tmp_path / "half.onnx").graph.initializer
    large = [one for one in weights if np.abs(onnx.numpy_helper.to_array(one)).max() > LARGEST]
    assert [one.data_type for one in large] == [FLOAT]
    assert sum(one.data_type == HALVES for one in weights) > len(weights) / 2


def test_logits_that_16_bits_cannot_hold_are_given_whole(tmp_path: Path) -> None:
    network = copy.deepcopy(student())
    expected = logits_of(network)
    scale = 2e5 / float(np.abs(expected).max())
    network.fc.weight.data *= scale
    network.fc.bias.data *= scale
    write(tmp_path, network, "uint8", "onnx", "onnx-fp16")
    found = compare(open_model(tmp_path / "model-fp16.onnx").logits(SEEN), expected * scale, HALF)
    assert found.agrees and found.relative > 1e-4


OWN = """
import torch
from torch import nn
from kd3_pipeline.models.network import Network

class Tail(nn.Module):
    '''A tail that no list of plain layers holds.'''
    def __init__(self, width, classes):
        super().__init__()
        self.first, self.last = nn.Linear(width, 8), nn.Linear(8, classes)
    def forward(self, pooled):
        hidden = torch.nn.functional.gelu(self.first(pooled))
        return torch.log_softmax(self.last(hidden) * 3, dim=-1)

class Own(Network):
    '''Cut at a vector: patches with attention, as a ViT has them.'''
    cut = "vector"
    feature_channels = 16
    def __init__(self, classes):
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 4, 4)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.fc = Tail(16, classes)
    def features(self, images):
        patches = self.patch(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(images), -1, -1), patches], dim=1)
        return self.block(tokens)[:, 0]
"""
ALONE = """
import sys, numpy
given, path, out = sys.argv[1:]
images = numpy.load(given)
if path.endswith(".onnx"):
    import onnxruntime
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    answers = [session.run(None, {"images": part})[0] for part in (images[:1], images[1:])]
else:
    import torch
    network = torch.export.load(path).module()
    answers = [network(torch.from_numpy(part)).numpy() for part in (images[:1], images[1:])]
foreign = ("kd3_pipeline", "kd3_stages", "own_network", "timm", "torchvision")
assert not [name for name in sys.modules if name.split(".")[0] in foreign]
numpy.save(out, numpy.concatenate(answers))
"""


def answers_alone(file: Path, images: np.ndarray) -> np.ndarray:
    """Logits by a fresh process without this project, on batches of 1 and of all others."""
    np.save(file.with_name("in.npy"), images)
    places = [file.with_name("in.npy"), file, file.with_name("out.npy")]
    subprocess.run([sys.executable, "-I", "-c", ALONE, *map(str, places)], check=True)
    return np.load(places[-1])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_network_and_tail_of_ones_own_run_without_their_code(
    kind: InputKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "own_network.py").write_text(OWN)
    monkeypatch.syspath_prepend(code)
    import own_network

    torch.manual_seed(0)
    network = own_network.Own(len(NAMES)).eval().requires_grad_(False)
    folder = write(tmp_path / "export", network, kind, "onnx", "onnx-fp16", "torch")
    for name, tolerance in (("model.onnx", FULL), ("model-fp16.onnx", HALF), ("model.pt2", FULL)):
        logits = answers_alone(folder / name, as_input(SEEN, kind))
        assert compare(logits, logits_of(network), tolerance).agrees, name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("torchvision/mobilenet_v3_small", 64),
        ("timm/convnext_atto", 64),
        ("timm/vit_tiny_patch16_224", 224),
        ("torchvision/vit_b_16", 224),
        ("torchvision/maxvit_t", 224),
    ],
)
def test_students_of_the_collections_run_alone(name: str, side: int, tmp_path: Path) -> None:
    if name.startswith("timm"):
        pytest.importorskip("timm")
    torch.manual_seed(0)
    network = build(name, len(NAMES)).eval().requires_grad_(False)
    for layer in network.classifier.modules():  # of a ViT, all zero at first
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.1)
    config = ModelConfig({"name": name}, NAMES, MEAN, STD, side, "")
    few = np.random.default_rng(0).integers(0, 256, (3, side, side, 3), np.uint8)
    given = Pixels(few, few, len(few))
    formats = ["onnx", "onnx-fp16", "torch"]
    written = write_files(
        tmp_path, network, config, formats=formats, kind="uint8", int8=None, pixels=given
    )
    with torch.no_grad():
        expected = network(normalise(torch.from_numpy(few), MEAN, STD)).numpy()
    for file in written[1:]:
        tolerance = HALF if "fp16" in file else FULL
        assert compare(answers_alone(tmp_path / file, few), expected, tolerance).agrees, file


def test_a_file_for_phones_is_the_student(tmp_path: Path) -> None:
    pytest.importorskip("litert_torch", reason="wants an older torch than the pinned one")
    pytest.importorskip("ai_edge_litert")
    for kind in KINDS:
        folder = write(tmp_path / kind, student(), kind, "litert")
        assert sorted(one.name for one in folder.iterdir()) == [
            "config.json",
            "model.safetensors",
            "model.tflite",
        ]
        model = open_model(folder / "model.tflite")
        assert model.class_names == NAMES and model.input_size == SIDE
        assert compare(model.logits(SEEN), logits_of(student())).agrees
