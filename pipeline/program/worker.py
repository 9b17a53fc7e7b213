"""Process of a program: opens one file, and answers batches until its standard input ends.

What the file holds is from outside. This process has no network (on Linux, where the kernel lets
it leave), writes no file, starts no process, and takes no more memory than there is.
"""

import ctypes
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NEW_USER, NEW_NETWORK = 0x10000000, 0x40000000  # of unshare(2)
FIRST_TO_END = "1000"  # of /proc/self/oom_score_adj: when memory is short, this process goes
REFUSED = ("socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "pty.")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
TEXT = 300  # characters of an error that are told

# a batch and the names of outputs (None: all) → these names, and the outputs
Run = Callable[[Any, list[str] | None], tuple[list[str], list[Any]]]


def main() -> None:
    """Serves one program."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a program prints is no message
    if "cuda" not in sys.argv[1:]:
        _leave_network()
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    from kd3_pipeline.program.framing import receive, send  # numpy starts threads, so not before

    source = sys.stdin.buffer
    try:
        request, _ = receive(source)
        described, run = {"onnx": _onnx, "torchscript": _torchscript, "export": _export}[
            request["kind"]
        ](request)
    except Exception as error:  # a reader of files from outside may fail in any way
        send(out, {"error": _told(error)})
        return
    send(out, described, described.pop("tail", []))
    while True:
        try:
            asked, arrays = receive(source)
        except EOFError:
            return
        try:
            names, answers = run(arrays[0], asked["outputs"])
            send(out, {"names": names}, answers)
        except OSError:  # whoever asked is gone
            return
        except Exception as error:  # so may a graph that is given what it does not take
            send(out, {"error": _told(error)})


def _onnx(request: dict[str, Any]) -> tuple[dict[str, Any], Run]:
    import onnxruntime

    wanted = ["CUDAExecutionProvider"] if request["device"] == "cuda" else []
    providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = request["threads"]
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    _restrict(request)
    session = onnxruntime.InferenceSession(
        request["path"], options, providers=[*providers, "CPUExecutionProvider"]
    )
    inputs, outputs = session.get_inputs(), session.get_outputs()
    every = [one.name for one in outputs]

    def run(images: Any, wanted: list[str] | None) -> tuple[list[str], list[Any]]:
        names = wanted or every
        return names, session.run(names, {inputs[0].name: images})

    described = {
        "inputs": [_described(one) for one in inputs],
        "outputs": [_described(one) for one in outputs],
        "device": "cuda" if session.get_providers()[0] in wanted else "cpu",
    }
    return described, run


def _described(value: Any) -> dict[str, Any]:
    shape = [size if isinstance(size, int) else None for size in value.shape]
    return {"name": value.name, "dtype": ONNX_TYPES.get(value.type, value.type), "shape": shape}


ONNX_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8"}


def _torchscript(request: dict[str, Any]) -> tuple[dict[str, Any], Run]:
    import torch

    from kd3_pipeline.program.torch_cut import cut_script

    torch.set_num_threads(request["threads"])
    device = _torch_device(request)
    _restrict(request)
    with torch.inference_mode():
        module = torch.jit.load(request["path"], map_location=device).eval()
    arguments = module.forward.schema.arguments[1:]
    floats = [one for one in module.parameters() if one.is_floating_point()]
    dtype = str(floats[0].dtype).removeprefix("torch.") if floats else "float32"
    described = {
        "inputs": [
            {"name": one.name, "dtype": dtype, "shape": None}
            for one in arguments
            if not one.has_default_value()
        ],
        "outputs": None,
        "device": device.type,
        "parameters": sum(one.numel() for one in module.parameters()),
    }
    cut = cut_script(module) if request["cut"] else None
    return _torch_described(described, cut), _torch_run(module, cut, device)


def _export(request: dict[str, Any]) -> tuple[dict[str, Any], Run]:
    import torch
    from torch.export.passes import move_to_device_pass

    from kd3_pipeline.program.torch_cut import cut_exported

    torch.set_num_threads(request["threads"])
    device = _torch_device(request)
    # what torch.export imports asks for a folder to write to, and makes it; nothing is written
    tempfile.tempdir = str(Path(request["path"]).parent)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.tempdir
    _restrict(request)
    program = torch.export.load(request["path"])
    if device.type == "cuda":
        program = move_to_device_pass(program, device)
    named = set(program.graph_signature.user_inputs)
    values = [node for node in program.graph.nodes if node.op == "placeholder"]
    described = {
        "inputs": [
            {
                "name": node.name,
                "dtype": str(node.meta["val"].dtype).removeprefix("torch."),
                "shape": [n if isinstance(n, int) else None for n in node.meta["val"].shape],
            }
            for node in values
            if node.name in named
        ],
        "outputs": None,
        "device": device.type,
        "parameters": sum(one.numel() for one in program.parameters()),
    }
    module = program.module()
    cut = cut_exported(module) if request["cut"] else None
    return _torch_described(described, cut), _torch_run(module, cut, device)


def _torch_device(request: dict[str, Any]) -> Any:
    import torch

    wanted = request["device"] == "cuda" and torch.cuda.is_available()
    return torch.device("cuda" if wanted else "cpu")


def _torch_described(described: dict[str, Any], cut: Any) -> dict[str, Any]:
    if cut is None:
        return described
    bias = None if cut.bias is None else cut.bias.float().cpu().numpy()
    tail = [cut.weight.float().cpu().numpy()] + ([] if bias is None else [bias])
    return described | {"cut": True, "softmax": cut.softmax, "tail": tail}


def _torch_run(module: Any, cut: Any, device: Any) -> Run:
    import torch

    def run(images: Any, wanted: list[str] | None) -> tuple[list[str], list[Any]]:
        with torch.inference_mode():
            shown = torch.from_numpy(images).to(device)
            answer = module(shown) if cut is None else cut.run(shown)
        named = dict(answer) if isinstance(answer, dict) else {}
        if not named:
            parts = answer if isinstance(answer, tuple | list) else [answer]
            names = ["logits", "features"] if cut else [str(place) for place in range(len(parts))]
            named = dict(zip(names, parts, strict=True))
        tensors = {key: one for key, one in named.items() if isinstance(one, torch.Tensor)}
        absent = [name for name in wanted or [] if name not in tensors]
        if absent:
            raise ValueError(f"no output '{absent[0]}', only {', '.join(tensors)}")
        names = wanted or list(tensors)
        chosen = [tensors[name] for name in names]
        return names, [
            (one.float() if one.is_floating_point() else one).cpu().numpy() for one in chosen
        ]

    return run


def _leave_network() -> None:
    """Moves this process to a network of its own, which is empty; only one thread may do so."""
    if sys.platform == "linux":
        ctypes.CDLL(None).unshare(NEW_USER | NEW_NETWORK)


def _end_with(parent: int) -> None:
    """Ends this process soon after its parent, though a graph may be running that never ends."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _restrict(request: dict[str, Any]) -> None:
    """From here on nothing is written or started, and memory has an end."""
    try:
        import resource
    except ImportError:  # Windows
        resource = None  # type: ignore[assignment]
    if sys.platform == "linux":
        Path("/proc/self/oom_score_adj").write_text(FIRST_TO_END)
    if resource:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        if request["device"] == "cpu" and sys.platform == "linux":
            resource.setrlimit(resource.RLIMIT_DATA, (request["memory"] or _free_memory(),) * 2)
    sys.addaudithook(_refuse)


def _free_memory() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING
    if (writes and arguments[0] != os.devnull) or event.startswith(REFUSED):
        raise PermissionError(f"a program may not do this: {event}")


def _told(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    # of a script the cause comes behind the lines of its text
    line = lines[-1 if "TorchScript interpreter" in lines[0] else 0]
    return f"{type(error).__name__}: {line.removeprefix(f'{type(error).__name__}: ')}"[:TEXT]


if __name__ == "__main__":
    main()
