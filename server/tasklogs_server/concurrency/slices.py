"""Splits long lists, so that no single step over a whole conversation holds up other calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

SLICE_BYTES = 1024 * 1024
SLICE_ITEMS = 200


def slices(items: Sequence[T], size_of: Callable[[T], int]) -> Iterator[Sequence[T]]:
    """Yield `items` in order, at most SLICE_ITEMS at a time.

    A slice also ends when it has at least SLICE_BYTES, so it may have one item more than fits.
    """
    begin, size_bytes = 0, 0
    for index, item in enumerate(items, start=1):
        size_bytes += size_of(item)
        if size_bytes >= SLICE_BYTES or index - begin >= SLICE_ITEMS:
            yield items[begin:index]
            begin, size_bytes = index, 0
    if begin < len(items):
        yield items[begin:]
