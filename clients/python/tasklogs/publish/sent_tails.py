"""The tails that this agent sent last, and the process that showed each."""

from __future__ import annotations

from collections import deque

from tasklogs.log.continuation import StoredTail
from tasklogs.log.entry import Entry

_MOST_TAILS = 32
"""More than there are appends that wait for one ack."""


class SentTails:
    """Survives reconnects, because a stored tail may be rewritten or withdrawn only if this agent
    sent it from a process that still runs.

    The store holds the tail of the last append that was acknowledged, or of one after it. Contents
    are shared with the session, not copied.
    """

    def __init__(self) -> None:
        self._last: deque[tuple[Entry, int]] = deque(maxlen=_MOST_TAILS)

    def note(self, sent: tuple[Entry, int] | None) -> None:
        """Remember a tail and its process."""
        if sent is not None and (not self._last or self._last[-1] != sent):
            self._last.append(sent)

    def acknowledged(self) -> None:
        """Forget what the store cannot hold any more: the last append was acknowledged."""
        while len(self._last) > 2:  # the last one may have been shown again by another process
            self._last.popleft()

    def process_of(self, stored: StoredTail | None) -> int | None:
        """Return the process whose tail is stored; None if this agent did not send that tail."""
        for entry, process in reversed(self._last):
            if stored is not None and entry.id == stored.id and StoredTail.of(entry) == stored:
                return process
        return None
