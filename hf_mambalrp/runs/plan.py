"""How rows are put together: windows of the stream, and in a window batches of similar lengths."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")


def windows(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Consecutive groups of ``size`` items; the last may be smaller."""
    stream = iter(items)
    while window := list(islice(stream, size)):
        yield window


def batches(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Rows sorted by length, cut where (number of rows) x (longest) would pass ``tokens``; a longer row is alone.

    Only the lengths decide, so that a resumed run makes the batches of an undisturbed one.
    """
    found: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: (lengths[row], row)):
        if found and (len(found[-1]) + 1) * lengths[row] <= tokens:
            found[-1].append(row)
        else:
            found.append([row])
    return found
