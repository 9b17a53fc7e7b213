import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto

from kd3_pipeline.errors import UserError
from kd3_pipeline.models.checkpoint import load_model, weights_file
from kd3_pipeline.models.finite import check_answers
from kd3_pipeline.models.network import parameter_count
from kd3_pipeline.models.program import save_program
from kd3_pipeline.params import Teacher
from kd3_pipeline.pixels import normalise
from kd3_pipeline.program import consent
from kd3_pipeline.program.archive import kind_of
from kd3_pipeline.teacher.program import ProgramTeacher, read_program
from tests.program.graphs import CLASSES, SIDE, about, edited, exported, graph, network, script

CPU = torch.device("cpu")
PIXELS = torch.from_numpy(
    np.random.default_rng(1).integers(0, 256, (5, SIDE, SIDE, 3)).astype(np.uint8)
)


def read(path: Path, **changes: Any) -> ProgramTeacher:
    kind = kind_of(path)
    assert kind
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
    values = {"source": "file", "path": str(path), "input_size": SIDE, "mean": mean, "std": std}
    return read_program(Teacher(**(values | changes)), kind)


def logits(teacher: ProgramTeacher) -> torch.Tensor:
    with torch.no_grad():
        return teacher.network(normalise(PIXELS, teacher.mean, teacher.std))


def saved(teacher: ProgramTeacher, folder: Path) -> Path:
    values = {name: getattr(teacher, name) for name in ("class_names", "mean", "std", "input_size")}
    save_program(folder, teacher.network, teacher.data, values | {"source": "a test"})
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("make", [script, exported])
def test_programs_of_torch_answer_as_the_network_that_they_were(make: Any, tmp_path: Path) -> None:
    teacher = read(make(tmp_path / "model"))
    assert teacher.network.cut == "map"
    shown = normalise(PIXELS, teacher.mean, teacher.std)
    with torch.no_grad():
        expected = network().eval()(shown)
        assert teacher.network.features(shown).shape == (5, 4, SIDE, SIDE)
    assert torch.allclose(logits(teacher), expected, atol=1e-5)
    loaded, config = load_model(saved(teacher, tmp_path / "teacher"), CPU)
    assert torch.equal(loaded(shown), logits(teacher))
    assert config.class_names == [f"class {k}" for k in range(CLASSES)]
    assert parameter_count(loaded) == parameter_count(network())


def test_an_onnx_teacher_has_its_map_and_its_last_layer(tmp_path: Path) -> None:
    teacher = read(graph(tmp_path / "m.onnx"), class_names=list("abcde"))
    assert teacher.network.cut == "map"
    check_answers(teacher.network, teacher.mean, teacher.std, SIDE, "m.onnx")
    folder = saved(teacher, tmp_path / "teacher")
    loaded, config = load_model(folder, CPU)
    assert weights_file(folder, config).name == "model.onnx"
    assert torch.equal(loaded(normalise(PIXELS, config.mean, config.std)), logits(teacher))
    weights_file(folder, config).write_bytes(b"another")
    with pytest.raises(UserError, match="SHA-256 differs"):
        load_model(folder, CPU)


