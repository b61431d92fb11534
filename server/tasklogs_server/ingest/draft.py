"""Turns an agent's appends into rows: what a session commits next, after the stored head.

Pure. Changes are collected here, over any number of appends, until the group commit asks for them.
Changes of one tail coalesce into one. Changes get their revisions when the group commit gets them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from tasklogs.log import digest
from tasklogs.log.append import Append, TailChange
from tasklogs.log.content import Content
from tasklogs.log.delta import Delta, DeltaError, ResultTooLong, compose, shorter
from tasklogs.log.entry import Entry, Names, Time
from tasklogs.log.truncation import MAX_CONTENT_BYTES
from tasklogs_server.domain.errors import LimitExceeded, ProtocolViolation
from tasklogs_server.domain.limits import Limit
from tasklogs_server.store.records import (
    Commit,
    EntryRow,
    EpochOpened,
    LogHead,
    TailHead,
    TailPart,
    TailWithdrawn,
)
from tasklogs_server.wire.entries import encode_head

# A tail is folded into one row when it is sealed, or when its parts exceed this multiple of its
# content (for example, a screen that is redrawn for hours). If every few parts were folded, most of
# the WAL would come from folds.
_FOLD_AT_MULTIPLE = 4
_FOLD_AT_LEAST_BYTES = 256 * 1024
# A reader needs 6 us for each part, whatever its size. So a tail is also folded when it has this
# many parts, or one for so many bytes of its content: a fold writes the content once, which then
# costs 512 bytes of WAL for each part at most, less than the commit of a part.
_FOLD_AT_PARTS = 1000
_CONTENT_BYTES_PER_PART = 512
# To apply a part that does more than keep a prefix, a reader copies the content. A byte of that
# costs this part of what a byte of text costs, which Postgres sends.
_COPIED_BYTES_PER_COST_BYTE = 16


@dataclass(slots=True)
class _Growing:
    """An entry with its whole content.

    `kept_bytes`: how many leading bytes of the stored content the changes since the last commit
    keep. None: the changes are not stored as a part, because the row is new or is replaced as a
    whole. `change`: all these changes as one delta. None: the leading bytes, then the rest of
    `content` as text.

    `parts`: how many parts are stored on top of the row, and `part_bytes` what they cost. `folded`:
    the entry as it was before these changes, to replace the row and those parts.
    """

    ordinal: int
    id: int
    type: int
    time: Time
    dropped_bytes: int
    names: Names
    content: Content
    revision: int = 0
    part_bytes: int = 0
    parts: int = 0
    kept_bytes: int | None = None
    change: Delta | None = None
    is_stored: bool = False
    folded: EntryRow | None = None

    def row(self, epoch: int) -> EntryRow:
        head = encode_head(
            self.id,
            self.type,
            self.time,
            self.revision,
            self.dropped_bytes,
            len(self.content),
            self.names,
        )
        content = bytes(self.content.data)
        return EntryRow(epoch, self.ordinal, self.id, self.revision, head, content, self.type)

    def replace_content(self, content: bytes) -> None:
        self.content = Content(content)
        self.kept_bytes = self.change = None

    def grow(self, change: TailChange, *, is_first: bool) -> None:
        """Apply a change. `is_first`: the first one since the last commit. Raises DeltaError."""
        delta = change.delta
        earlier = self._changed_by(delta, is_first=is_first)
        self.content.patch(delta, crc32=change.crc32)
        if is_first:
            self.kept_bytes = delta.kept_bytes if self.is_stored else None
            self.change = None if delta.is_prefix else delta
        elif self.kept_bytes is not None:
            self.kept_bytes = min(self.kept_bytes, delta.kept_bytes)
            self.change = None if earlier is None else compose(earlier, delta)

    def _changed_by(self, next_change: Delta, *, is_first: bool) -> Delta | None:
        """Return the changes up to now, if they must be composed with the next one."""
        if is_first or self.kept_bytes is None:
            return None
        if self.change is None and not next_change.is_prefix:
            return Delta.keeping(self.kept_bytes, bytes(self.content.data[self.kept_bytes :]))
        return self.change

    def take_part(self) -> TailPart | None:
        """Return the changes as a part; None if the whole entry is to be stored as a row."""
        kept_bytes, self.kept_bytes = self.kept_bytes, None
        change, self.change = self.change, None
        if kept_bytes is None or not self.is_stored:
            return None
        content = self.content
        delta = shorter(change, kept_bytes, content.data)
        cost_bytes = delta.cost_bytes
        if not delta.is_prefix:
            cost_bytes += len(content) // _COPIED_BYTES_PER_COST_BYTE
        limit = max(_FOLD_AT_LEAST_BYTES, _FOLD_AT_MULTIPLE * len(content))
        parts, part_bytes = (self.parts, self.part_bytes) if self.folded is None else (0, 0)
        if part_bytes + cost_bytes >= limit:
            return None
        self.parts, self.part_bytes = parts + 1, part_bytes + cost_bytes
        return TailPart(self.revision, delta, content.crc32)

    def fold_early(self, epoch: int) -> None:
        """If there are too many parts, prepare a row of the content as it is before a change.

        That change is then stored as the first part on top of this row. So a follower that holds
        the content gets the change alone.
        """
        if self.parts >= max(_FOLD_AT_PARTS, len(self.content) // _CONTENT_BYTES_PER_PART):
            self.folded = self.row(epoch)

    def head(self) -> TailHead:
        return TailHead(
            self.id,
            self.type,
            self.time,
            self.revision,
            self.dropped_bytes,
            self.part_bytes,
            self.names,
        )


@dataclass(slots=True)
class _Change:
    """One change, which gets one revision: an entry, a withdrawal or a new epoch."""

    epoch: int
    entry: _Growing | None = None
    withdrawn: tuple[int, int, int] | None = None
    """Ordinal, id and type."""


@dataclass(slots=True)
class _Changes:
    """The changes since the last commit, in the order in which they get revisions."""

    ordered: list[_Change] = field(default_factory=list)
    sealed_with_parts: list[tuple[int, _Growing]] = field(default_factory=list)
    """Tails that were sealed without a change: they are folded without a new revision."""
    drops_parts: bool = False
    size_bytes: int = 0


class Draft:
    """The next head of a log, and what must be written for it.

    `tail_content` is the content of the head's tail. If it is None and the head has a tail,
    `supply_tail` must be called before the first append. `tail_parts`: how many parts are stored of
    it. `last_sealed_id` is used if the head has no tail.
    """

    def __init__(
        self,
        head: LogHead,
        tail_content: bytes | None = None,
        *,
        tail_parts: int = 0,
        last_sealed_id: int = -1,
    ) -> None:
        self._epoch = head.epoch
        self._entries = head.entries
        self._digest = head.digest
        self._revision = head.revision
        self.total_bytes = head.bytes
        """Bytes of content of all epochs, including evicted content and collected changes."""
        self.total_rows = head.rows
        """Entries, epoch openings and withdrawals, counted like `total_bytes`."""
        self._stored = head
        self._tail: _Growing | None = None
        self._tail_parts = tail_parts
        self.lacks_tail = head.tail is not None
        """Whether the tail's content must be supplied before the next append."""
        # Ids grow, also after a withdrawn tail: sealed entries have lower ids than that tail.
        self._lowest_next_id = last_sealed_id + 1
        self._changes = _Changes()
        if tail_content is not None:
            self.supply_tail(tail_content)

    @property
    def is_empty(self) -> bool:
        """Whether there are no changes."""
        return not self._changes.ordered and not self._changes.sealed_with_parts

    @property
    def revision(self) -> int:
        """The revision after the last commit that was returned."""
        return self._revision

    @property
    def size_bytes(self) -> int:
        """Bytes of content and text in the changes."""
        return self._changes.size_bytes

    @property
    def has_stored_parts(self) -> bool:
        """Whether the stored tail has parts in addition to its row."""
        tail = self._stored.tail
        return tail is not None and tail.part_bytes > 0

    @property
    def tail_bytes(self) -> int:
        """Bytes of the tail's content that are held."""
        return 0 if self._tail is None else len(self._tail.content)

    def supply_tail(self, content: bytes) -> None:
        """Give the draft the content of the stored tail."""
        tail = self._stored.tail
        if tail is None or not self.lacks_tail:
            return
        self.lacks_tail = False
        self._tail = _Growing(
            ordinal=self._entries - 1,
            id=tail.id,
            type=tail.type,
            time=tail.time,
            dropped_bytes=tail.dropped_bytes,
            names=tail.names,
            content=Content(content),
            revision=tail.revision,
            part_bytes=tail.part_bytes,
            parts=self._tail_parts,
            is_stored=True,
        )

    def release_tail(self) -> None:
        """Release the tail's content if there are no changes. It can be supplied again."""
        if self.is_empty and self._tail is not None:
            self._tail_parts = self._tail.parts
            self._tail = None
            self.lacks_tail = True

    def apply(self, append: Append) -> None:
        """Add the changes of one append.

        Raises ProtocolViolation, and LimitExceeded for an entry that is too long. The changes
        before it in the append have been added then.
        """
        # Without the content the tail would not be sealed, and the digest would stay wrong.
        assert not self.lacks_tail
        if append.open_epoch and append.withdraw_tail:
            raise ProtocolViolation("an append opens an epoch or withdraws the tail, not both")
        if append.open_epoch:
            self._open_epoch()
        elif append.withdraw_tail:
            self._withdraw_tail()
        if append.tail is not None:
            self._change_tail(append.tail)
        for entry in append.entries:
            self._add_entry(entry)

    def next_commit(self, task_id: UUID, fence: int, snapshot_at: datetime | None) -> Commit | None:
        """Turn the changes into a commit. The draft continues as if the commit had been written."""
        changes, self._changes = self._changes, _Changes()
        if not changes.ordered and not changes.sealed_with_parts:
            return None
        base_revision = self._revision
        rows: list[EntryRow] = [tail.row(epoch) for epoch, tail in changes.sealed_with_parts]
        events: list[EpochOpened | TailWithdrawn] = []
        part: TailPart | None = None
        for change in changes.ordered:
            self._revision += 1
            if change.withdrawn is not None:
                events.append(TailWithdrawn(self._revision, change.epoch, *change.withdrawn))
            elif change.entry is None:
                events.append(EpochOpened(self._revision, change.epoch))
            else:
                entry = change.entry
                entry.revision = self._revision
                grown = entry.take_part() if entry is self._tail else None
                if grown is None:
                    changes.drops_parts |= entry.part_bytes > 0
                    entry.parts = entry.part_bytes = 0
                    rows.append(entry.row(change.epoch))
                elif entry.folded is not None:
                    changes.drops_parts = True
                    rows.append(entry.folded)
                part, entry.folded = grown or part, None
                entry.is_stored = True
        head = LogHead(
            epoch=self._epoch,
            entries=self._entries,
            revision=self._revision,
            digest=self._digest,
            bytes=self.total_bytes,
            snapshot_at=snapshot_at,
            tail=None if self._tail is None else self._tail.head(),
            rows=self.total_rows,
        )
        self._stored = head
        return Commit(
            task_id=task_id,
            fence=fence,
            base_revision=base_revision,
            head=head,
            rows=rows,
            part=part,
            drops_parts=changes.drops_parts,
            events=events,
            size_bytes=changes.size_bytes,
        )

    def fold(self) -> tuple[int, EntryRow] | None:
        """Return the revision and the tail as one row; None if the stored tail has no parts."""
        tail = self._tail
        if tail is None or not tail.part_bytes or not self.is_empty:
            return None
        tail.parts = tail.part_bytes = 0
        self._stored = replace(self._stored, tail=tail.head())
        return self._revision, tail.row(self._epoch)

    def _open_epoch(self) -> None:
        self._seal()
        self._epoch += 1
        self._entries = 0
        self._digest = digest.EMPTY
        self._lowest_next_id = 0
        self.total_rows += 1
        self._changes.ordered.append(_Change(self._epoch))

    def _withdraw_tail(self) -> None:
        tail = self._tail
        if tail is None:
            raise ProtocolViolation("there is no tail to withdraw")
        self._forget_change_of(tail)
        if tail.is_stored:
            change = _Change(self._epoch, withdrawn=(tail.ordinal, tail.id, tail.type))
            self._changes.ordered.append(change)
        else:
            self.total_rows -= 1  # a stored entry is replaced by its withdrawal: also a row
        self._changes.drops_parts |= tail.part_bytes > 0
        self._entries -= 1
        self.total_bytes -= len(tail.content)
        self._lowest_next_id = tail.id
        self._tail = None

    def _change_tail(self, change: TailChange) -> None:
        tail = self._tail
        if tail is None or tail.id != change.id:
            raise ProtocolViolation(f"entry {change.id} is not the tail")
        before, is_first = len(tail.content), not self._is_last_change(tail)
        if is_first:
            tail.fold_early(self._epoch)
        try:
            tail.grow(change, is_first=is_first)
        except ResultTooLong:
            raise _too_long(tail.id) from None
        except DeltaError as error:
            raise ProtocolViolation(f"the delta of entry {tail.id} {error}") from None
        self.total_bytes += len(tail.content) - before
        tail.time = change.time
        self._note_change_of(tail)
        self._changes.size_bytes += change.delta.cost_bytes

    def _add_entry(self, entry: Entry) -> None:
        if self._epoch == 0:
            raise ProtocolViolation("the first entries of a task open an epoch")
        if len(entry.content) > MAX_CONTENT_BYTES:
            raise _too_long(entry.id)
        tail = self._tail
        if tail is not None and entry.id == tail.id:
            self._replace_tail(tail, entry)
        elif entry.id < (self._lowest_next_id if tail is None else tail.id):
            raise ProtocolViolation(f"entry {entry.id} is out of order or sealed")
        else:
            self._seal()
            self._tail = _Growing(
                ordinal=self._entries,
                id=entry.id,
                type=entry.type,
                time=entry.time,
                dropped_bytes=entry.dropped_bytes,
                names=entry.names,
                content=Content(entry.content),
            )
            self._entries += 1
            self.total_rows += 1
            self.total_bytes += len(entry.content)
            self._changes.ordered.append(_Change(self._epoch, entry=self._tail))
        self._changes.size_bytes += len(entry.content)

    def _replace_tail(self, tail: _Growing, entry: Entry) -> None:
        if entry.type != tail.type:
            raise ProtocolViolation(f"entry {entry.id} changes its type")
        if entry.names != tail.names:
            raise ProtocolViolation(f"entry {entry.id} changes its source_id, name or call_id")
        self.total_bytes += len(entry.content) - len(tail.content)
        tail.time = entry.time
        tail.dropped_bytes = entry.dropped_bytes
        tail.replace_content(entry.content)
        self._note_change_of(tail)

    def _seal(self) -> None:
        tail = self._tail
        if tail is None:
            return
        if tail.part_bytes and not any(one.entry is tail for one in self._changes.ordered):
            self._changes.sealed_with_parts.append((self._epoch, tail))
            self._changes.drops_parts = True
            tail.part_bytes = 0
        hash_ = digest.content_hash(tail.content.data)
        self._digest = digest.advance(
            self._digest, tail.id, tail.type, tail.time, hash_, tail.names
        )
        self._tail = None

    def _is_last_change(self, tail: _Growing) -> bool:
        return bool(self._changes.ordered) and self._changes.ordered[-1].entry is tail

    def _note_change_of(self, tail: _Growing) -> None:
        """Add the tail to the changes, unless it already is the last of them."""
        if not self._is_last_change(tail):
            self._changes.ordered.append(_Change(self._epoch, entry=tail))

    def _forget_change_of(self, tail: _Growing) -> None:
        if self._is_last_change(tail):
            self._changes.ordered.pop()


def _too_long(entry_id: int) -> LimitExceeded:
    return LimitExceeded(
        Limit.ENTRY_BYTES, f"entry {entry_id}", f"at most {MAX_CONTENT_BYTES} bytes", None
    )
