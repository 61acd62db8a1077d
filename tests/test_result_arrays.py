"""Arrays of Arrow that are made without pyarrow.array hold what that would make."""

import numpy as np
import pytest

pa = pytest.importorskip("pyarrow", reason='needs pip install "hf_mambalrp[data]"')

from hf_mambalrp.errors import InputError  # noqa: E402
from hf_mambalrp.results.arrays import array, lists, numbers  # noqa: E402
from hf_mambalrp.results.image_records import image_schema  # noqa: E402
from hf_mambalrp.results.records import schema  # noqa: E402

VALUES = {
    pa.int64(): [3, -(2**62), 0],
    pa.float32(): [0.1, -2.5, float("inf")],
    pa.float64(): [0.1, 1e-300, float("-inf")],
    pa.string(): ["", "naïve 映画 😀", "a\nb"],
    pa.binary(): [b"", b"\x00\xff", b"a"],
    pa.bool_(): [True, False, True],
    pa.list_(pa.string()): [[], ["a", None, "bc"], ["d"]],
    pa.list_(pa.list_(pa.int32())): [[[1, 2], []], [], [[3], None]],
    pa.struct([("bytes", pa.binary()), ("path", pa.string())]): [
        {"bytes": b"a", "path": None}, {"bytes": None, "path": "b"}, {"bytes": b"", "path": ""},
    ],
}  # fmt: skip


def same(made, expected):
    made.validate(full=True)
    assert made.type == expected.type
    assert made.equals(expected)
    assert made.null_count == expected.null_count


@pytest.mark.parametrize("kind", VALUES, ids=str)
def test_values_are_as_pyarrow_makes_them(kind):
    given = VALUES[kind]
    for values in (given, [None, *given], 10 * [*given, None], [None, None], []):
        same(array(values, kind), pa.array(values, kind))


def test_every_column_of_a_record_is_of_a_type_that_is_tried():
    def parts(kind):
        if pa.types.is_struct(kind):
            return {leaf for field in kind for leaf in parts(field.type)}
        return parts(kind.value_type) if pa.types.is_list(kind) else {kind}

    found = {leaf for columns in (schema(), image_schema()) for field in columns for leaf in parts(field.type)}
    assert found <= {leaf for kind in VALUES for leaf in parts(kind)}


@pytest.mark.parametrize("dtype", ["int32", "int64", "float32", "bool"])
def test_numbers_of_numpy_and_lists_of_them(dtype):
    values = np.array([1, 0, 3, 0, 5, 1, 1, 0, 9, 1], dtype)
    same(numbers(values), pa.array(values))
    same(numbers(values[::2]), pa.array(values[::2]))
    same(lists([2, 0, 3], numbers(values[:5])), pa.ListArray.from_arrays([0, 2, 2, 5], pa.array(values[:5])))


def test_more_than_an_array_holds_is_refused():
    with pytest.raises(InputError, match=r"4,294,967,296 .* several parts"):
        lists([2**31, 2**31], numbers(np.zeros(0)))
