"""The last changes of the tail, joined for followers that are a few steps behind."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from tasklogs.log.delta import Delta, joined
from tasklogs_server.reads.follow_events import LogEvent, TailSent

_MOST_CHANGES = 256
_MOST_BYTES = 256 * 1024


class Growth:
    """The last steps of a feed, as long as each was a change of the same tail.

    A follower that takes longer for a message than the tail for a change is behind at every
    message. Measured with 20 followers that take 60 ms each, and a tail of 20 KB that changes 40
    times a second for 3 s: 33 KiB and no store read per follower; without this, 796 KiB per
    follower and 601 store reads. Followers that keep up never need it.
    """

    def __init__(self) -> None:
        self._deltas: deque[tuple[int, Delta]] = deque()
        self._size_bytes = 0

    def note(self, after: int, events: Sequence[LogEvent]) -> None:
        """Add the step that begins at revision `after`, where the previous step ended."""
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
        """Return how the tail changed since `revision`; None: unknown."""
        due = [delta for base, delta in self._deltas if base >= revision]
        if not due or self._deltas[-len(due)][0] != revision:
            return None
        return joined(due)
