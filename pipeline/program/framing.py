"""Messages between two processes: a JSON header and arrays of numbers, and nothing that can run."""

import json
import struct
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np

LENGTH = struct.Struct("<I")
NUMBERS = "fiub"  # kinds of dtype that an array may have


def send(stream: BinaryIO, header: dict[str, Any], arrays: Sequence[np.ndarray] = ()) -> None:
    """Writes one message.

    Raises:
        ValueError: an array is none of numbers; nothing is written.
    """
    arrays = [np.ascontiguousarray(array) for array in arrays]
    for array in arrays:
        _check(array.dtype)
    shapes = [[array.dtype.str, list(array.shape)] for array in arrays]
    text = json.dumps(header | {"arrays": shapes}).encode()
    stream.write(LENGTH.pack(len(text)) + text)
    for array in arrays:
        stream.write(array.reshape(-1).view(np.uint8).data)
    stream.flush()


def receive(stream: BinaryIO) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The next message: its header, and its arrays.

    Raises:
        EOFError: the other side has ended.
        ValueError: it says what no message of `send` does.
    """
    header = json.loads(_exactly(stream, LENGTH.unpack(_exactly(stream, LENGTH.size))[0]))
    arrays = []
    for name, shape in header.pop("arrays"):
        dtype = np.dtype(name)
        _check(dtype)
        data = _exactly(stream, dtype.itemsize * int(np.prod(shape, dtype=np.int64)))
        arrays.append(np.frombuffer(data, dtype).reshape(shape))
    return header, arrays


def _check(dtype: np.dtype) -> None:
    if dtype.kind not in NUMBERS:
        raise ValueError(f"an array of {dtype}, not of numbers")


def _exactly(stream: BinaryIO, count: int) -> bytearray:
    data = bytearray(count)
    view, have = memoryview(data), 0
    while have < count:
        got = stream.readinto(view[have:])  # type: ignore[attr-defined]  # of buffered readers
        if not got:
            raise EOFError
        have += got
    return data
