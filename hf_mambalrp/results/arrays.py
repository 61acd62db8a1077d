"""Numbers, texts and lists as arrays of Arrow.

``pyarrow.array`` makes them, too, and imports pandas first, where that is installed: a quarter of a second, in which
a hundred rows are explained.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hf_mambalrp.errors import InputError

MOST = 2**31 - 1
"""Bytes of texts, or items of lists, in one array."""


def array(values: Sequence[Any], kind: Any) -> Any:
    """An array of a type of Arrow, of values of Python: dicts, lists, texts, bytes or numbers, or None."""
    import pyarrow as pa

    there = np.array([value is not None for value in values], dtype=bool)
    missing = None if there.all() else _bits(there)
    if pa.types.is_struct(kind):
        parts = [array([value and value[field.name] for value in values], field.type) for field in kind]
        return pa.Array.from_buffers(kind, len(values), [missing], children=parts)
    if pa.types.is_list(kind):
        items = array([item for value in values for item in value or ()], kind.value_type)
        return pa.Array.from_buffers(
            kind, len(values), [missing, _ends(map(len, _filled(values, ())))], children=[items]
        )
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        encoded = [value.encode() if isinstance(value, str) else value for value in _filled(values, b"")]
        return pa.Array.from_buffers(
            kind, len(values), [missing, _ends(map(len, encoded)), pa.py_buffer(b"".join(encoded))]
        )
    return numbers(np.array(_filled(values, 0), dtype=kind.to_pandas_dtype()), missing)


def numbers(values: np.ndarray, missing: Any = None) -> Any:
    """An array of the numbers, or truths, of numpy's; ``missing`` is Arrow's buffer of which are there."""
    import pyarrow as pa

    data = _bits(values) if values.dtype == bool else pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [missing, data])


def lists(lengths: Any, values: Any) -> Any:
    """An array of lists of these lengths, of the array of their values."""
    import pyarrow as pa

    ends = _ends(lengths)
    return pa.Array.from_buffers(pa.list_(values.type), ends.size // 4 - 1, [None, ends], children=[values])


def _filled(values: Sequence[Any], instead: Any) -> list[Any]:
    return [instead if value is None else value for value in values]


def _ends(lengths: Any) -> Any:
    """Where each of some things begins and the last one ends. InputError: they are too many for one array."""
    import pyarrow as pa

    ends = np.cumsum([0, *lengths], dtype=np.int64)
    if ends[-1] > MOST:
        raise InputError(
            f"{ends[-1]:,} bytes of text, or numbers of rows, are too many for one table, which holds {MOST:,}: save "
            "or share the rows in several parts."
        )
    return pa.py_buffer(ends.astype(np.int32))


def _bits(values: np.ndarray) -> Any:
    import pyarrow as pa

    return pa.py_buffer(np.packbits(values, bitorder="little"))
