import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kd3_pipeline.errors import UserError
from kd3_pipeline.program.archive import checked_copy, kind_of
from kd3_pipeline.program.client import Kind
from tests.program.graphs import edited, exported, graph, network, script, with_json


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    return {
        "onnx": graph(folder / "model.pt"),  # the suffix says nothing
        "torchscript": script(folder / "model.bin"),
        "export": exported(folder / "model.pt2"),
    }


def records(data: bytes, folder: Path) -> dict[str, bytes]:
    path = folder / "copy.zip"
    path.write_bytes(data)
    with zipfile.ZipFile(path) as file:
        return {name.removeprefix("program/"): file.read(name) for name in file.namelist()}


def test_a_program_is_known_by_its_content(files: dict[str, Path], tmp_path: Path) -> None:
    assert {kind: kind_of(path) for kind, path in files.items()} == {
        "onnx": "onnx",
        "torchscript": "torchscript",
        "export": "export",
    }
    weights = tmp_path / "weights.onnx"
    torch.save(network().state_dict(), weights)
    assert kind_of(weights) is None
    torch.save(network().state_dict(), weights, _use_new_zipfile_serialization=False)
    assert kind_of(weights) is None
    assert kind_of(tmp_path / "nothing") is None


def test_the_copy_of_a_script_has_its_text_and_weights_alone(
    files: dict[str, Path], tmp_path: Path
) -> None:
    copied = records(checked_copy(files["torchscript"], "torchscript"), tmp_path)
    assert any(name.startswith("code/") for name in copied)
    assert not [name for name in copied if "debug_pkl" in name or "traced_inputs" in name]
    # the same records are the same file, so a teacher's SHA-256 is the same on every machine
    again = checked_copy(files["torchscript"], "torchscript")
    assert again == checked_copy(files["torchscript"], "torchscript")


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ('torch.save(input, "/tmp/x")', "aten.save"),
        ('_9 = torch.from_file("/etc/passwd")', "aten.from_file"),
        ('_9 = (input).save("/tmp/x")', "save"),
        ('_9 = getattr(input, "save")', "save"),
        ("_9 = getattr", "getattr"),
        ("_9 = getattr(input, _8)", "a name that it makes"),
        ('_9 = ops.prim.rpc_sync("worker", "f")', "rpc_sync"),
        ("_9 = ops.mylib.run(input)", "mylib.run"),
        ("_9 = __torch__.torch.classes.dist_c10d.ProcessGroup(1, 2)", "dist_c10d"),
        ("_9 = rpc_async(input)", "rpc_async"),
        ("_9 = ^PythonOp(input)", "cannot be read"),
    ],
)
def test_script_that_does_more_than_compute_is_refused_by_name(
    files: dict[str, Path], tmp_path: Path, line: str, named: str
) -> None:
    def change(name: str, data: bytes) -> bytes:
        if not name.endswith(".py") or b"return" not in data:
            return data
        return data.replace(b"    return", f"    {line}\n    return".encode(), 1)

    path = edited(files["torchscript"], tmp_path / "evil.pt", change)
    with pytest.raises(UserError, match=r"may do more than compute.*teacher\.trust") as caught:
        checked_copy(path, "torchscript")
    assert named in str(caught.value)


def test_script_whose_pickle_makes_an_object_of_a_library_is_refused(
    files: dict[str, Path], tmp_path: Path
) -> None:
    made = b"c__torch__.torch.classes.dist_c10d\nTCPStore\n"

    def change(name: str, data: bytes) -> bytes:
        return data[:2] + made + b"0" + data[2:] if name.endswith("/data.pkl") else data

    path = edited(files["torchscript"], tmp_path / "evil.pt", change)
    with pytest.raises(UserError, match="dist_c10d"):
        checked_copy(path, "torchscript")


def sum_of(text: str) -> Callable[[dict], None]:
    def change(value: dict) -> None:
        sizes = value["graph_module"]["graph"]["tensor_values"]["input"]["sizes"]
        sizes[0]["as_expr"]["expr_str"] = text

    return change


def target(text: str) -> Callable[[dict], None]:
    return lambda value: value["graph_module"]["graph"]["nodes"][0].update(target=text)


def named(text: str) -> Callable[[dict], None]:
    return lambda value: value["graph_module"]["graph"]["nodes"][0].update(name=text)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (sum_of("__import__('os').system('true')"), "no sum"),
        (sum_of("Symbol('s1').func"), "no sum"),
        (target("torch.os.system"), "torch.os.system"),
        (target("torch.ops.aten.from_file.default"), "aten.from_file"),
        (target("torch.ops.mylib.run.default"), "mylib.run"),
        (target("_operator.attrgetter"), "attrgetter"),
        (named("x = __import__('os')"), "a text in name"),
    ],
)
def test_exported_program_that_torch_would_evaluate_is_refused(
    files: dict[str, Path], tmp_path: Path, change: Callable[[dict], None], told: str
) -> None:
    path = edited(files["export"], tmp_path / "evil.pt2", lambda n, d: with_json(n, d, change))
    with pytest.raises(UserError, match="may do more than compute") as caught:
        checked_copy(path, "export")
    assert told in str(caught.value)


def test_pickles_and_python_of_an_exported_program_stay_out(
    files: dict[str, Path], tmp_path: Path
) -> None:
    def change(value: dict) -> None:
        value["guards_code"] = ["__import__('os').system('true')"]

    path = edited(files["export"], tmp_path / "e.pt2", lambda n, d: with_json(n, d, change))
    copied = records(checked_copy(path, "export"), tmp_path)
    assert b"__import__" not in copied["models/model.json"]
    assert copied["data/sample_inputs/model.pt"] == b""

    def pickled(name: str, data: bytes) -> bytes:
        return data.replace(b'"use_pickle": false', b'"use_pickle": true', 1)

    path = edited(files["export"], tmp_path / "p.pt2", pickled)
    with pytest.raises(UserError, match="is a pickle"):
        checked_copy(path, "export")


def test_a_file_of_a_message_without_an_end_is_none(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x3a" + b"\xff" * 8 + b"\x01")  # of 2**57 bytes
    assert kind_of(path) is None


def spoiled(data: bytes, damage: str) -> bytes:
    """An archive of which one thing is no longer as it was."""
    place = data.rindex(b"PK\x01\x02")  # the last entry of the directory
    if damage == "directory":
        return data[:place] + b"XX" + data[place + 2 :]
    if damage == "name":
        return data[: place + 50] + b"\xff" + data[place + 51 :]
    return data[: place + 6] + b"\xff" + data[place + 7 :]  # of what is needed to read it


@pytest.mark.parametrize("damage", ["directory", "name", "version"])
@pytest.mark.parametrize("kind", ["torchscript", "export"])
def test_a_damaged_archive_is_one_line(
    files: dict[str, Path], tmp_path: Path, kind: Kind, damage: str
) -> None:
    path = tmp_path / "spoiled"
    path.write_bytes(spoiled(files[kind].read_bytes(), damage))
    with pytest.raises(UserError, match=r"is damaged: .*: get it again") as caught:
        checked_copy(path, kind_of(path) or kind)
    assert "\n" not in str(caught.value)


def test_an_exported_program_without_what_it_lists_is_damaged(
    files: dict[str, Path], tmp_path: Path
) -> None:
    def change(name: str, data: bytes) -> bytes:
        return b"null" if name.endswith(".json") else data

    path = edited(files["export"], tmp_path / "m.pt2", change)
    with pytest.raises(UserError, match=r"is damaged|may do more"):
        checked_copy(path, "export")
