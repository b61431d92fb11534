"""Which tails this agent sent lately, and the process that showed each."""

from __future__ import annotations

from collections import deque

from tasklogs.log.continuation import StoredTail
from tasklogs.log.entry import Entry


class SentTails:
    """Outlives the sessions: a stored tail that this agent sent, from a process that still runs,
    may be rewritten or withdrawn, others not.

    One append is acknowledged and one under way at most, so that the last two are all that a store
    can hold; contents are shared with the session, not copied.
    """

    def __init__(self) -> None:
        self._last: deque[tuple[Entry, int]] = deque(maxlen=2)

    def note(self, sent: tuple[Entry, int] | None) -> None:
        """Remember a tail and its process."""
        if sent is not None and (not self._last or self._last[-1] != sent):
            self._last.append(sent)

    def process_of(self, stored: StoredTail | None) -> int | None:
        """Return the process from which this agent sent what is stored; None if it did not."""
        for entry, process in reversed(self._last):
            if stored is not None and entry.id == stored.id and StoredTail.of(entry) == stored:
                return process
        return None
