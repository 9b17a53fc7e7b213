from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from kd3_pipeline.errors import UserError
from kd3_pipeline.program.onnx_graph import read_onnx
from tests.program.graphs import CLASSES, graph


@pytest.mark.parametrize("weights", ["Gemm", "MatMul"])
def test_the_features_are_the_map_before_the_last_linear_layer(
    tmp_path: Path, weights: str
) -> None:
    found = read_onnx(graph(tmp_path / "m.onnx", weights=weights))
    assert found.outputs == ["logits", "relu"]
    assert found.pooled
    assert found.tail is not None
    assert found.tail.weight.shape == (CLASSES, 4)
    assert np.allclose(found.tail.bias, np.linspace(-1, 1, CLASSES))


def test_a_softmax_is_cut_off_and_told(tmp_path: Path) -> None:
    found = read_onnx(graph(tmp_path / "m.onnx", end="Softmax"))
    assert found.outputs == ["last", "relu"]
    assert "softmax" in found.notes[0]


def test_which_of_several_outputs_is_meant_is_asked(tmp_path: Path) -> None:
    path = graph(tmp_path / "m.onnx", outputs=("a", "b"))
    with pytest.raises(UserError, match=r"teacher\.output: the program has 2 outputs \(a, b\)"):
        read_onnx(path)
    assert read_onnx(path, "a").outputs[0] == "a"
    with pytest.raises(UserError, match=r"teacher\.output: no output 'c'"):
        read_onnx(path, "c")


@pytest.mark.parametrize("place", ["/etc/passwd", "../weights.bin", "a/../../weights.bin"])
def test_weights_outside_of_the_folder_are_not_read(tmp_path: Path, place: str) -> None:
    def outside(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        onnx.external_data_helper.set_external_data(tensor, place, 0, 4)
        tensor.ClearField("raw_data")

    (tmp_path / "in").mkdir()
    (tmp_path / "weights.bin").write_bytes(b"1234")
    path = graph(tmp_path / "in" / "m.onnx", edit=outside)
    with pytest.raises(UserError, match="outside of its folder"):
        read_onnx(path)


def test_weights_beside_the_graph_are_taken_in(tmp_path: Path) -> None:
    inside = read_onnx(graph(tmp_path / "one.onnx"))
    model = onnx.load(tmp_path / "one.onnx")
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0)
    found = read_onnx(tmp_path / "m.onnx")
    assert b"external" not in found.data
    assert found.tail is not None and inside.tail is not None
    assert np.array_equal(found.tail.weight, inside.tail.weight)
    (data,) = [one for one in tmp_path.iterdir() if one.suffix not in (".onnx",)]
    data.rename(tmp_path / "elsewhere")
    data.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="not beside it"):
        read_onnx(tmp_path / "m.onnx")


def test_operations_of_a_library_are_refused(tmp_path: Path) -> None:
    def foreign(model: onnx.ModelProto) -> None:
        model.graph.node[1].domain = "my.library"

    with pytest.raises(UserError, match=r"Relu of the library 'my\.library'"):
        read_onnx(graph(tmp_path / "m.onnx", edit=foreign))


def test_what_is_no_graph_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\x08\x09nothing")
    with pytest.raises(UserError, match="is no ONNX graph"):
        read_onnx(tmp_path / "m.onnx")


def nested(path: Path, levels: int) -> Path:
    """A graph of a function that calls the one before it twice, and so on."""
    libraries = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    functions = []
    for level in range(levels):
        nodes = [helper.make_node("Add", ["a", "a"], ["b"])]
        if level:
            called = f"f{level - 1}"
            nodes = [
                helper.make_node(called, ["a"], ["t"], domain="own"),
                helper.make_node(called, ["t"], ["b"], domain="own"),
            ]
        functions.append(helper.make_function("own", f"f{level}", ["a"], ["b"], nodes, libraries))
    value = helper.make_tensor_value_info
    last = helper.make_node(f"f{levels - 1}", ["x"], ["y"], domain="own")
    main = helper.make_graph([last], "g", [value("x", 1, None)], [value("y", 1, None)])
    model = helper.make_model(main, functions=functions, opset_imports=libraries, ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def test_functions_are_written_out_unless_they_would_fill_the_memory(tmp_path: Path) -> None:
    few = onnx.load_from_string(read_onnx(nested(tmp_path / "few.onnx", 4)).data)
    assert [node.op_type for node in few.graph.node] == 8 * ["Add"]
    with pytest.raises(UserError, match=r"more than 1,000,000 operations: it is not opened"):
        read_onnx(nested(tmp_path / "many.onnx", 60))


def test_a_function_that_calls_itself_is_refused(tmp_path: Path) -> None:
    model = onnx.load(nested(tmp_path / "m.onnx", 2))
    model.functions[0].node[0].CopyFrom(helper.make_node("f1", ["a"], ["b"], domain="own"))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match="it is not opened"):
        read_onnx(tmp_path / "m.onnx")


@pytest.mark.parametrize("kind", ["Identity", "Flatten", "Transpose"])
def test_a_graph_that_goes_in_a_circle_is_read_to_its_end(tmp_path: Path, kind: str) -> None:
    model = onnx.load(graph(tmp_path / "m.onnx"))
    last = model.graph.node[-1]
    place = 1 if kind == "Transpose" else 0
    model.graph.node.append(helper.make_node(kind, ["round"], ["round"]))
    last.input[place] = "round"
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    try:
        assert not read_onnx(tmp_path / "m.onnx").pooled
    except UserError as error:
        assert "is no ONNX graph" in str(error)


@pytest.mark.parametrize("damage", ["inputs", "raw_data", "dims", "data_type"])
def test_a_damaged_graph_is_one_line(tmp_path: Path, damage: str) -> None:
    model = onnx.load(graph(tmp_path / "m.onnx"))
    last = model.graph.node[-1]
    (weight,) = [one for one in model.graph.initializer if one.name == last.input[1]]
    if damage == "inputs":
        del last.input[:]
    elif damage == "dims":
        weight.dims[:] = [2**40, 3]
    else:
        setattr(weight, damage, {"raw_data": b"abc", "data_type": 29}[damage])
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match="is no ONNX graph") as caught:
        read_onnx(tmp_path / "m.onnx")
    assert "\n" not in str(caught.value)
