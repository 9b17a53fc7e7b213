"""Cells of hostile tables as text or numbers, whatever type their columns were written with."""

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

NUMBER = r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"


def texts(column: pa.Array) -> pa.Array:
    """A column as `large_string`, null where it is. What is no UTF-8 is replaced."""
    if kinds.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not (kinds.is_binary(column.type) or kinds.is_large_binary(column.type)):
        column = column.cast(pa.large_string())
    raw = column.cast(pa.large_binary())
    try:
        return raw.cast(pa.large_string())  # checks that it is UTF-8
    except pa.ArrowInvalid:
        rows = raw.to_pylist()
        decoded = [None if row is None else row.decode("utf-8", "replace") for row in rows]
        return pa.array(decoded, pa.large_string())


def numbers(column: pa.Array) -> pa.Array:
    """A column as float64; null where it is no number."""
    if kinds.is_floating(column.type) or kinds.is_integer(column.type):
        found = column.cast(pa.float64(), safe=False)
        return pc.if_else(pc.is_nan(found), pa.scalar(None, pa.float64()), found)
    if kinds.is_decimal(column.type):
        return column.cast(pa.float64())
    if kinds.is_boolean(column.type):
        return column.cast(pa.int8()).cast(pa.float64())
    written = texts(column)
    fits = pc.fill_null(pc.match_substring_regex(written, NUMBER), False)
    plain = pc.utf8_trim_whitespace(pc.if_else(fits, written, pa.scalar(None, pa.large_string())))
    return pc.utf8_ltrim(plain, "+").cast(pa.float64())
