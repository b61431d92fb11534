"""A log that is written here and nowhere else: what waits to be stored, and where it continues.

No I/O. A publisher writes into it, or a source that reads a file. A session takes what waits
whenever the server has confirmed the last append, so changes of the last entry coalesce while the
server is busy. What is stored is dropped, except for the last entry.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from tasklogs.enums import AppHealth
from tasklogs.log.continuation import Position
from tasklogs.log.entry import Entry, Time
from tasklogs.publish.draft import Draft
from tasklogs.publish.held_epoch import HeldEpoch
from tasklogs.publish.source import Listener, Mark, Shown, SourceError


class LogDiverged(Exception):
    """The stored log is not the one that was written here, so it cannot be continued.

    Another program wrote with the same token, or the server lost what it had confirmed (a failover,
    a restored backup).
    """

    def __init__(self) -> None:
        super().__init__(
            "the stored log is not the one that was written here: another program wrote with the"
            " same token, or the server lost entries"
        )


class EntrySealed(Exception):
    """The entry cannot change any more: another entry or another epoch follows it."""

    def __init__(self) -> None:
        super().__init__("the entry cannot change any more: another one follows it")


class Journal:
    """A source that holds only what is not stored yet. Use it in one event loop."""

    def __init__(
        self,
        kind: str,
        *,
        most_bytes: int,
        sync: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`most_bytes` may wait. `sync` writes what there is now, or raises SourceError."""
        self._kind = kind
        self._most_bytes = most_bytes
        self._sync = sync
        self._health = AppHealth.HEALTHY
        self._epochs: deque[HeldEpoch] = deque()
        self._listener: Listener | None = None
        self._last_listener: Listener | None = None
        self._position: Position | None = None
        self._changed = asyncio.Event()
        self._failure: Exception | None = None

    @property
    def kind(self) -> str:
        """Names the source for operators."""
        return self._kind

    @property
    def health(self) -> AppHealth:
        """The health to report now."""
        return self._health

    @health.setter
    def health(self, value: AppHealth) -> None:
        self._health = value
        if self._listener is not None:
            self._listener.health_changed()

    def attach(self, listener: Listener) -> None:
        """Compare what is held with the stored log. `offer` passes on the rest."""
        self._listener = self._last_listener = listener
        self._position = listener.stored
        if self._epochs and not self._epochs[0].begin_session(listener.stored):
            self.fail(LogDiverged())
        self._tell()
        listener.wake()

    def detach(self) -> None:
        """Wait for another session."""
        self._listener = None

    def offer(self) -> None:
        """Pass on everything that waits."""
        listener = self._listener
        if listener is None or self._failure is not None or not self._epochs:
            return
        shown = self._take(listener)
        # An epoch may have only entries that the server does not store: the next one's turn.
        while shown is None and len(self._epochs) > 1 and self._epochs[0].is_stored:
            shown = self._take(listener)
        if shown is not None:
            listener.show_list(shown, ())
        self._tell()

    def _take(self, listener: Listener) -> Shown | None:
        if self._epochs[0].is_stored and len(self._epochs) > 1:
            before = self._epochs.popleft()
            self._epochs[0].follow(before)
        epoch = self._epochs[0]
        if not epoch.is_settled:
            epoch.settle(listener.stored)
        return epoch.take(listener.fitted)

    def committed(self, mark: Mark) -> None:
        """Drop what is stored."""
        if self._epochs and self._epochs[0].committed(mark):
            self._tell()
            if len(self._epochs) > 1 and self._listener is not None:
                self._listener.wake()

    async def refresh(self) -> None:
        """Write what there is now, and wait until the session has it. Raises SourceError."""
        if self._sync is not None:
            await self._sync()
        if (last := self.last) is None:
            return
        version = last.version
        try:
            await self.until(lambda: last.is_offered(version))
        except Exception as error:
            raise SourceError(str(error)) from None

    @property
    def last(self) -> Draft | None:
        """The last entry that was written here; None if there is none."""
        return next((one.last for one in reversed(self._epochs) if one.last is not None), None)

    @property
    def held_bytes(self) -> int:
        """The size of what is held, without the last entry."""
        held = sum(epoch.sealed_bytes + epoch.last_bytes for epoch in self._epochs)
        return held - (self._epochs[-1].last_bytes if self._epochs else 0)

    def fitted(self, entry: Entry) -> Entry | None:
        """Return `entry` as the last session's server stores it; None if it does not."""
        return entry if self._last_listener is None else self._last_listener.fitted(entry)

    @property
    def is_attached(self) -> bool:
        """Whether a session is open."""
        return self._listener is not None

    @property
    def last_position(self) -> Position | None:
        """Where the stored log stood when the last session began; None before the first."""
        return self._position

    @property
    def failure(self) -> Exception | None:
        """Why nothing can be written any more."""
        return self._failure

    def fail(self, failure: Exception) -> None:
        """Raise `failure` for all that wait, and for all later calls."""
        self._failure = self._failure or failure
        self._tell()

    def start_over(self) -> None:
        """Forget everything, the failure too: the writer begins again from the stored log."""
        self._epochs.clear()
        self._failure = None
        self._tell()

    def begin_epoch(self, *, continues: bool = False) -> HeldEpoch:
        """Let the next entry begin an epoch, or continue the one that is stored."""
        epoch = HeldEpoch(continues=continues)
        if self._epochs and self._epochs[-1].last is None:
            self._epochs.pop()
        self._epochs.append(epoch)
        return epoch

    async def add(self, draft: Draft) -> None:
        """Write an entry. Waits while too much is held."""
        await self.until(lambda: self.held_bytes < self._most_bytes)
        self._epochs[-1].add(draft)
        self._wake()

    def extend(self, draft: Draft, text: bytes, time: Time) -> None:
        """Add text to the last entry. Raises EntrySealed."""
        self._check(draft)
        draft.extend(text, time)
        self._wake()

    def replace(self, draft: Draft, content: bytes, time: Time) -> None:
        """Set another content of the last entry. Raises EntrySealed."""
        self._check(draft)
        draft.replace(content, time)
        self._wake()

    async def position(self) -> Position:
        """Wait for a session; return where the stored log stood when the last one began."""
        await self.until(lambda: self._position is not None)
        assert self._position is not None
        return self._position

    async def stored(self) -> None:
        """Wait until everything that is written by now is stored."""
        if (last := self.last) is not None:
            version = last.version
            await self.until(lambda: last.is_stored(version))

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for a condition of this journal. Raises what it failed with."""
        while True:
            if self._failure is not None:
                raise self._failure.with_traceback(None)
            if holds():
                return
            await self._changed.wait()

    def _check(self, draft: Draft) -> None:
        if self._failure is not None:
            raise self._failure
        if not self._epochs or self._epochs[-1].last is not draft:
            raise EntrySealed

    def _wake(self) -> None:
        if self._listener is not None:
            self._listener.wake()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