@pytest.mark.slow
@pytest.mark.parametrize("make", [script, exported])
def test_a_folder_with_a_program_that_was_not_read_is_not_opened(make: Any, tmp_path: Path) -> None:
    folder = saved(read(make(tmp_path / "model")), tmp_path / "teacher")
    path = next(folder.glob("model.p*"))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("program/data/sample.pkl", b"cos\nsystem\n(S'true'\ntR.")
    config = json.loads((folder / "config.json").read_text())
    config["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"holds what was not read.*pipeline teacher"):
        load_model(folder, CPU)


def same_as_plain(teacher: ProgramTeacher, tmp_path: Path, atol: float = 1e-4) -> bool:
    return torch.allclose(logits(teacher), logits(read(graph(tmp_path / "p.onnx"))), atol=atol)


def test_a_graph_of_one_image_at_a_time_answers_any_number(tmp_path: Path) -> None:
    teacher = read(graph(tmp_path / "m.onnx", shape=(1, 3, SIDE, SIDE)))
    assert "it takes 1 image at a time" in teacher.notes
    assert same_as_plain(teacher, tmp_path)


def test_a_graph_of_seven_images_at_a_time_answers_any_number(tmp_path: Path) -> None:
    teacher = read(graph(tmp_path / "m.onnx", shape=(7, 3, SIDE, SIDE)))
    assert "it takes 7 images at a time" in teacher.notes
    assert same_as_plain(teacher, tmp_path)


def test_a_graph_of_channels_last_gets_them_so(tmp_path: Path) -> None:
    teacher = read(graph(tmp_path / "m.onnx", shape=("B", SIDE, SIDE, 3)))
    assert teacher.network.spec.layout == "nhwc"
    assert same_as_plain(teacher, tmp_path)


def test_a_graph_of_half_precision_gets_it(tmp_path: Path) -> None:
    teacher = read(graph(tmp_path / "m.onnx", dtype=TensorProto.FLOAT16))
    assert teacher.network.spec.dtype == "float16"
    assert same_as_plain(teacher, tmp_path, 0.05)


def test_a_graph_of_bytes_sees_the_pixels_whatever_mean_and_std_are(tmp_path: Path) -> None:
    path = graph(tmp_path / "m.onnx", dtype=TensorProto.UINT8, shape=("B", SIDE, SIDE, 3))
    one, other = read(path), read(path, mean=[0.0] * 3, std=[1.0] * 3)
    assert one.network.own_input
    assert any("teacher.mean and teacher.std are the student's alone" in n for n in one.notes)
    assert torch.allclose(logits(one), logits(other), atol=1e-5)
    plain = read(graph(tmp_path / "p.onnx"), mean=[0.0] * 3, std=[1.0] * 3)
    assert torch.allclose(logits(one), logits(plain), atol=1e-4)


def test_what_pipeline_export_wrote_says_how_it_is_used(tmp_path: Path) -> None:
    names = list("vwxyz")
    told = about(
        class_names=names,
        input_size=SIDE,
        mean=[0.1, 0.2, 0.3],
        std=[0.5, 0.6, 0.7],
        input="float",
        fit="squash",
    )
    teacher = read(graph(tmp_path / "m.onnx", edit=told), input_size=32, class_names=list("abcde"))
    assert teacher.class_names == names
    assert (teacher.input_size, teacher.mean, teacher.fit) == (SIDE, [0.1, 0.2, 0.3], "squash")
    plain = read(graph(tmp_path / "p.onnx"), mean=[0.0] * 3, std=[1.0] * 3)
    assert torch.allclose(logits(teacher), logits(plain), atol=1e-4)


def test_probabilities_become_logits_and_that_is_told(tmp_path: Path) -> None:
    class Sure(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.network(images).softmax(1) * 1.0  # no softmax at the end of the graph

    teacher = read(script(tmp_path / "m.pt", Sure().eval()))
    assert teacher.network.cut == "logits"
    assert any("sum to 1" in note for note in teacher.notes)
    plain = logits(read(script(tmp_path / "p.pt")))
    assert torch.allclose(logits(teacher).softmax(1), plain.softmax(1), atol=1e-5)
    assert teacher.network.num_classes == teacher.network.feature_channels == CLASSES
    assert not list(teacher.network.parameters())
    check_answers(teacher.network, teacher.mean, teacher.std, SIDE, "m.pt")


@pytest.mark.parametrize(
    ("options", "changes", "told"),
    [
        ({}, {"input_size": 32}, r"teacher\.input_size: .*8×8 pixels, not 32: set it to 8"),
        ({"shape": ("B", 1, SIDE, SIDE)}, {}, r"teacher\.channels: .* takes 1 channels"),
        ({"inputs": 2}, {}, r"takes 2 inputs \(images, mask\)"),
        ({}, {"class_names": ["a", "b"]}, r"teacher\.class_names: 2 names for the 5 outputs"),
        ({"bias": float("nan")}, {}, "not finite"),
        ({}, {"sha256": "0" * 64}, r"teacher\.sha256"),
    ],
)
def test_what_does_not_fit_is_one_line_that_names_the_parameter(
    tmp_path: Path, options: dict[str, Any], changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError, match=told) as caught:
        read(graph(tmp_path / "m.onnx", **options), **changes)
    assert "\n" not in str(caught.value)


def test_a_script_of_another_size_names_the_parameter(tmp_path: Path) -> None:
    class Flat(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = torch.nn.Linear(3 * SIDE * SIDE, CLASSES)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.fc(images.flatten(1))

    path = script(tmp_path / "m.pt", Flat())
    assert read(path).network.cut == "vector"
    with pytest.raises(UserError, match=r"images of 16 pixels \(teacher\.input_size\)"):
        read(path, input_size=16)


def test_a_script_that_may_do_more_is_opened_with_trust_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def harmless(name: str, data: bytes) -> bytes:
        if not name.endswith(".py") or b"conv" not in data:
            return data
        return data.replace(b"    return", b"    _9 = ops.prim.TimePoint()\n    return", 1)

    path = edited(script(tmp_path / "p.pt"), tmp_path / "m.pt", harmless)
    assert read(path).network.cut == "map"  # arithmetic: no consent is needed

    def writes(name: str, data: bytes) -> bytes:
        line = b'    if False:\n      torch.save(1, "x")\n    else:\n      pass\n    return'
        return data.replace(b"    return", line, 1) if b"torch.linear(" in data else data

    path = edited(tmp_path / "p.pt", tmp_path / "m.pt", writes)
    with pytest.raises(UserError, match=r"aten\.save.*teacher\.trust"):
        read(path)
    folder = saved(read(path, trust=True), tmp_path / "teacher")
    with pytest.raises(UserError, match=r"aten\.save"):  # nor by a later stage
        load_model(folder, CPU)
    monkeypatch.setattr(consent, "_given", [])
    consent.trust_programs()
    load_model(folder, CPU)
