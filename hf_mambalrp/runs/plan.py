"""How rows are put together: windows of the stream, and in a window batches of similar lengths."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")


def windows(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Consecutive groups of ``size`` items; the last may be smaller."""
    stream = iter(items)
    while window := list(islice(stream, size)):
        yield window


def batches(lengths: Sequence[int], tokens: int, rounded: Callable[[int], int] = int) -> list[list[int]]:
    """Rows from the longest on, as many at a time as fit into ``tokens`` at the ``rounded`` length of the first.

    A longer row is alone. Only the lengths decide, so that a resumed run makes the batches of an undisturbed one; and
    all but a window's last batch have one of as many shapes as there are rounded lengths.
    """
    ordered = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    found: list[list[int]] = []
    while ordered:
        count = max(1, tokens // max(1, rounded(lengths[ordered[0]])))
        found.append(ordered[:count])
        del ordered[:count]
    return found


def common_length(length: int) -> int:
    """The next of the lengths 1, 2, ... 16, 18, ... 32, 36, ... 64, 72, ..., at most an eighth longer.

    A GPU computes batches of a shape that it has met in a fraction of the time, and of texts no two are equally long.
    """
    step = 1 << max(0, (length - 1).bit_length() - 4)
    return -(-length // step) * step


def common_rows(rows: int, most: int) -> int:
    """``most``, or the smallest of its half, its quarter, ... that has room for ``rows``.

    What is left over of a window is of any number of rows, and would be of a shape that is never met again.
    """
    while most // 2 >= rows:
        most //= 2
    return max(rows, most)


def common_shape(lengths: Sequence[int], tokens: int) -> tuple[int, int]:
    """Rows and length that a batch of rows of these lengths, which fits into ``tokens``, is padded to."""
    length = common_length(max(lengths))
    return common_rows(len(lengths), tokens // length), length
