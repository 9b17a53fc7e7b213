"""Reading of a `torch.export` archive: its JSON, before torch evaluates parts of it as Python."""

import ast
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from kd3_pipeline.program.refused import Refused, check_operation

TARGET = re.compile(r"torch\.ops\.(\w+)\.(\w+)\.(\w+)")
SHAPES = re.compile(r"_operator\.\w+|math\.\w+|torch\.sym_\w+|torch\._sym_\w+")
NOT_SHAPES = ("attrgetter", "methodcaller", "itemgetter", "call")  # of _operator
PLAIN = re.compile(r"[\w.:+\-]{0,300}")  # names and types: no text that could be an expression
SYMBOL = re.compile(r"[suz]\w*")
# fmt: off
FUNCTIONS = frozenset((
    "Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Pow", "Max", "Min", "Mod", "Eq",
    "Ne", "Lt", "Le", "Gt", "Ge", "And", "Or", "Not", "FloorDiv", "ModularIndexing", "Where",
    "PythonMod", "CleanDiv", "CeilToInt", "FloorToInt", "CeilDiv", "PowByNatural", "FloatPow",
    "FloatTrueDiv", "IntTrueDiv", "TruncToFloat", "TruncToInt", "RoundToInt", "RoundDecimal",
    "ToFloat", "Identity", "LShift", "RShift", "floor", "ceiling", "Abs",
))
# fmt: on
SUMS = (
    ast.Expression | ast.BinOp | ast.UnaryOp | ast.Compare | ast.BoolOp | ast.operator | ast.unaryop
)
CONTAINERS = ("builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict", None)
# parts of a graph that are no arithmetic
OTHER = ("as_custom_obj", "as_graph", "as_operator", "as_complex_object", "as_opaque_obj")
JSON = (
    "models/model.json",
    *(f"data/{kind}/model_{kind}_config.json" for kind in ("weights", "constants")),
)
TENSOR = re.compile(r"data/(weights|constants)/(weight|tensor)_\d+")
VERSIONS = ("version", "byteorder", "archive_format", "archive_version", ".data/version")
SAMPLE = "data/sample_inputs/model.pt"  # a pickle, for the record: it is left empty


def checked_export(records: Mapping[str, Callable[[], bytes]]) -> dict[str, bytes]:
    """The records that a program of one graph needs; what torch would evaluate is plain or gone.

    Raises:
        Refused: they hold pickles, compiled code, or anything but torch's own arithmetic.
    """
    if "models/model.json" not in records:
        raise Refused(
            "it has no models/model.json: it is of an older torch, or holds compiled code"
        )
    kept: dict[str, bytes] = {}
    for name, read in records.items():
        if name in JSON:
            kept[name] = json.dumps(_checked(name, read())).encode()
        elif TENSOR.fullmatch(name) or name in VERSIONS:
            kept[name] = read()
        elif name.endswith(".so") or name.startswith(("models/", "data/aotinductor/")):
            raise Refused(f"it holds {name}")
    return kept | {SAMPLE: b""}


def _checked(name: str, data: bytes) -> Any:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise Refused(f"{name} cannot be read") from None
    if name != "models/model.json":
        for key, one in value.get("config", {}).items():
            if one.get("use_pickle") or not one.get("tensor_meta"):
                raise Refused(f"{name}: {key} is a pickle")
    else:
        value["guards_code"] = []  # Python that torch runs at every call
    _walk(name, "", value)
    return value


def _walk(where: str, key: str, value: Any) -> None:
    """Goes through a value of `key` and refuses what torch would not take for plain data."""
    if isinstance(value, dict):
        for name in value:
            if not PLAIN.fullmatch(name):
                raise Refused(f"{where} has a key {name[:60]!r}")
        for name in ("metadata", "treespec_namedtuple_fields"):
            if isinstance(value.get(name), dict):
                value[name] = {}
        for name, one in value.items():
            if name in OTHER and one is not None:
                raise Refused(f"{where} holds {name}")
            _walk(where, name, one)
    elif isinstance(value, list):
        for one in value:
            _walk(where, key, one)
    elif isinstance(value, str):
        _check_text(where, key, value)


def _check_text(where: str, key: str, text: str) -> None:
    if key == "target":
        _check_target(where, text)
    elif key == "expr_str":
        _check_expression(where, text)
    elif key in ("in_spec", "out_spec"):
        if text:
            _check_tree(where, json.loads(text))
    elif key not in ("as_string", "as_strings") and not PLAIN.fullmatch(text):
        raise Refused(f"{where} has a text in {key}: {text[:60]!r}")


def _check_target(where: str, target: str) -> None:
    found = TARGET.fullmatch(target)
    if found:
        check_operation(where, found[1], found[2])
    elif not SHAPES.fullmatch(target) or target.rpartition(".")[2] in NOT_SHAPES:
        raise Refused(f"{where} calls {target[:100]}")


def _check_expression(where: str, text: str) -> None:
    """A size as a sum of symbols: torch evaluates it as Python."""
    try:
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise Refused(f"{where} has a size that cannot be read: {text[:60]!r}") from None
    for node in nodes:
        plain = isinstance(node, SUMS | ast.cmpop | ast.boolop | ast.Load | ast.keyword)
        if isinstance(node, ast.Call):
            plain = isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS
        elif isinstance(node, ast.Name):
            plain = bool(node.id in FUNCTIONS or SYMBOL.fullmatch(node.id) or node.id in ("oo",))
        elif isinstance(node, ast.Constant):
            plain = not isinstance(node.value, str) or bool(SYMBOL.fullmatch(node.value))
        if not plain:
            raise Refused(f"{where} has a size that is no sum: {text[:60]!r}")


def _check_tree(where: str, value: Any) -> None:
    """How inputs and outputs are nested: in containers of Python alone."""
    if isinstance(value, dict):
        if value.get("type") not in CONTAINERS:
            raise Refused(f"{where} nests its inputs or outputs in {value.get('type')}")
        for one in value.values():
            _check_tree(where, one)
    elif isinstance(value, list):
        for one in value:
            _check_tree(where, one)
