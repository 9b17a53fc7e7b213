"""Reader of `params.yaml`: the file's lines are kept, so that every problem names its own."""

import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from kd3_pipeline.conflicts import Conflict, conflicts
from kd3_pipeline.errors import UserError
from kd3_pipeline.params import Either, Params, Section

EMPTY = ", or {} for its defaults"
ELSEWHERE = (
    "no parameter any more, since no result depends on it: take the line out, and say it with"
    " `pipeline --engine processes:N` or PIPELINE_ENGINE"
)
MOVED = {"dedup.workers": ELSEWHERE, "embed.workers": ELSEWHERE}  # keys of earlier versions
MOST_VALUES = 2_000_000  # of a file, its aliases written out


class _Loader(yaml.SafeLoader):
    """YAML as DVC reads it: `1e-3` is a number, `010` is ten; `yes` and `1:30` are words."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith((":null", ":merge"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789")
)
_Loader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf|INF)$"
        r"|^\.(?:nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def read_params(path: Path, overrides: Sequence[str] = ()) -> Params:
    """Reads `path`, applies `overrides` (`key.path=value`), and checks everything.

    Raises:
        UserError: one line for each wrong key or value: file, line, key path, what is wrong.
    """
    data, where = parse(text_of(path, path.name), path.name)
    for override in overrides:
        _override(data, where, override)
    return check(data, where, path.name)


def text_of(path: Path, name: str) -> str:
    """Text of a file of a project, which errors call `name`.

    Raises:
        UserError: it is not there, cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        raise UserError(
            f"{name} not found in {path.resolve().parent}",
            "run from the folder of a project; `pipeline init FOLDER` makes one",
        ) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{name}:{line}: not UTF-8: byte 0x{error.object[error.start]:02x}", "save it as UTF-8"
        ) from None
    except OSError as error:
        raise UserError(f"{name} cannot be read: {error.strerror}") from None


