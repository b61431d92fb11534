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


@dataclass(frozen=True, slots=True)
class _ReleasedTail:
    """What is known of a tail whose content was released.

    If the content appears while the parts of a read are applied, the later parts are the delta.
    Each reader checks the result: a content that only looks the same does no harm.
    """

    epoch: int
    id: int
    revision: int
    dropped_bytes: int
    size_bytes: int
    crc32: int

    def is_now(self, content: Content) -> bool:
        """Whether `content` is the released one."""
        return len(content) == self.size_bytes and content.crc32 == self.crc32


class TailFold:
    """Makes events from changes: folds the tail's parts onto the held tail, and finds deltas."""

    def __init__(self) -> None:
        self._held: _HeldTail | None = None
        self._released: _ReleasedTail | None = None

    @property
    def held_revision(self) -> int | None:
        """The revision of the held tail; None: no tail is held."""
        return None if self._held is None else self._held.revision

    @property
    def held_bytes(self) -> int:
        """The bytes of the held tail."""
        return 0 if self._held is None else len(self._held.content)

    def release(self) -> None:
        """Release the held tail. The next change must come with the whole content."""
        held, self._held = self._held, None
        if held is not None:
            content = held.content
            self._released = _ReleasedTail(
                *(held.epoch, held.id, held.revision, held.dropped_bytes),
                *(len(content), content.crc32),
            )

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
                self._held = self._released = None
        return change

    def _entries(self, change: EntriesChanged, tail: TailHead | None) -> LogEvent:
        self._released = None
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
        released, self._released = self._released, None
        if held is not None and (held.epoch, held.id) != (change.epoch, head.id):
            held = None
        if change.base is not None:
            content = Content(change.base)
        elif held is not None:
            content = held.content
        else:
            raise LogCorrupt
        if released is not None and (released.epoch, released.id) != (change.epoch, head.id):
            released = None
        later = _patch(content, change, released)
        whole = bytes(content.data)
        base = held or (None if later is None else released)
        delta = None
        # A delta cannot express that the beginning of the content was dropped.
        if base is not None and base.dropped_bytes == head.dropped_bytes:
            if held is not None and change.base is not None:
                delta = diff(bytes(held.content.data), whole)
            else:
                delta = _joined(change.deltas if later is None else later, whole)
        self._held = _HeldTail(change.epoch, head.id, head.revision, head.dropped_bytes, content)
        return TailSent(
            change.epoch,
            head,
            whole,
            None if base is None else base.revision,
            delta,
            None if delta is None else content.crc32,
        )


def _patch(
    content: Content, change: TailChanged, released: _ReleasedTail | None
) -> Sequence[Delta] | None:
    """Apply the deltas. Return those since `released`; None: it did not appear."""
    later: Sequence[Delta] | None = None
    try:
        for index, delta in enumerate(change.deltas):
            if later is None and released is not None and released.is_now(content):
                later = change.deltas[index:]
            if change.crc32 is not None and index == len(change.deltas) - 1:
                content.patch_unchecked(delta, change.crc32)
            else:
                content.patch(delta)
    except DeltaError as error:
        raise LogCorrupt from error
    return later


def _joined(deltas: Sequence[Delta], whole: bytes) -> Delta:
    """Return how the tail changed. It travels as it came if it is one change."""
    if not deltas:
        return Delta.keeping(len(whole), b"")
    return joined(deltas, whole)
