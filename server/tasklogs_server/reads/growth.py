"""How the tail came to be what it is: its last changes, for followers who are a little behind."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from tasklogs.log.delta import Delta, joined
from tasklogs_server.reads.follow_events import LogEvent, TailSent

_MOST_CHANGES = 256
_MOST_BYTES = 256 * 1024


class Growth:
    """The last steps of a feed, as long as each was a change of one and the same tail.

    A tail that grows fast leaves its followers a step behind again and again: without this each
    time would cost them, and the store, the whole entry.
    """

    def __init__(self) -> None:
        self._deltas: deque[tuple[int, Delta]] = deque()
        self._size_bytes = 0

    def note(self, after: int, events: Sequence[LogEvent]) -> None:
        """Take the step that follows revision `after`, the one that the step before ended at."""
        match events:
            case [TailSent(base_revision=base, delta=Delta() as delta)] if base == after:
                self._deltas.append((after, delta))
                self._size_bytes += len(delta.text)
            case _:
                self.forget()
        while len(self._deltas) > _MOST_CHANGES or self._size_bytes > _MOST_BYTES:
            _, oldest = self._deltas.popleft()
            self._size_bytes -= len(oldest.text)

    def forget(self) -> None:
        """Hold nothing."""
        self._deltas.clear()
        self._size_bytes = 0

    def since(self, revision: int) -> Delta | None:
        """Return how the tail changed since `revision`; None where that is not known."""
        due = [delta for base, delta in self._deltas if base >= revision]
        if not due or self._deltas[-len(due)][0] != revision:
            return None
        return joined(due)
