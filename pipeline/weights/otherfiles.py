"""Files that are no weights, by their content: what they are, and the way out."""

import re
import zipfile
from pathlib import Path

from pipeline.console import printable

LAYOUTS = "docs/teacher-files.md lists what is read"
UNPACK = "unpack it, and name the file of weights in it"
PROGRAM = "export the network as ONNX, which is read as it is (docs/black-box.md)"
TOGETHER = (
    "put the parts together: from safetensors.torch import load_file, save_file; save_file("
    "{name: one for part in sorted(FOLDER.glob('*-of-*.safetensors'))"
    " for name, one in load_file(part).items()}, 'weights.safetensors')"
)
PART = re.compile(r"-(\d+)-of-(\d+)\.")
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
            return "the index of weights in several files", TOGETHER
        return "text (JSON)", LAYOUTS
    return _archive(path)


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
    inside = [printable(name) for name in names if name.endswith(ENDINGS)][:3]
    has = f" with {', '.join(inside)} in it" if inside else ""
    return f"a zip archive{has}", UNPACK
