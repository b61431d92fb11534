"""Deltas between two contents: keep the first bytes, then append a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tasklogs.log.text import is_boundary


class Delta(NamedTuple):
    """`keep_bytes` of the base, on a code-point boundary, followed by `text` (UTF-8)."""

    keep_bytes: int
    text: bytes


class DeltaError(ValueError):
    """The delta does not fit its base."""


def diff(base: bytes, content: bytes) -> Delta:
    """Return the delta from `base` to `content`; it keeps the longest common prefix."""
    keep = common_prefix(base, content)
    while not (is_boundary(base, keep) and is_boundary(content, keep)):
        keep -= 1
    return Delta(keep, content[keep:])


def check(base: bytes | bytearray, delta: Delta) -> None:
    """Raise DeltaError unless `delta` fits `base`."""
    if not 0 <= delta.keep_bytes <= len(base):
        raise DeltaError(f"keeps {delta.keep_bytes} bytes of {len(base)}")
    if not is_boundary(base, delta.keep_bytes):
        raise DeltaError(f"byte {delta.keep_bytes} is inside a code point")


def patch(base: bytearray, delta: Delta) -> None:
    """Apply `delta` to `base` in place.

    Raises DeltaError if it does not fit, and leaves `base` unchanged.
    """
    check(base, delta)
    del base[delta.keep_bytes :]
    base += delta.text


def joined(deltas: Sequence[Delta]) -> Delta:
    """Return one delta that equals `deltas` (at least one), applied in order."""
    keep_bytes, text = deltas[0].keep_bytes, bytearray(deltas[0].text)
    for delta in deltas[1:]:
        del text[max(0, delta.keep_bytes - keep_bytes) :]
        text += delta.text
        keep_bytes = min(keep_bytes, delta.keep_bytes)
    return Delta(keep_bytes, bytes(text))


def common_prefix(a: bytes, b: bytes) -> int:
    """Return how many leading bytes `a` and `b` share."""
    if len(a) > len(b):
        a, b = b, a
    if b.startswith(a):
        return len(a)
    # A binary search compares slices in C. A loop over the bytes would take 100 times as long.
    low, high = 0, len(a)
    view_a, view_b = memoryview(a), memoryview(b)
    while high - low > 1:
        middle = (low + high) // 2
        if view_a[low:middle] == view_b[low:middle]:
            low = middle
        else:
            high = middle
    return low
