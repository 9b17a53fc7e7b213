"""Archives of torch: what kind of program a file is, and a copy with nothing unread in it.

A TorchScript archive is source text that torch compiles and, for `__setstate__`, runs when it is
opened; the text can call operations that write files. An archive of `torch.export` holds JSON of
which torch evaluates parts as Python, and pickles. So both are read here first, without torch's
readers, and what is passed on is a new archive of the records that were read.
"""

import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kd3_pipeline.errors import UserError, first_line
from kd3_pipeline.program.client import Kind
from kd3_pipeline.program.export_json import checked_export
from kd3_pipeline.program.refused import Refused
from kd3_pipeline.program.script_text import checked_pickle, checked_source
from kd3_pipeline.unpacked import check_unpacked

FIELDS = {1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26}  # of ONNX's ModelProto
GRAPH = 7
COMPILED = re.compile(r"data/aotinductor/|\.so$|\.pte$")
STAMP = (1980, 1, 1, 0, 0, 0)  # so that equal records are equal archives


def kind_of(path: Path) -> Kind | None:
    """What kind of program a file is, by its content; None: none, it may hold weights.

    Raises:
        UserError: an archive is damaged.
    """
    if not path.is_file():
        return None
    try:
        if not zipfile.is_zipfile(path):
            return "onnx" if _is_onnx(path) else None
        with zipfile.ZipFile(path) as file:
            every = file.namelist()
    except Exception as error:  # a damaged file may fail in any way
        raise _damaged(path, error) from None
    names = [name.partition("/")[2] for name in every]
    if any(name.startswith("models/") or COMPILED.search(name) for name in names):
        return "export"
    if "serialized_exported_program.json" in [*names, *every]:
        return "export"
    return "torchscript" if any(name.startswith("code/") for name in names) else None


def checked_copy(path: Path, kind: Kind) -> bytes:
    """The archive anew, of the records that a program needs, each of which was read.

    Raises:
        UserError: it is damaged, or holds what could run as code or touch files; names it.
    """
    try:
        with zipfile.ZipFile(path) as file:
            check_unpacked(file, path, "teacher.path")
            records = _records(file, path)
            kept = _script_records(records) if kind == "torchscript" else checked_export(records)
    except UserError:
        raise
    except Refused as refused:
        raise UserError(
            f"teacher.path: {path} may do more than compute: {refused}",
            "export it again as ONNX; or, if you trust who made it, set teacher.trust",
        ) from None
    except Exception as error:  # so may a damaged one
        raise _damaged(path, error) from None
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as copy:
        for name, data in kept.items():
            copy.writestr(zipfile.ZipInfo(f"program/{name}", STAMP), data)
    return out.getvalue()


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"teacher.path: {path} is damaged: {first_line(error)}", "get it again")


def _records(file: zipfile.ZipFile, path: Path) -> dict[str, Callable[[], bytes]]:
    """Readers of the records by their name below the archive's one folder."""
    entries = [entry for entry in file.infolist() if not entry.is_dir()]
    roots = {entry.filename.partition("/")[0] for entry in entries}
    names = [entry.filename.partition("/")[2] for entry in entries]
    if len(roots) != 1 or len({name.lower() for name in names}) != len(names) or "" in names:
        raise UserError(
            f"teacher.path: {path} is no archive of a program that this torch can open",
            "save it again with a torch of today (torch.export.save, torch.jit.save), or as ONNX",
        )

    def reader(entry: zipfile.ZipInfo) -> Callable[[], bytes]:
        return lambda: file.read(entry)

    return {name: reader(entry) for name, entry in zip(names, entries, strict=True)}


def _script_records(records: dict[str, Callable[[], bytes]]) -> dict[str, bytes]:
    kept: dict[str, bytes] = {}
    for name, read in records.items():
        if name.startswith("code/") and name.endswith(".py"):
            kept[name] = checked_source(name, read())
        elif name in ("data.pkl", "constants.pkl"):
            kept[name] = checked_pickle(name, read())
        elif re.fullmatch(r"(data|constants)/\d+|(\.data/)?version|byteorder", name):
            kept[name] = read()
    return kept


def _is_onnx(path: Path) -> bool:
    """Whether the file is one message of fields that ModelProto has, a graph among them."""
    size, seen = path.stat().st_size, set()
    with path.open("rb") as file:
        while file.tell() < size:
            key = _varint(file)
            field, wire = (key or 0) >> 3, (key or 0) & 7
            if key is None or field not in FIELDS or wire not in (0, 2):
                return False
            length = _varint(file)
            if length is None:
                return False
            if wire == 2:
                if length > size - file.tell():
                    return False
                file.seek(length, 1)
            seen.add(field)
        return GRAPH in seen and file.tell() == size


def _varint(file: Any) -> int | None:
    value = 0
    for place in range(10):
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 127) << 7 * place
        if byte[0] < 128:
            return value
    return None
