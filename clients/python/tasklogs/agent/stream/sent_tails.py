"""The tails that this agent sent last, and the process that showed each."""

from __future__ import annotations

from collections import deque

from tasklogs.log.continuation import StoredTail
from tasklogs.log.entry import Entry


class SentTails:
    """Survives reconnects, because a stored tail may be rewritten or withdrawn only if this agent
    sent it from a process that still runs.

    The store holds one of the last two: at most one append is acknowledged and one is under way.
    Contents are shared with the session, not copied.
    """

    def __init__(self) -> None:
        self._last: deque[tuple[Entry, int]] = deque(maxlen=2)

    def note(self, sent: tuple[Entry, int] | None) -> None:
        """Remember a tail and its process."""
        if sent is not None and (not self._last or self._last[-1] != sent):
            self._last.append(sent)

    def process_of(self, stored: StoredTail | None) -> int | None:
        """Return the process whose tail is stored; None if this agent did not send that tail."""
        for entry, process in reversed(self._last):
            if stored is not None and entry.id == stored.id and StoredTail.of(entry) == stored:
                return process
        return None
