"""The tail as a feed holds it. The next parts are folded onto it.

Parts alone are not enough for followers: some need the whole entry, others a delta from the state
that they hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tasklogs.log import delta
from tasklogs.log.delta import Delta, diff
from tasklogs_server.domain.errors import LogCorrupt
from tasklogs_server.reads.follow_events import LogEvent, TailSent
from tasklogs_server.store.log_changes import Change, EntriesChanged, TailChanged
from tasklogs_server.store.records import Commit, TailHead, TailWithdrawn


@dataclass(slots=True)
class _HeldTail:
    epoch: int
    id: int
    revision: int
    dropped_bytes: int
    content: bytearray = field(repr=False)


class TailFold:
    """Makes events from changes: folds the tail's parts onto the held tail, and finds deltas."""

    def __init__(self) -> None:
        self._held: _HeldTail | None = None

    @property
    def held_revision(self) -> int | None:
        """The revision of the held tail; None: no tail is held."""
        return None if self._held is None else self._held.revision

    def can_fold(self, commit: Commit) -> bool:
        """Whether this holds the tail that the commit's part continues. True without a part."""
        tail, held = commit.head.tail, self._held
        if commit.part is None or tail is None:
            return commit.part is None
        return held is not None and (held.epoch, held.id) == (commit.head.epoch, tail.id)

    def events(self, changes: Sequence[Change], tail: TailHead | None) -> Sequence[LogEvent]:
        """Return the events for `changes`; `tail` is the log's tail after them.

        Raises LogCorrupt if the parts do not fit what is held.
        """
        return [self._event(one, tail) for one in changes]

    def _event(self, change: Change, tail: TailHead | None) -> LogEvent:
        match change:
            case TailChanged():
                return self._tail(change)
            case EntriesChanged():
                return self._entries(change, tail)
            case TailWithdrawn():
                # A later entry with the same id is another entry: a delta must not build on this
                # one.
                self._held = None
        return change

    def _entries(self, change: EntriesChanged, tail: TailHead | None) -> LogEvent:
        if change.tail_content is None or tail is None or tail.id != change.last_id:
            self._held = None
            return change
        self._held = _HeldTail(
            change.epoch,
            change.last_id,
            change.revision,
            tail.dropped_bytes,
            bytearray(change.tail_content),
        )
        return change

    def _tail(self, change: TailChanged) -> LogEvent:
        held = self._held
        known = held is not None and (held.epoch, held.id) == (change.epoch, change.head.id)
        before = bytes(held.content) if held is not None and known else None
        base_revision = held.revision if held is not None and known else None
        content = bytearray(change.base if change.base is not None else before or b"")
        if change.base is None and before is None:
            raise LogCorrupt
        kept = len(content) if change.base is None else None
        try:
            for part in change.deltas:
                delta.patch(content, part)
                kept = None if kept is None else min(kept, part.keep_bytes)
        except ValueError as error:
            raise LogCorrupt from error
        head = change.head
        self._held = _HeldTail(change.epoch, head.id, head.revision, head.dropped_bytes, content)
        whole = bytes(content)
        grown: Delta | None = None
        # A delta cannot express that the beginning of the content was dropped.
        if held is not None and before is not None and held.dropped_bytes == head.dropped_bytes:
            grown = Delta(kept, whole[kept:]) if kept is not None else diff(before, whole)
        return TailSent(change.epoch, change.head, whole, base_revision, grown)
