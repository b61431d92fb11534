"""The other processes that this one hears, and whether it misses notes of theirs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

# Payloads to all processes, and those to one, may overtake each other.
_ON_ITS_WAY_SECONDS = 0.2


@dataclass(slots=True)
class Peer:
    """Another process."""

    process_id: UUID
    heard_at: float
    to_all: int | None = None
    """The number of its last payload to all processes. None: unknown."""
    to_this: int | None = None
    """The number of its last payload to this process. None: unknown."""
    told_number: int | None = None
    """The number that its last beat told, if that payload has not arrived yet."""
    told_at: float = 0.0

    def arrived(self, number: int, *, is_direct: bool) -> bool | None:
        """Note the number of a payload; return whether any are missing before it.

        None: it has arrived before.
        """
        last = self.to_this if is_direct else self.to_all
        if last is not None and number <= last:
            return None
        if is_direct:
            self.to_this = number
        else:
            self.to_all = number
        return last is not None and number > last + 1

    def told(self, number: int, now: float) -> None:
        """Note which payload to this process was the last. It may still be on its way."""
        if self.to_this is None or number > self.to_this:
            self.told_number, self.told_at = number, now

    def is_missing(self, before: float) -> bool:
        """Whether a payload is missing of which a beat told before this time.

        It is missing once: later ones follow it.
        """
        number = self.told_number
        if number is None or self.told_at >= before:
            return False
        self.told_number = None
        if self.to_this is not None and number <= self.to_this:
            return False
        self.to_this = number
        return True


class Peers:
    """The processes that were heard lately, by their ids. Times are those of one clock."""

    def __init__(self, silence_seconds: float) -> None:
        self._silence_seconds = silence_seconds
        self._peers: dict[UUID, Peer] = {}

    def __bool__(self) -> bool:
        return bool(self._peers)

    def __len__(self) -> int:
        return len(self._peers)

    def __contains__(self, process_id: UUID) -> bool:
        return process_id in self._peers

    def ids(self) -> Iterator[UUID]:
        """Return the ids of all of them."""
        return iter(list(self._peers))

    def get(self, process_id: UUID) -> Peer | None:
        """Return a process that was heard lately."""
        return self._peers.get(process_id)

    def add(self, process_id: UUID, now: float) -> Peer:
        """Add a process that is heard for the first time, or again after a silence."""
        added = self._peers[process_id] = Peer(process_id, now)
        return added

    def remove(self, process_id: UUID) -> None:
        """Forget a process."""
        self._peers.pop(process_id, None)

    def clear(self) -> None:
        """Forget all processes."""
        self._peers.clear()

    def with_missing(self, now: float) -> Iterator[Peer]:
        """Return the processes of which a payload has not arrived in time."""
        before = now - _ON_ITS_WAY_SECONDS
        return (peer for peer in list(self._peers.values()) if peer.is_missing(before))

    def silent(self, now: float) -> Iterator[UUID]:
        """Return the processes that were not heard for too long."""
        for peer in list(self._peers.values()):
            if now - peer.heard_at >= self._silence_seconds:
                yield peer.process_id
