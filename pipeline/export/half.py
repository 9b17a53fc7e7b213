"""Half precision of a student: ONNX with numbers of 16 bits, but for what they cannot hold."""

import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from kd3_pipeline.export.quantised import Batches

LARGEST = 65504 / 4  # largest number of 16 bits, with room for images that were not tried


def write_fp16(path: Path, source: Path, images: np.ndarray) -> int:
    """Writes the ONNX file `source` with numbers of 16 bits; input and output stay as they are.

    Layers keep 32 bits where a weight, or an activation on `images`, is too large for 16.

    Args:
        images: as the network of `source` takes them.

    Returns:
        How many layers keep 32 bits.
    """
    import onnx
    import onnx_ir
    from onnx_ir.passes.common import RemoveUnusedNodesPass, TopologicalSortPass
    from onnxruntime.quantization.shape_inference import quant_pre_process
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        model = _weights_before_transpose(onnx.load(prepared))
        onnx.save(model, prepared)
        large = _large_tensors(prepared, images, Path(folder) / "ranges.onnx")
    large |= {
        one.name for one in model.graph.initializer if _largest(onnx.numpy_helper.to_array(one))
    }
    for place, node in enumerate(model.graph.node):
        node.name = node.name or f"node_{place}"
    kept = [one.name for one in model.graph.node if large & {*one.input, *one.output}]
    with warnings.catch_warnings():  # of weights below the smallest number: they become zero
        warnings.simplefilter("ignore")
        half = convert_float_to_float16(model, keep_io_types=True, node_block_list=kept)
    _join(half)
    tidy = onnx_ir.from_proto(half)
    RemoveUnusedNodesPass()(tidy)
    TopologicalSortPass()(tidy)  # casts were put last, which not every runtime reads
    onnx_ir.save(tidy, path)
    return len(kept)


def _weights_before_transpose(model: Any) -> Any:
    """The model with a matrix of weights before the exchange of axes that it stood behind.

    The result is the same, and ONNX Runtime 1.32 crashes where it finds the exchange of the first
    two of three axes before one of 16 bits, as every attention of PyTorch has it.
    """
    import onnx

    weights = {one.name for one in model.graph.initializer if len(one.dims) == 2}
    transposes = {node.output[0]: node for node in model.graph.node if node.op_type == "Transpose"}
    nodes = []
    for node in model.graph.node:
        nodes.append(node)
        before = transposes.get(node.input[0]) if node.op_type == "MatMul" else None
        if before is None or node.input[1] not in weights:
            continue
        perm = list(before.attribute[0].ints) if before.attribute else []
        if not perm or perm[-1] != len(perm) - 1:
            continue
        (result,) = node.output
        node.input[0], node.output[0] = before.input[0], f"{result}_before_transpose"
        nodes.append(onnx.helper.make_node("Transpose", [*node.output], [result], perm=perm))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return onnx.shape_inference.infer_shapes(model)


def _join(model: Any) -> None:
    """Lets layers of 32 bits that follow one another pass on what 16 bits cannot hold."""
    from onnx import TensorProto

    casts = {
        node.output[0]: (node.attribute[0].i, node.input[0])
        for node in model.graph.node
        if node.op_type == "Cast"
    }
    straight = {}
    for name, (to, source) in casts.items():
        before, origin = casts.get(source, (None, ""))
        if to == TensorProto.FLOAT and before == TensorProto.FLOAT16:
            straight[name] = origin
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = straight.get(name, name)
        if node.output[0] in straight:  # the last one has the output's name, and stays
            node.input[0] = straight[node.output[0]]


def _large_tensors(model: Path, images: np.ndarray, scratch: Path) -> set[str]:
    """Names of the activations that are too large on some image."""
    from onnxruntime.quantization.calibrate import create_calibrator

    calibrator = create_calibrator(model, augmented_model_path=scratch)
    calibrator.collect_data(Batches(images))
    ranges = calibrator.compute_data()
    return {name for name in ranges.keys() if _largest(np.array(ranges[name].range_value))}  # noqa: SIM118


def _largest(values: np.ndarray) -> bool:
    """Whether numbers are too large for 16 bits, or none."""
    if not np.issubdtype(values.dtype, np.floating) or not values.size:
        return False
    return not bool((np.abs(values) <= LARGEST).all())
