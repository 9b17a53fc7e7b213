"""Files of torch.save, read without running anything that they hold.

Tensors and plain values are read; of a reviewed list of kinds of values that lie beside weights
(settings, paths, dates, scalars of numpy, optimizers) an inert stand-in takes the place: neither
their code nor their package's runs. Of numpy's values, texts and integers are read, as class names
are. A file with any other kind of value is refused, and its names are told.
"""

import io
import pickletools
import re
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kd3_pipeline.console import listed, printable
from kd3_pipeline.errors import UserError, first_line
from kd3_pipeline.unpacked import check_unpacked

# kinds of values that lie beside weights, by the full name that a pickle has for them
HARMLESS = re.compile(
    r"(argparse\.Namespace|types\.SimpleNamespace|uuid\.UUID|decimal\.Decimal"
    r"|fractions\.Fraction|pathlib(\._local)?\.(Pure)?(Posix|Windows)?Path"
    r"|datetime\.(datetime|date|time|timedelta|timezone)"
    r"|collections\.(defaultdict|deque)"
    r"|builtins\.(slice|range|frozenset|list|dict|tuple|int|float|str|bytes|bool)"
    r"|numpy\.(dtype|ndarray|bool_?|str_|u?int\d+|float\d+|longdouble|dtypes\.\w+)"
    r"|numpy\._?core\.multiarray\.(scalar|_reconstruct)"
    r"|numpy\._?core\.numeric\._frombuffer"
    r"|numpy\.random\.[\w.]+"
    r"|torch\.optim\.[\w.]+|torch\.nn\.modules\.(loss|activation)\.\w+"
    r"|(omegaconf|ml_collections)\.[\w.]+|yacs\.config\.CfgNode"
    r"|easydict\.EasyDict|addict\.addict\.Dict"
    r"|(pytorch_lightning|lightning|lightning_fabric)\.[\w.]+"
    r"|transformers\.training_args\.\w+|transformers\.trainer_utils\.\w+)"
)
MAPPINGS = re.compile(
    r"collections\.defaultdict|yacs\.config\.CfgNode|easydict\.EasyDict|addict\.addict\.Dict"
    r"|.*\.AttributeDict"
)
OF_TENSORS = re.compile(
    r"torch\.(\w*Storage|storage\.\w+|Size|Tensor|device|_utils\._rebuild\w+|nn\.parameter\.Parameter)"
    r"|torch\.\w*(float|int|bool|complex)\w*"
    r"|collections\.(OrderedDict|Counter)|_codecs\.encode|builtins\.(set|complex|bytearray)"
)
PARTS_OF_OBJECTS = frozenset(  # modules of Python whose names stand in the pickles of networks
    (
        "collections",
        "copyreg",
        "dataclasses",
        "enum",
        "functools",
        "logging",
        "re",
        "types",
        "typing",
    )
)
TEXT, INTEGER = re.compile(r"[US]\d{1,5}"), re.compile(r"[iu][1248]")  # dtypes of numpy
SHOWN = 5  # names of what is refused
WEIGHTS_ALONE = "save its state_dict as .safetensors"


