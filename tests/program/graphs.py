"""Small graphs and archives of programs, made without an exporter where that is quicker."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

CLASSES, SIDE = 5, 8


def graph(
    path: Path,
    *,
    shape: tuple[Any, ...] = ("B", 3, SIDE, SIDE),
    dtype: int = TensorProto.FLOAT,
    end: str = "",
    weights: str = "Gemm",
    inputs: int = 1,
    outputs: tuple[str, ...] = ("logits",),
    bias: float = 0.0,
    edit: Callable[[Any], None] | None = None,
) -> Path:
    """A classifier as ONNX: convolution, ReLU, global pooling, a linear layer, and `end`."""
    draw = np.random.default_rng(0)
    nodes, given = [], "images"
    if dtype != TensorProto.FLOAT:
        nodes.append(helper.make_node("Cast", [given], ["cast"], to=TensorProto.FLOAT))
        given = "cast"
    if dtype == TensorProto.UINT8:
        nodes.append(helper.make_node("Mul", [given, "scale"], ["scaled"]))
        given = "scaled"
    if shape[-1] in (1, 3) and shape[1] not in (1, 3):
        nodes.append(helper.make_node("Transpose", [given], ["turned"], perm=[0, 3, 1, 2]))
        given = "turned"
    last = "last" if end else outputs[0]
    nodes += [
        helper.make_node("Conv", [given, "kernel"], ["map"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["map"], ["relu"]),
        helper.make_node("GlobalAveragePool", ["relu"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
    ]
    if weights == "Gemm":
        nodes.append(helper.make_node("Gemm", ["flat", "w", "b"], [last], transB=1))
    else:
        nodes.append(helper.make_node("MatMul", ["flat", "turned_w"], ["product"]))
        nodes.append(helper.make_node("Add", ["b", "product"], [last]))
    if end:
        nodes.append(helper.make_node(end, [last], [outputs[0]]))
    nodes += [helper.make_node("Identity", ["flat"], [name]) for name in outputs[1:]]
    w = draw.normal(size=(CLASSES, 4)).astype(np.float32)
    values = {
        "kernel": draw.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "w": w,
        "turned_w": np.ascontiguousarray(w.T),
        "b": np.linspace(-1, 1, CLASSES, dtype=np.float32) + np.float32(bias),
        "scale": np.float32(1 / 255),
    }
    used = {name for node in nodes for name in node.input}
    made = helper.make_graph(
        nodes,
        "classifier",
        [
            helper.make_tensor_value_info(name, dtype, shape)
            for name in ("images", "mask", "other")[:inputs]
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in values.items() if n in used],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if edit:
        edit(model)
    path.write_bytes(model.SerializeToString())
    return path


def network() -> nn.Module:
    """A classifier of torch, with weights of its own."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, CLASSES))


def script(path: Path, model: nn.Module | None = None) -> Path:
    """A classifier as TorchScript."""
    traced = torch.jit.trace((model or network()).eval(), torch.zeros(2, 3, SIDE, SIDE))
    traced.save(str(path))
    return path


def exported(path: Path) -> Path:
    """The same by torch.export, for any number of images."""
    batch = {0: torch.export.Dim("batch", min=1)}
    example = (torch.zeros(2, 3, SIDE, SIDE),)
    program = torch.export.export(network().eval(), example, dynamic_shapes=(batch,))
    torch.export.save(program, path)
    return path


def edited(path: Path, target: Path, change: Callable[[str, bytes], bytes]) -> Path:
    """A copy of an archive with its records changed."""
    out = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(out, "w") as copy:
        for name in source.namelist():
            copy.writestr(name, change(name, source.read(name)))
    target.write_bytes(out.getvalue())
    return target


def with_json(name: str, data: bytes, change: Callable[[dict], None]) -> bytes:
    """models/model.json changed; other records as they are."""
    if not name.endswith("models/model.json"):
        return data
    value = json.loads(data)
    change(value)
    return json.dumps(value).encode()


def about(**values: Any) -> Callable[[Any], None]:
    """Writes into a graph what `pipeline export` does."""
    text = json.dumps(values)
    return lambda model: onnx.helper.set_model_props(model, {"about": text})
