"""Deltas between two contents: ranges of the base and texts, joined in order."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

from tasklogs.log.line_diff import Kept, kept_lines
from tasklogs.log.text import boundary_before, is_boundary
from tasklogs.log.truncation import MAX_CONTENT_BYTES

MAX_PIECES = 4096
"""The most pieces of a delta that a decoder accepts."""
_MAX_COMPOSED_PIECES = 256
_MAX_COMPOSED_STEPS = 2 * MAX_PIECES
"""A step takes about half a microsecond. Two deltas that are valid can need a million: the second
one repeats all pieces of the first."""
_PIECE_COST_BYTES = 64
_MIN_KEPT_BYTES = 64
"""A shorter range is sent as text: another piece costs as much."""
_MIN_SEARCHED_BYTES = 256
"""In a shorter text between prefix and suffix no lines are searched."""


class DeltaError(ValueError):
    """The delta does not fit its base."""


class ResultTooLong(DeltaError):
    """The result would be longer than the limit."""


class Piece(NamedTuple):
    """The bytes from `start` to `start + length` of the base, followed by `text` (UTF-8).

    Both ends of the range are on code-point boundaries of UTF-8. `length` 0: no range.
    """

    start: int
    length: int
    text: bytes = b""


class Delta(NamedTuple):
    """The pieces of a content, in order: 1 to `MAX_PIECES`."""

    pieces: tuple[Piece, ...]

    @classmethod
    def keeping(cls, keep_bytes: int, text: bytes) -> Self:
        """Return the delta that keeps the first bytes of the base and appends `text`."""
        return cls((Piece(0, keep_bytes, text),))

    @property
    def is_prefix(self) -> bool:
        """Whether it only keeps the first bytes of its base and appends a text."""
        first = self.pieces[0]
        return len(self.pieces) == 1 and (first.start == 0 or first.length == 0)

    @property
    def kept_bytes(self) -> int:
        """How many leading bytes of the base it keeps where they are."""
        kept = 0
        for piece in self.pieces:
            if piece.length and piece.start != kept:
                break
            kept += piece.length
            if piece.text:
                break
        return kept

    @property
    def text_bytes(self) -> int:
        """Bytes of text in all pieces."""
        return sum(len(piece.text) for piece in self.pieces)

    @property
    def result_bytes(self) -> int:
        """The length of the resulting content."""
        return sum(piece.length + len(piece.text) for piece in self.pieces)

    @property
    def most_added_bytes(self) -> int:
        """The most by which the result is longer than the base: texts, and repeated ranges.

        The ranges need not be checked. What they repeat counts as 1 MiB at most.
        """
        repeated = reached = 0
        for start, length, _ in sorted(self.pieces) if len(self.pieces) > 1 else ():
            end = start + length
            repeated += max(0, min(end, reached) - start)
            reached = max(reached, end)
        return self.text_bytes + min(repeated, MAX_CONTENT_BYTES)

    @property
    def cost_bytes(self) -> int:
        """What it costs to hold, send and store: its text, and a fixed cost for each piece."""
        return self.text_bytes + _PIECE_COST_BYTES * len(self.pieces)


def diff(base: bytes, content: bytes) -> Delta:
    """Return a delta from `base` to `content`.

    It keeps the longest common prefix, the longest common suffix if that pays, and between them
    lines that both have.
    """
    keep = common_text(base, content)
    stays = _common_end(base, content, keep)
    base_end, end = len(base) - stays, len(content) - stays
    ranges = [Kept(0, 0, keep)] if keep else []
    if end - keep >= _MIN_SEARCHED_BYTES and base_end - keep >= _MIN_KEPT_BYTES:
        found = kept_lines(base[keep:base_end], content[keep:end], least_bytes=_MIN_KEPT_BYTES)
        ranges += (Kept(start + keep, at + keep, length) for start, at, length in found)
    if stays:
        ranges.append(Kept(base_end, end, stays))
    return _of_ranges(base, content, ranges)


def _common_end(base: bytes, content: bytes, keep: int) -> int:
    """Return how many last bytes both share after the first `keep`; 0 if they do not pay."""
    most = min(len(base), len(content)) - keep
    if most < _MIN_KEPT_BYTES:
        return 0
    stays = common_suffix(base[len(base) - most :], content[len(content) - most :])
    while not is_boundary(base, len(base) - stays):
        stays -= 1
    return stays if stays >= _MIN_KEPT_BYTES else 0


def _of_ranges(base: bytes, content: bytes, ranges: Sequence[Kept]) -> Delta:
    """Return the delta that keeps these ranges, and what adjoins them and is the same, too."""
    pieces: list[Piece] = []
    start = length = at = 0  # the last range that is kept, and where `content` goes on
    for kept in (*ranges, Kept(0, len(content), 0)):
        text = content[at : kept.at]
        grown = common_text(base[start + length : start + length + len(text)], text) if at else 0
        length, text = length + grown, text[grown:]
        earlier = _same_before(base, kept.start, text) if kept.length else 0
        text = text[: len(text) - earlier]
        if text or start + length != kept.start - earlier:
            if text or length:
                pieces.append(Piece(start, length, text))
            start, length = kept.start - earlier, 0
        length, at = length + earlier + kept.length, kept.at + kept.length
    if length or not pieces:
        pieces.append(Piece(start, length))
    return Delta(tuple(pieces))


def _same_before(base: bytes, end: int, text: bytes) -> int:
    """Return how many last bytes of `text` are the bytes of `base` before `end`."""
    most = min(end, len(text))
    same = common_suffix(base[end - most : end], text[len(text) - most :])
    while not is_boundary(base, end - same):
        same -= 1
    return same


def beginning(delta: Delta, limit_bytes: int) -> Delta:
    """Return the first part of `delta`, which costs at most `limit_bytes`.

    Its result is the beginning of the result of `delta`. `limit_bytes` must allow for one piece
    with a few bytes of text.
    """
    pieces: list[Piece] = []
    left = limit_bytes
    for piece in delta.pieces:
        left -= _PIECE_COST_BYTES
        if left < 0:
            break
        if len(piece.text) > left:
            pieces.append(piece._replace(text=piece.text[: boundary_before(piece.text, left)]))
            break
        pieces.append(piece)
        left -= len(piece.text)
    return Delta(tuple(pieces))


def check(base: bytes | bytearray, delta: Delta, *, limit_bytes: int = MAX_CONTENT_BYTES) -> None:
    """Raise DeltaError unless `delta` fits `base` and its result is within `limit_bytes`."""
    if not 1 <= len(delta.pieces) <= MAX_PIECES:
        raise DeltaError(f"has {len(delta.pieces)} pieces, not 1 to {MAX_PIECES}")
    size, total = len(base), 0
    for start, length, text in delta.pieces:
        end = start + length
        if start < 0 or length < 0 or end > size:
            raise DeltaError(f"keeps {length} bytes from {start} on of {size}")
        if (start and not is_boundary(base, start)) or not is_boundary(base, end):
            inside = end if is_boundary(base, start) else start
            raise DeltaError(f"keeps a range that ends inside a code point, at byte {inside}")
        total += length + len(text)
    # Pieces may repeat ranges: 4096 pieces of 1 MiB must not be joined.
    if total > limit_bytes:
        raise ResultTooLong(f"has a result of {total} bytes; at most {limit_bytes} are allowed")


def apply(base: bytes | bytearray, delta: Delta) -> bytes:
    """Return the content that `delta` makes of `base`. Raises DeltaError if it does not fit."""
    check(base, delta)
    return joined_pieces(base, delta.pieces)


def patch(base: bytearray, delta: Delta) -> None:
    """Apply `delta` to `base` in place. Raises DeltaError, and then changes nothing."""
    check(base, delta)
    put(base, *replacement(base, delta))


def put(content: bytearray, keep: int, added: bytes) -> None:
    """Replace what follows the first `keep` bytes."""
    if keep == len(content):
        content += added  # this allocates ahead, so growth in many steps is cheap
    else:
        content[keep:] = added  # and this allocates nothing if the length stays


def replacement(base: bytes | bytearray, delta: Delta) -> tuple[int, bytes]:
    """Return how many leading bytes of `base` stay where they are, and what follows them then.

    `delta` was checked. So a content can change in place, without a copy of what stays.
    """
    (start, length, text), *others = delta.pieces
    keep = length if start == 0 else 0
    if not others and (keep or not length):
        return keep, text
    return keep, joined_pieces(base, (Piece(0, 0, text), *others) if keep else delta.pieces)


def joined_pieces(base: bytes | bytearray, pieces: Iterable[Piece]) -> bytes:
    """Join ranges and texts. The pieces were checked."""
    with memoryview(base) as view:
        parts: list[bytes | memoryview] = []
        for start, length, text in pieces:
            parts += (view[start : start + length], text)
        result = b"".join(parts)
        # A bytearray cannot change its length while a view of it exists.
        for part in parts:
            if isinstance(part, memoryview):
                part.release()
        return result


def compose(first: Delta, second: Delta) -> Delta | None:
    """Return one delta that equals `first` and then `second`.

    None: it would have more than 256 pieces, or takes too many steps to make. Raises DeltaError if
    `second` keeps more than there is. Both must fit what they are applied to.
    """
    ranges: list[tuple[int, bytes | None]] = []  # where each starts in the base; None: a text
    offsets, size = [], 0
    for start, length, text in first.pieces:
        if length:
            offsets.append(size)
            ranges.append((start, None))
            size += length
        if text:
            offsets.append(size)
            ranges.append((0, text))
            size += len(text)
    offsets.append(size)
    composed = _Composition()
    steps = 0
    for start, length, text in second.pieces:
        at, end = start, start + length
        if start < 0 or length < 0 or end > size:
            raise DeltaError(f"keeps {length} bytes from {start} on of {size}")
        index = bisect_right(offsets, at) - 1 if length else 0
        while at < end:
            steps += 1
            if steps > _MAX_COMPOSED_STEPS:
                return None
            begins, stops = offsets[index], min(offsets[index + 1], end)
            base_start, held = ranges[index]
            if held is None:
                composed.keep(base_start + at - begins, stops - at)
            else:
                composed.add(held[at - begins : stops - begins])
            at, index = stops, index + 1
        composed.add(text)
        if len(composed.pieces) > _MAX_COMPOSED_PIECES:
            return None
    return composed.delta()


def joined(deltas: Sequence[Delta], content: bytes | bytearray) -> Delta:
    """Return one delta that equals `deltas` (at least one), applied in order.

    `content`: their result. The delta keeps a prefix only, if that is shorter or there would be too
    many pieces.
    """
    one: Delta | None = deltas[0]
    if not all(delta.is_prefix for delta in deltas):
        for delta in deltas[1:]:
            one = None if one is None else compose(one, delta)
        kept = min(delta.kept_bytes for delta in deltas)
        return shorter(one, kept, content)
    kept = min(delta.pieces[0].length for delta in deltas)
    return Delta.keeping(kept, bytes(content[kept:]))


def shorter(delta: Delta | None, kept_bytes: int, content: bytes | bytearray) -> Delta:
    """Return `delta`, or the delta that keeps `kept_bytes` bytes only, if that is not longer.

    Both have the result `content`.
    """
    added = len(content) - kept_bytes
    if delta is not None and delta.cost_bytes < added + _PIECE_COST_BYTES:
        return delta
    return Delta.keeping(kept_bytes, bytes(content[kept_bytes:]))


def common_text(a: bytes, b: bytes) -> int:
    """Return how many leading bytes `a` and `b` share, up to a code-point boundary of both."""
    shared = common_prefix(a, b)
    while not (is_boundary(a, shared) and is_boundary(b, shared)):
        shared -= 1
    return shared


def common_prefix(a: bytes, b: bytes) -> int:
    """Return how many leading bytes `a` and `b` share."""
    if len(a) > len(b):
        a, b = b, a
    if b.startswith(a):
        return len(a)
    # A binary search compares slices in C, as a loop over the bytes would take 100 times as long.
    # The slices are copies: a memoryview is compared byte by byte, which takes 10 times as long.
    low, high = 0, len(a)
    while high - low > 1:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low


def common_suffix(a: bytes, b: bytes) -> int:
    """Return how many bytes at the ends of `a` and `b`, which are of one length, are the same."""
    if a == b:
        return len(a)
    # As in common_prefix: the last byte that differs is in [low, high).
    low, high = 0, len(a)
    while high - low > 1:
        middle = (low + high) // 2
        if a[middle:high] == b[middle:high]:
            high = middle
        else:
            low = middle
    return len(a) - high


class _Composition:
    """Ranges of a base and texts, in as few pieces as possible."""

    def __init__(self) -> None:
        self.pieces: list[tuple[int, int, list[bytes]]] = []

    def keep(self, start: int, length: int) -> None:
        if self.pieces:
            before, kept, texts = self.pieces[-1]
            if not texts and before + kept == start:
                self.pieces[-1] = (before, kept + length, texts)
                return
        self.pieces.append((start, length, []))

    def add(self, text: bytes) -> None:
        if not text:
            return
        if not self.pieces:
            self.pieces.append((0, 0, []))
        self.pieces[-1][2].append(text)

    def delta(self) -> Delta:
        pieces = self.pieces or [(0, 0, [])]
        return Delta(tuple(Piece(start, kept, b"".join(texts)) for start, kept, texts in pieces))
