"""A limit on the tails in memory: those of sessions, and those of followed tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Protocol

_IDLE_SECONDS = 30.0
_PERIOD_SECONDS = 5.0


class HeldTail(Protocol):
    """A tail in memory. Its owner reads it from the store when it needs it again."""

    @property
    def tail_bytes(self) -> int:
        """The bytes that are held for the tail; 0: it is not in memory."""

    @property
    def tail_idle_seconds(self) -> float:
        """How long the tail has not changed."""

    def release_tail(self) -> None:
        """Release the tail, unless it is being used."""


class TailBudget:
    """Releases tails that have not changed for 30 s, and earlier if all have too many bytes."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._holders: list[Callable[[], Iterable[HeldTail]]] = []

    def add(self, held: Callable[[], Iterable[HeldTail]]) -> None:
        """Count and release these tails, too; `held` may return another set each time."""
        self._holders.append(held)

    @property
    def held_bytes(self) -> int:
        """The bytes of all tails. Thread-safe if the holders return copies."""
        return sum(tail.tail_bytes for tail in self._tails())

    def release(self) -> None:
        """Release idle tails. Above the limit, release those that have been idle longest."""
        tails = [tail for tail in self._tails() if tail.tail_bytes]
        for tail in tails:
            if tail.tail_idle_seconds >= _IDLE_SECONDS:
                tail.release_tail()
        too_much = sum(tail.tail_bytes for tail in tails) - self._limit
        if too_much <= 0:
            return
        for tail in sorted(tails, key=attrgetter("tail_idle_seconds"), reverse=True):
            if too_much <= 0:
                return
            before = tail.tail_bytes
            tail.release_tail()
            too_much -= before - tail.tail_bytes

    async def run(self) -> None:
        """Release tails every 5 s, until cancelled."""
        while True:
            await asyncio.sleep(_PERIOD_SECONDS)
            self.release()

    def _tails(self) -> Iterable[HeldTail]:
        return (tail for held in self._holders for tail in held())
