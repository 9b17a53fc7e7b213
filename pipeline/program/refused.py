"""Refusal of a record, and the operations that are only arithmetic."""

from functools import cache

NAMESPACES = ("aten", "prim", "prims", "quantized")
# An operation needs a text to name a file, a host or a library. These are the arguments by which
# operations that only compute take one; any other argument of text is not for arithmetic.
# fmt: off
TEXTS = frozenset((
    "mode", "reduce", "padding", "norm", "approximate", "rounding_mode", "ord", "UPLO",
    "driver", "equation", "indexing", "side", "interpolation", "pad_mode", "padding_side",
    "message", "assert_msg", "api_name", "activation", "algorithm", "device_type", "type",
    "string", "self", "substr", "separator", "chars", "fillchar", "old", "new", "key", "a", "b",
    "p", "s", "el", "elem", "item", "value", "layout", "dtype", "msg", "cls", "t", "v", "l",
    "idx",
))
# fmt: on
# fmt: off
BY_NAME = frozenset((
    "rpc_async", "rpc_remote", "rpc_sync", "PythonOp", "IgnoredPythonOp", "dist_backward",
    "save", "from_file", "CallFunction", "load_tensor",
))
# fmt: on


class Refused(Exception):
    """What a program holds and may not."""


@cache
def operations() -> tuple[dict[str, frozenset[str]], frozenset[str]]:
    """The operations of this torch by namespace, and the names of those that may touch files.

    Returns:
        namespace → names; and names, whatever their namespace.
    """
    import torch

    found: dict[str, set[str]] = {name: set() for name in NAMESPACES}
    refused = set(BY_NAME)
    for schema in torch._C._jit_get_all_schemas():
        namespace, _, name = schema.name.partition("::")
        if namespace not in found:
            continue
        found[namespace].add(name)
        for argument in schema.arguments:
            if str(argument.type) in ("str", "Optional[str]") and argument.name not in TEXTS:
                refused.add(name)
    return {name: frozenset(names) for name, names in found.items()}, frozenset(refused)


def check_operation(where: str, namespace: str, name: str) -> None:
    """
    Raises:
        Refused: the operation is none of torch's own, or may touch files.
    """
    known, refused = operations()
    if namespace not in known:
        raise Refused(f"{where} calls {namespace}.{name}, which is none of torch's own arithmetic")
    if name in refused:
        raise Refused(f"{where} calls {namespace}.{name}")
    if name not in known[namespace] and namespace in ("aten", "quantized"):
        raise Refused(f"{where} calls {namespace}.{name}, which this torch does not have")