def parse(text: str, name: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The mapping in `text`, and for each key path where it stands (`params.yaml:12`)."""
    data, where = load_yaml(text, name)
    if data is None:
        return {}, {}
    if not isinstance(data, dict):
        raise UserError(f"{name}:1: expected sections such as `crawl:`, got {_shown(data)}")
    return data, where


def load_yaml(text: str, name: str) -> tuple[Any, dict[str, str]]:
    """Content of `text`, and for each key path where it stands.

    Raises:
        UserError: one line: it is not YAML, or a key is given twice.
    """
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if _too_many(root):
            raise UserError(f"{name}: not YAML: its aliases stand for over {MOST_VALUES:,} values")
        where: dict[str, str] = {}
        for key_path, line in _lines(root, ""):
            if key_path in where:
                first = where[key_path]
                raise UserError(f"{name}:{line}: {key_path}: given twice, first at {first}")
            where[key_path] = f"{name}:{line}"
        return (loader.construct_document(root) if root else None), where
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UserError(f"{name}:{line}: not YAML: {error.reason}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{name}:{mark.line + 1}" if mark else name
        raise UserError(f"{place}: not YAML: {getattr(error, 'problem', error)}") from None
    except RecursionError:
        raise UserError(f"{name}: not YAML: nested too deep, or an alias within itself") from None
    except (ValueError, KeyError, AttributeError, TypeError) as error:  # a tag that does not fit
        raise UserError(f"{name}: not YAML: {error}") from None


def check(data: dict[str, Any], where: dict[str, str], name: str) -> Params:
    """`data` as `Params`.

    Raises:
        UserError: one line a problem, in the order of the file.
    """
    try:
        params = Params.model_validate(data)
    except ValidationError as error:
        problems: list[Conflict] = []
        for key_path, what in map(_problem, error.errors()):
            if key_path not in (known for known, _ in problems):
                problems.append((key_path, what))
    else:
        problems = conflicts(params)
        if not problems:
            return params
    lines = [f"{_place(where, path, name)}: {path}: {what}" for path, what in problems]
    raise UserError("\n".join(sorted(lines, key=_line_number)))


def _override(data: dict[str, Any], where: dict[str, str], override: str) -> None:
    key_path, equals, text = override.partition("=")
    key_path = key_path.strip()
    if not equals or not key_path:
        raise UserError(f"--set {override}: expected key.path=value")
    try:
        value = _Loader(text).get_single_data()
    except (yaml.YAMLError, ValueError, RecursionError):
        value = text
    *parents, last = key_path.split(".")
    section, at = data, ""
    for parent in parents:
        at = f"{at}.{parent}".lstrip(".")
        if parent not in section:
            section[parent], where[at] = {}, "--set"
        section = section[parent]
        if not isinstance(section, dict):
            raise UserError(f"--set {override}: {at} is not a section")
    section[last] = "" if value is None else value
    for replaced in [known for known in where if known.startswith(f"{key_path}.")]:
        del where[replaced]
    where[key_path] = "--set"


def _too_many(root: yaml.Node | None) -> bool:
    """Whether a few lines of aliases of aliases would be more values than anybody wrote."""
    left, open_nodes = MOST_VALUES, [root]
    while open_nodes and left:
        node = open_nodes.pop()
        left -= 1
        if isinstance(node, yaml.MappingNode):
            open_nodes += [one for pair in node.value for one in pair]
        elif isinstance(node, yaml.SequenceNode):
            open_nodes += node.value
    return not left


def _lines(node: yaml.Node | None, prefix: str) -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            key_path = f"{prefix}{key.value}"
            yield key_path, key.start_mark.line + 1
            yield from _lines(value, f"{key_path}.")


def _line_number(problem: str) -> int:
    found = re.match(r"[^:]*:(\d+):", problem)
    return int(found[1]) if found else 0


def _place(where: dict[str, str], key_path: str, name: str) -> str:
    while key_path and key_path not in where:
        key_path = key_path.rpartition(".")[0]
    return where.get(key_path, name)


def _problem(found: Any) -> tuple[str, str]:
    location = list(found["loc"])
    key_path = ".".join(str(part) for part in location)
    kind, value, limits = found["type"], found["input"], found.get("ctx", {})
    either = _either(*location[:2])
    if either:  # one problem, whichever kinds of value were tried
        now = next((new for old, new in either.renamed if value is old), "")
        hint = f"; it is {now} now" if now else _quoted(value)
        return ".".join(location[:2]), f"expected {either.words}, got {_shown(value)}{hint}"
    if kind in ("extra_forbidden", "invalid_key"):
        if key_path in MOVED:
            return key_path, MOVED[key_path]
        known = _fields_of(location[:-1])
        near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.6)
        hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(known)}"
        return key_path, f"unknown key '{location[-1]}'; {hint}"
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", limits["expected"])
        near = difflib.get_close_matches(str(value), choices, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        return key_path, f"expected one of {', '.join(choices)}, got {_shown(value)}{hint}"
    expected = {
        "float_type": "a number",
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "bool_type": "true or false",
        "string_type": "text",
        "list_type": "a list",
        "tuple_type": "a list of three numbers",
        "model_type": f"a section with keys{EMPTY * (value is None)}",
        "missing": "three numbers",
        "too_short": "three numbers",
        "too_long": "three numbers",
        "finite_number": "a finite number",
        "string_pattern_mismatch": "8 to 64 hexadecimal digits",
        "greater_than": f"more than {limits.get('gt')}",
        "greater_than_equal": f"at least {limits.get('ge')}",
        "less_than": f"less than {limits.get('lt')}",
        "less_than_equal": f"at most {limits.get('le')}",
    }.get(kind, found["msg"])
    return key_path, f"expected {expected}, got {_shown(value)}"


def _quoted(value: Any) -> str:
    """What to say of names that YAML takes for numbers, truth or nothing."""
    inside = value if isinstance(value, list | dict) else ()
    bare = [one for one in inside if one is None or isinstance(one, bool | int | float)]
    return f"; a name such as {bare[0]} needs quotes" if bare else ""


def _either(section: Any = None, key: Any = None) -> Either | None:
    """Kinds that a parameter of several may be, in words; None for any other."""
    field = _model_of(section).model_fields.get(key) if section in Params.model_fields else None
    found = field.metadata if field else []
    return next((one for one in found if isinstance(one, Either)), None)


def _fields_of(location: list[Any]) -> list[str]:
    """Keys that are known at a place: sections, or the parameters of one."""
    return list((_model_of(location[0]) if location else Params).model_fields)


def _model_of(section: str) -> type[Section]:
    model = Params.model_fields[section].annotation
    assert isinstance(model, type) and issubclass(model, Section)
    return model


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
