"""Files that are no weights, by their content: what they are, and the way out."""

import re
import tarfile
import zipfile
from pathlib import Path

from kd3_pipeline.console import printable

LAYOUTS = "docs/teacher-files.md lists what is read"
UNPACK = "unpack it, and name the file of weights in it"
PROGRAM = "export the network as ONNX, which is read as it is (docs/black-box.md)"
OF_SAFETENSORS = (
    "put the parts together: from safetensors.torch import load_file, save_file; save_file("
    "{name: one for part in sorted(FOLDER.glob('*-of-*.safetensors'))"
    " for name, one in load_file(part).items()}, 'weights.safetensors')"
)
OF_PICKLES = (
    "put the parts together: torch.save({name: one for part in sorted(FOLDER.glob('*-of-*.bin'))"
    " for name, one in torch.load(part, weights_only=True).items()}, 'weights.pt')"
)
PART = re.compile(r"-(\d{4,})-of-(\d{4,})\.|-(\d+)-of-(\d+)\.safetensors$")
READ = 4096  # bytes of a file that are looked at
STARTS = {
    b"\x89HDF": ("an HDF5 file, as Keras writes it", PROGRAM),
    b"GGUF": ("a GGUF file", LAYOUTS),
    b"<htm": ("a web page", "get the file itself"),
    b"<!do": ("a web page", "get the file itself"),
    b"vers": ("a pointer of Git LFS", "get the file itself with `git lfs pull`"),
    b"\x1f\x8b": ("packed with gzip", UNPACK),
    b"BZh": ("packed with bzip2", UNPACK),
    b"\xfd7zXZ": ("packed with xz", UNPACK),
    b"\x28\xb5\x2f\xfd": ("packed with zstd", UNPACK),
    b"7z\xbc\xaf": ("a 7z archive", UNPACK),
    b"Rar!": ("a RAR archive", UNPACK),
    b"\x89png": ("an image", LAYOUTS),
    b"\xff\xd8\xff": ("an image", LAYOUTS),
    b"\x93numpy": ("a file of numpy arrays", "save its state_dict as .safetensors"),
}
ENDINGS = (".pt", ".pth", ".bin", ".ckpt", ".th", ".safetensors", ".onnx")


def other_kind(path: Path) -> tuple[str, str] | None:
    """What a file is that holds no weights that are read, and what to do; None: it may hold some.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        start = stream.read(READ)
    if not start:
        return "empty", "get it again"
    text = start.lstrip().lower()
    for magic, found in STARTS.items():
        if start.startswith(magic) or text.startswith(magic):
            return found
    if start[4:8] == b"TFL3":
        return "a TFLite file", PROGRAM
    if path.suffix == ".pb":
        return "a file of TensorFlow", PROGRAM
    if path.suffix in (".mlmodel", ".mlpackage"):
        return "a file of Core ML", PROGRAM
    if text.startswith(b"{"):
        if b'"weight_map"' in start:
            of_pickles = b".bin" in start or ".bin." in path.name
            way = OF_PICKLES if of_pickles else OF_SAFETENSORS
            return "the index of weights in several files", way
        return "text (JSON)", LAYOUTS
    return _tar(path) if start[257:262] == b"ustar" else _archive(path)


def part_of_several(path: Path) -> tuple[str, str] | None:
    """Which part of the weights a file is by its name, and what to do; None: it has all."""
    found = PART.search(path.name)
    place, parts = [int(one) for one in found.groups() if one] if found else (1, 1)
    if parts == 1:
        return None
    way = OF_SAFETENSORS if path.suffix == ".safetensors" else OF_PICKLES
    return f"part {place} of {parts}", way


def _tar(path: Path) -> tuple[str, str]:
    try:
        with tarfile.open(path, "r:") as archive:
            names = archive.getnames()
    except tarfile.TarError:
        return "a tar archive that cannot be read", "get it again"
    if {"pickle", "storages", "tensors"} <= set(names):
        return "a file of torch.save of PyTorch 0.1", "load and save it again with a newer PyTorch"
    return f"a tar archive{_with(names)}", UNPACK


def _with(names: list[str]) -> str:
    inside = [printable(name) for name in names if name.endswith(ENDINGS)][:3]
    return f" with {', '.join(inside)} in it" if inside else ""


def _archive(path: Path) -> tuple[str, str] | None:
    """What a zip file is that torch.save did not write."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return None
    if {"config.json", "metadata.json"} <= set(names) or "model.weights.h5" in names:
        return "a file of Keras", PROGRAM
    if any(name.endswith(("/data.pkl", ".npy")) or name == "data.pkl" for name in names):
        return None
    if any(re.match(r"([^/]+/)?(code/|models/|serialized_exported_program)", one) for one in names):
        return None
    return f"a zip archive{_with(names)}", UNPACK
