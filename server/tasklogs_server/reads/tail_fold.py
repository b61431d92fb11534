"""The tail as a feed holds it. The next parts are folded onto it.

Parts alone are not enough for followers: some need the whole entry, others a delta from the state
that they hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tasklogs.log.content import Content
from tasklogs.log.delta import Delta, DeltaError, diff, joined
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
    content: Content = field(repr=False)


class TailFold:
    """Makes events from changes: folds the tail's parts onto the held tail, and finds deltas."""

    def __init__(self) -> None:
        self._held: _HeldTail | None = None

    @property
    def held_revision(self) -> int | None:
        """The revision of the held tail; None: no tail is held."""
        return None if self._held is None else self._held.revision

    @property
    def held_bytes(self) -> int:
        """The bytes of the held tail."""
        return 0 if self._held is None else len(self._held.content)

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
            Content(change.tail_content),
        )
        return change

    def _tail(self, change: TailChanged) -> LogEvent:
        head = change.head
        held, self._held = self._held, None  # a change that does not fit may be half applied
        if held is not None and (held.epoch, held.id) != (change.epoch, head.id):
            held = None
        if change.base is not None:
            content = Content(change.base)
        elif held is not None:
            content = held.content
        else:
            raise LogCorrupt
        _patch(content, change)
        whole = bytes(content.data)
        delta = None
        # A delta cannot express that the beginning of the content was dropped.
        if held is not None and held.dropped_bytes == head.dropped_bytes:
            delta = _delta(held.content, whole, change)
        self._held = _HeldTail(change.epoch, head.id, head.revision, head.dropped_bytes, content)
        return TailSent(
            change.epoch,
            head,
            whole,
            None if held is None else held.revision,
            delta,
            None if delta is None else content.crc32,
        )


def _patch(content: Content, change: TailChanged) -> None:
    try:
        for delta in change.deltas[:-1]:
            content.patch(delta)
        for delta in change.deltas[-1:]:
            if change.crc32 is None:
                content.patch(delta)
            else:
                content.patch_unchecked(delta, change.crc32)
    except DeltaError as error:
        raise LogCorrupt from error


def _delta(held: Content, whole: bytes, change: TailChanged) -> Delta:
    """Return how the tail changed. It travels as it came if it is one change of what is held."""
    if change.base is not None:
        return diff(bytes(held.data), whole)
    if not change.deltas:
        return Delta.keeping(len(whole), b"")
    return joined(change.deltas, whole)
