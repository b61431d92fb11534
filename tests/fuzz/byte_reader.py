"""Turns bytes into decisions, so that an engine can steer a generator of structures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class ByteReader:
    """Reads decisions from an input. After its end every decision is 0."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_done(self) -> bool:
        return self._at >= len(self._data)

    def byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def below(self, limit: int) -> int:
        return self.byte() % limit

    def one_of(self, values: Sequence[T]) -> T:
        return values[self.byte() % len(values)]

    def chance(self, in_256: int) -> bool:
        """Whether a rare event happens. Never true after the end of the input."""
        return self.byte() > 255 - in_256

    def bytes_(self, count: int) -> bytes:
        self._at += count
        return self._data[self._at - count : self._at]
