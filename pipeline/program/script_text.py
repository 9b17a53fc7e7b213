"""Reading of TorchScript: the source text and the pickles of an archive, before torch opens it."""

import ast
import pickletools

from kd3_pipeline.program.refused import Refused, check_operation, operations

# what the text may call by a bare name: conversions, and what torch's printer writes
# fmt: off
CALLED = frozenset((
    "annotate", "uninitialized", "unchecked_cast", "getattr", "hasattr", "isinstance", "len",
    "int", "float", "bool", "str", "list", "dict", "tuple", "range", "zip", "enumerate", "min",
    "max", "abs", "sum", "sorted", "round", "print", "device", "complex", "ord", "chr", "any",
    "all", "divmod", "pow", "hash",
))
# fmt: on
BY_NAME = ("getattr", "hasattr")  # which ask for an attribute by a text
CLASSES = "__torch__.torch.classes."  # of libraries in C++, such as process groups
HARMLESS_CLASSES = (CLASSES + "quantized.", CLASSES + "xnnpack.")
# module and name of what torch's C++ reader of pickles makes
MADE = (
    "torch._utils",
    "torch.jit._pickle",
    "collections OrderedDict",
    "torch ",
    "__torch__",
)


def checked_source(name: str, data: bytes) -> bytes:
    """The text of a record, where all that it calls is arithmetic.

    Raises:
        Refused: it calls what may touch files, processes or networks, or it cannot be read.
    """
    try:
        tree = ast.parse(data.decode())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise Refused(f"{name} cannot be read") from None
    nodes = list(ast.walk(tree))
    names = [one for one in nodes if isinstance(one, ast.Name)]
    stored = {one.id for one in names if isinstance(one.ctx, ast.Store)}
    direct = {id(one.func) for one in nodes if isinstance(one, ast.Call)}
    for node in nodes:
        if isinstance(node, ast.Attribute):
            _check_path(name, *_path(node))
        elif isinstance(node, ast.Name):
            _check_name(name, [node.id])
            if node.id in BY_NAME and id(node) not in direct:
                raise Refused(f"{name} passes {node.id} on")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            _check_call(name, node, stored)
        elif isinstance(node, ast.Import | ast.ImportFrom | ast.Lambda):
            raise Refused(f"{name} is no TorchScript")
    return data


def checked_pickle(name: str, data: bytes) -> bytes:
    """The pickle of a record, where it names nothing but tensors and classes of the text.

    Torch's reader of it is not Python's: it calls nothing by name. It makes objects, also of
    classes in C++.

    Raises:
        Refused: it names another class, or cannot be read.
    """
    try:
        found = [str(value) for code, value, _ in pickletools.genops(data) if _names(code.name)]
    except Exception:  # damaged, it may fail in any way
        raise Refused(f"{name} cannot be read") from None
    for one in found:
        text = one.replace(" ", ".", 1)
        if not one.startswith(MADE) or _foreign(text):
            raise Refused(f"{name} makes a {text[:100]}")
    return data


def _names(code: str) -> bool:
    return code in ("GLOBAL", "INST", "STACK_GLOBAL")


def _path(node: ast.Attribute) -> tuple[str, list[str]]:
    """The name that a chain of attributes begins with ("" for another expression), and the rest."""
    names: list[str] = []
    inner: ast.expr = node
    while isinstance(inner, ast.Attribute):
        names.insert(0, inner.attr)
        inner = inner.value
    return (inner.id if isinstance(inner, ast.Name) else ""), names


def _check_path(where: str, root: str, names: list[str]) -> None:
    if root == "torch":
        check_operation(where, "aten", names[0])
    elif root == "ops":
        if len(names) > 1:  # what is asked for alone is part of a longer chain
            check_operation(where, names[0], names[1])
    elif root == "__torch__":
        if _foreign(".".join([root, *names])):
            raise Refused(f"{where} makes a {'.'.join([root, *names])}")
    else:
        _check_name(where, names)


def _check_name(where: str, names: list[str]) -> None:
    """A method may be an operation too."""
    for name in names:
        if name in operations()[1]:
            raise Refused(f"{where} calls {name}")


def _check_call(where: str, node: ast.Call, stored: set[str]) -> None:
    assert isinstance(node.func, ast.Name)
    called = node.func.id
    if called in BY_NAME and len(node.args) > 1:
        asked = node.args[1]
        if not isinstance(asked, ast.Constant):
            raise Refused(f"{where} asks for an attribute by a name that it makes")
        _check_name(where, [str(asked.value)])
    if called not in CALLED and called not in stored:
        raise Refused(f"{where} calls {called}")


def _foreign(path: str) -> bool:
    return path.startswith(CLASSES) and not path.startswith(HARMLESS_CLASSES)
