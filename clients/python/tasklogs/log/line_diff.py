"""Finds the runs of lines that a changed text has in common with its former state.

A screen that is redrawn keeps most of its lines: some change, others move. `difflib` takes seconds
for a screen of 80 KB. This takes well under a millisecond, and does not always find the most.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

_MOST_LINES = 16_384
"""In a text with more lines, none are searched."""
_MOST_RUNS = 200
_MOST_TRIES = 1000
"""A try takes about 4 us. Most texts need a few. After so many, the rest is taken as new."""
_MOST_CANDIDATES = 4
"""A line that occurs often, such as an empty one, is tried in so many places."""


class Kept(NamedTuple):
    """Bytes `start` to `start + length` of the base are the bytes from `at` on of the content."""

    start: int
    at: int
    length: int


def kept_lines(base: bytes, content: bytes, *, least_bytes: int) -> Sequence[Kept]:
    """Return runs of whole lines that both have, in the order of the content.

    A run has at least `least_bytes` bytes. There are at most 200. They do not overlap in `content`,
    and no two begin in the same line of `base`.
    """
    old, new = base.splitlines(keepends=True), content.splitlines(keepends=True)
    if max(len(old), len(new)) > _MOST_LINES:
        return ()
    return _Search(old, new).kept(least_bytes)


class _Search:
    def __init__(self, old: list[bytes], new: list[bytes]) -> None:
        self._old = old
        self._new = new
        self._first: dict[bytes, int] = {}
        """The first place of each line in `old`."""
        self._is_kept = bytearray(len(old))
        """A line that is kept twice would cost more than it saves: repetition compresses well."""
        self._next = [0] * len(old)
        """For each place the next one with the same line; `len(old)` if there is none."""
        for place in range(len(old) - 1, -1, -1):
            line = old[place]
            self._next[place] = self._first.get(line, len(old))
            self._first[line] = place

    def kept(self, least_bytes: int) -> Sequence[Kept]:
        old, new = self._old, self._new
        old_at = list(accumulate(map(len, old), initial=0))
        new_at = list(accumulate(map(len, new), initial=0))
        runs: list[Kept] = []
        at = place = tries = 0  # `place`: where `old` would go on if nothing was added or removed
        while at < len(new) and len(runs) < _MOST_RUNS and tries < _MOST_TRIES:
            first = self._first_free(new[at])
            if first is None:
                at, place = at + 1, place + 1
                continue
            tries += 1
            start, count = self._longest_run(at, place, first)
            length = new_at[at + count] - new_at[at]
            if length >= least_bytes:
                runs.append(Kept(old_at[start], new_at[at], length))
                self._is_kept[start : start + count] = bytes([1]) * count
                place = start
            at, place = at + count, place + count
        return runs

    def _first_free(self, line: bytes) -> int | None:
        """Return the first place of this line in `old` that is not in a run yet."""
        place = self._first.get(line)
        if place is None or not self._is_kept[place]:
            return place
        while place < len(self._old) and self._is_kept[place]:
            place = self._next[place]
        if place == len(self._old):
            del self._first[line]
            return None
        self._first[line] = place
        return place

    def _longest_run(self, at: int, place: int, first: int) -> tuple[int, int]:
        """Return where a long run in `old` begins that equals `new` from `at` on, and its length.

        `first` is a place where one begins.
        """
        best, most = first, self._count(first, at)
        candidates = [place] if place < len(self._old) else []
        while len(candidates) < _MOST_CANDIDATES and (first := self._next[first]) < len(self._old):
            candidates.append(first)
        for candidate in candidates:
            count = 0 if self._is_kept[candidate] else self._count(candidate, at)
            if count > most or (count == most and candidate == place):
                best, most = candidate, count
        return best, most

    def _count(self, place: int, at: int) -> int:
        """Return how many lines of `old` from `place` on equal those of `new` from `at` on."""
        old, new = self._old, self._new
        most = min(len(old) - place, len(new) - at)
        count, step = 0, 1
        while count < most:
            step = min(step, most - count)
            # Lists of lines are compared in C.
            if old[place + count : place + count + step] == new[at + count : at + count + step]:
                count += step
                step *= 2
            elif step == 1:
                break
            else:
                step = max(1, step // 4)
        return count