class StandIn:
    """A value that was not read: what it was made with is thrown away, its attributes are kept."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)


class DtypeStandIn(StandIn):
    """A dtype of numpy, by its letter and size, as `U5`, and the order of its bytes."""

    def __init__(self, kind: object = "", *args: object) -> None:
        self.kind, self.order = kind, "="

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">"):
            self.order = state[1]


class ScalarStandIn:
    """A scalar of numpy: its text or integer, else a stand-in."""

    def __new__(cls, dtype: object = None, raw: object = b"", *args: object) -> Any:
        values = _values(dtype, raw, TEXT) or _values(dtype, raw, INTEGER)
        return values[0] if values is not None and len(values) == 1 else StandIn()


class ArrayStandIn(StandIn):
    """An array of numpy, of which texts in one row are read.

    Attributes:
        values: of a row of texts or of objects; None of any other array.
    """

    def __init__(self, *args: object) -> None:
        self.values: list[Any] | None = None

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) == 5:
            _, shape, dtype, _, raw = state
            values = list(raw) if isinstance(raw, list) else _values(dtype, raw, TEXT)
            if values is not None and shape == (len(values),):
                self.values = values


def _values(dtype: object, raw: object, wanted: re.Pattern[str]) -> list[Any] | None:
    """What the bytes of an array hold; None if its dtype is not `wanted`, or they do not fit it."""
    if not isinstance(dtype, DtypeStandIn) or not isinstance(raw, bytes):
        return None
    if not isinstance(dtype.kind, str) or not wanted.fullmatch(dtype.kind):
        return None
    try:
        one = np.dtype(dtype.order + dtype.kind)
        if one.kind == "U":  # numpy would make texts of any numbers, which are no characters
            raw.decode("utf-32-le" if one.str.startswith("<") else "utf-32-be")
        return np.frombuffer(raw, one).tolist()
    except (TypeError, ValueError):  # of another length, or characters that there are not
        return None


class ListStandIn:
    """A sequence of some package, read as a list."""

    def __new__(cls, *args: object) -> Any:
        return []


class MappingStandIn:
    """A mapping of some package, read as an ordinary one."""

    def __new__(cls, *args: object) -> Any:
        return OrderedDict()


OF_NUMPY: dict[str, type] = {
    "dtype": DtypeStandIn,
    "scalar": ScalarStandIn,
    "_reconstruct": ArrayStandIn,
}


def read_pickle(path: Path, key: str) -> Any:
    """What a file of torch.save holds: tensors, plain values and stand-ins.

    Args:
        key: the parameter to name in errors.

    Raises:
        UserError: it is no such file, or holds values that are not on the list; they are named.
        OSError: it cannot be read.
    """
    program = _program(path, key)
    if program:
        raise UserError(f"{key}: {path} is {program}", "its state_dict alone can be read here")
    asked = _globals(path)
    harmless = sorted(name for name in asked if HARMLESS.fullmatch(name))
    stand_ins: list[Any] = [(_stand_in(name), name) for name in harmless]
    try:
        # opened here, because torch goes by the name of a file that it opens
        with torch.serialization.safe_globals(stand_ins), path.open("rb") as stream:
            return torch.load(stream, map_location="cpu", weights_only=True)
    except (OSError, EOFError):
        raise
    except Exception as error:  # weights_only refuses with pickle's own error, others raise any
        refused = sorted(asked - set(harmless), key=lambda name: (name.startswith("torch."), name))
        raise UserError(*_refusal(path, key, refused, error)) from None


def _stand_in(name: str) -> type:
    if name == "collections.deque":
        return ListStandIn
    if name.startswith("numpy."):
        return OF_NUMPY.get(name.rpartition(".")[2], StandIn)
    return MappingStandIn if MAPPINGS.fullmatch(name) else StandIn


def _program(path: Path, key: str) -> str:
    """What a zip file holds that is no file of torch.save; empty if it is none or one."""
    try:
        with zipfile.ZipFile(path) as archive:
            check_unpacked(archive, path, key)
            names = [name.partition("/")[2] or name for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError):
        return ""
    if any(name.startswith("code/") for name in names):
        return "a TorchScript program, not weights alone"
    if any(name.startswith(("models/", "serialized_exported_program")) for name in names):
        return "a program of torch.export, not weights alone"
    if all(name.endswith(".npy") for name in names):
        return "a file of numpy arrays"
    return ""


def _globals(path: Path) -> set[str]:
    """Names that a pickle asks for and torch does not allow."""
    try:
        return set(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # of another format, as before torch 1.6, or broken
        asked = {_name(argument) for name, argument in _operations(path) if name == "GLOBAL"}
        return {name for name in asked if not OF_TENSORS.fullmatch(name)}


def _operations(path: Path) -> Iterator[tuple[str, object]]:
    """What the pickles of a file do, without doing it; it ends where they are broken."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
                opened: Any = io.BytesIO(archive.read(names[0]))
        else:
            opened = path.open("rb")
        with opened as stream:
            while True:  # the old format: a number, a version, the machine, and what was saved
                for operation, argument, _ in pickletools.genops(stream):
                    yield operation.name, argument
    except Exception:  # said by who reads it; a broken pickle raises any
        return


def _name(argument: object) -> str:
    return str(argument).replace(" ", ".").replace("__builtin__.", "builtins.")


def _refusal(path: Path, key: str, refused: list[str], error: Exception) -> tuple[str, str]:
    """Reason and way out, in one line."""
    if isinstance(error, RuntimeError | ValueError) and not refused:
        return f"{key}: {path} cannot be read: {first_line(error)}", ""
    what = f"{key}: {path} is not a file of tensors alone, and others could run code"
    if not refused:
        return what, WEIGHTS_ALONE
    what += f" (it asks for {listed(refused, SHOWN)})"
    foreign = [name for name in refused if _of_python(name)]
    if foreign:  # nobody is told how to run it
        return what, "weights have no use for it: get them from elsewhere"
    weights = _weights_in(path, refused)
    return what, (
        "if it is yours, two lines in a place that has its code make one of tensors: saved ="
        f' torch.load("{path.name}", weights_only=False); torch.save({weights}, "weights.pt")'
    )


def _weights_in(path: Path, refused: list[str]) -> str:
    """The state dict in what was saved: of a module that it is or has, else under a key."""
    key, depth = "", 0
    for operation, argument in _operations(path):
        if operation in ("GLOBAL", "STACK_GLOBAL"):
            if depth == 0:
                return "saved.state_dict()"
            name = _name(argument)
            if name in refused and any(one.startswith("torch.nn.modules.") for one in refused):
                return f'saved["{key}"].state_dict()'
        depth += operation in ("EMPTY_DICT", "EMPTY_LIST", "MARK")
        if operation in ("BINUNICODE", "SHORT_BINUNICODE", "UNICODE"):
            key = printable(str(argument))
            if key == "state_dict":
                break
    return 'saved["state_dict"]'


def _of_python(name: str) -> bool:
    """Tells whether it is of Python itself, and nothing that objects are commonly made of."""
    module = name.partition(".")[0]
    return module in sys.stdlib_module_names and module not in PARTS_OF_OBJECTS
