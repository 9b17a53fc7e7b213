import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from kd3_pipeline.errors import UserError
from kd3_pipeline.program.client import ProgramProcess
from tests.program.graphs import SIDE, graph

IMAGES = np.zeros((2, 3, SIDE, SIDE), np.float32)


def small(path: Path, nodes: list, constants: list) -> Path:
    """A graph of nodes from the images x to y."""
    value = helper.make_tensor_value_info
    made = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, ["B", 3, SIDE, SIDE])],
        [value("y", TensorProto.FLOAT, None)],
        constants,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def endless(path: Path) -> Path:
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Add", ["v", "v"], ["w"]),
        ],
        "body",
        [value("i", 7, []), value("go", 9, []), value("v", 1, None)],
        [value("go_on", 9, []), value("w", 1, None)],
    )
    constants = [
        helper.make_tensor("most", TensorProto.INT64, [], [2**62]),
        helper.make_tensor("yes", TensorProto.BOOL, [], [True]),
    ]
    return small(
        path, [helper.make_node("Loop", ["most", "yes", "x"], ["y"], body=body)], constants
    )


def test_answers_come_from_a_process_and_errors_in_one_line(tmp_path: Path) -> None:
    process = ProgramProcess("onnx", graph(tmp_path / "m.onnx"))
    (logits,) = process(IMAGES)
    assert logits.shape == (2, 5)
    assert process.names == ["logits"]
    with pytest.raises(UserError, match=r"m\.onnx: .*") as caught:
        process(IMAGES[:, :1])
    assert "\n" not in str(caught.value)
    assert np.array_equal(process(IMAGES)[0], logits)  # and it goes on


def test_an_error_of_a_script_is_its_cause(tmp_path: Path) -> None:
    class Failing(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.reshape(7, 11)

    torch.jit.script(Failing()).save(str(tmp_path / "m.pt"))
    process = ProgramProcess("torchscript", tmp_path / "m.pt")
    with pytest.raises(UserError, match=r"m\.pt: RuntimeError: shape '\[7, 11\]' is invalid"):
        process(IMAGES)


def test_a_process_that_was_killed_gives_one_clear_error(tmp_path: Path) -> None:
    process = ProgramProcess("onnx", graph(tmp_path / "m.onnx"))
    os.kill(process._process.pid, signal.SIGKILL)
    with pytest.raises(UserError, match="was killed, most likely because memory is short"):
        process(IMAGES)
    assert process.dead


def test_a_graph_without_an_end_is_ended(tmp_path: Path) -> None:
    process = ProgramProcess("onnx", endless(tmp_path / "m.onnx"), to_answer=-3.0)
    with pytest.raises(UserError, match="gave no answer in 1 seconds"):
        process(IMAGES)


def test_memory_has_an_end(tmp_path: Path) -> None:
    constants = [helper.make_tensor("size", TensorProto.INT64, [2], [2**20, 2**18])]
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["large"]),
        helper.make_node("ReduceSum", ["large"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    with pytest.raises(UserError) as caught:
        process = ProgramProcess("onnx", small(tmp_path / "m.onnx", nodes, constants))
        process(IMAGES)
    assert "\n" not in str(caught.value)


def test_ctrl_c_is_not_for_the_process_of_a_program(tmp_path: Path) -> None:
    process = ProgramProcess("onnx", graph(tmp_path / "m.onnx"))
    before = process(IMAGES)[0]
    assert os.getpgid(process._process.pid) != os.getpgid(0)  # to which a terminal sends it
    assert np.array_equal(process(IMAGES)[0], before)


ASKING = """
import sys, numpy as np
from pathlib import Path
from kd3_pipeline.program.client import ProgramProcess
process = ProgramProcess("onnx", Path(sys.argv[1]))
print(process._process.pid, flush=True)
process(np.zeros((2, 3, int(sys.argv[2]), int(sys.argv[2])), np.float32))
"""


def ended(process: int) -> bool:
    try:
        status = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return status == "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_graph_without_an_end_ends_with_whoever_asked(tmp_path: Path) -> None:
    words = [sys.executable, "-c", ASKING, str(endless(tmp_path / "m.onnx")), str(SIDE)]
    asking = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert asking.stdout is not None
    number = int(asking.stdout.readline())
    time.sleep(0.5)  # it is at work
    asking.kill()
    asking.wait()
    until = time.monotonic() + 10
    while not ended(number) and time.monotonic() < until:
        time.sleep(0.1)
    gone = ended(number)
    if not gone:
        os.kill(number, signal.SIGKILL)
    assert gone


def test_an_answer_that_is_no_number_is_an_error_and_no_end(tmp_path: Path) -> None:
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.STRING)]
    path = small(tmp_path / "m.onnx", nodes, [])
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.STRING
    path.write_bytes(model.SerializeToString())
    process = ProgramProcess("onnx", path)
    for _ in range(2):
        with pytest.raises(UserError, match="not of numbers"):
            process(IMAGES)
    assert not process.dead


def test_an_end_with_an_error_of_its_own_is_not_taken_for_memory(tmp_path: Path) -> None:
    process = ProgramProcess("onnx", graph(tmp_path / "m.onnx"))
    os.kill(process._process.pid, signal.SIGTERM)
    with pytest.raises(UserError, match="its process ended by signal 15"):
        process(IMAGES)


def test_why_a_process_was_ended_is_said_as_often_as_it_is_asked(tmp_path: Path) -> None:
    process = ProgramProcess("onnx", endless(tmp_path / "m.onnx"), to_answer=-3.0)
    for _ in range(2):
        with pytest.raises(UserError, match="gave no answer in 1 seconds"):
            process(IMAGES)
