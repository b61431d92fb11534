"""The other processes that this one hears, and whether it misses notes of theirs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID


@dataclass(slots=True)
class Peer:
    """Another process."""

    process_id: UUID
    heard_at: float
    to_all: int | None = None
    """The number of its last payload to all processes. None: unknown."""
    to_this: int | None = None
    """The number of its last payload to this process. None: unknown."""

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

    def told(self, number: int) -> bool:
        """Note which payload to this process was the last; return whether any are missing."""
        last, self.to_this = self.to_this, max(number, self.to_this or 0)
        # Only new numbers are told. So if none has arrived, this one is missing.
        return last is None or number > last


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

    def silent(self, now: float) -> Iterator[UUID]:
        """Return the processes that were not heard for too long."""
        for peer in list(self._peers.values()):
            if now - peer.heard_at >= self._silence_seconds:
                yield peer.process_id
