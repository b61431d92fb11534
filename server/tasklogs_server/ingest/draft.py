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
from tasklogs.log.delta import DeltaError, ResultTooLong
from tasklogs.log.entry import Entry
from tasklogs.log.truncation import MAX_CONTENT_BYTES
from tasklogs_server.domain.errors import LimitExceeded, ProtocolViolation
from tasklogs_server.domain.limits import Limit
from tasklogs_server.ingest.growing_entry import GrowingEntry
from tasklogs_server.store.records import (
    Commit,
    EntryRow,
    EpochOpened,
    LogHead,
    TailPart,
    TailWithdrawn,
)


@dataclass(slots=True)
class _Change:
    """One change, which gets one revision: an entry, a withdrawal or a new epoch."""

    epoch: int
    entry: GrowingEntry | None = None
    withdrawn: tuple[int, int, int] | None = None
    """Ordinal, id and type."""


@dataclass(slots=True)
class _Changes:
    """The changes since the last commit, in the order in which they get revisions."""

    ordered: list[_Change] = field(default_factory=list)
    sealed_with_parts: list[tuple[int, GrowingEntry]] = field(default_factory=list)
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
        self._tail: GrowingEntry | None = None
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
        """About how many bytes of content and text the changes have."""
        return self._changes.size_bytes

    def size_bytes_after(self, append: Append) -> int:
        """Return the most that `size_bytes` is after this append."""
        replaced = self._replaced_bytes(append.entries[0]) if append.entries else 0
        return self._changes.size_bytes + append.content_bytes - replaced

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
        self._tail = GrowingEntry(
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
        folded_bytes = sum(len(row.content) for row in rows)
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
                    if entry.part_bytes:
                        changes.drops_parts = True
                        folded_bytes += len(entry.content)
                    entry.parts = entry.part_bytes = 0
                    rows.append(entry.row(change.epoch))
                elif entry.folded is not None:
                    changes.drops_parts = True
                    rows.append(entry.folded)
                    folded_bytes += len(entry.folded.content)
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
            generation=self._stored.generation,
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
            size_bytes=changes.size_bytes + folded_bytes,
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
        self._changes.size_bytes += len(entry.content)
        if tail is not None and entry.id == tail.id:
            self._changes.size_bytes -= self._replaced_bytes(entry)
            self._replace_tail(tail, entry)
        elif entry.id < (self._lowest_next_id if tail is None else tail.id):
            raise ProtocolViolation(f"entry {entry.id} is out of order or sealed")
        else:
            self._seal()
            self._tail = GrowingEntry(
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

    def _replaced_bytes(self, entry: Entry) -> int:
        """Return how many bytes of the changes `entry` replaces: those of the same whole tail."""
        tail = self._tail
        if tail is None or tail.id != entry.id or tail.kept_bytes is not None:
            return 0
        # The tail may have copied parts of itself, which were not counted.
        return min(len(tail.content), self.size_bytes) if self._is_last_change(tail) else 0

    def _replace_tail(self, tail: GrowingEntry, entry: Entry) -> None:
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

    def _is_last_change(self, tail: GrowingEntry) -> bool:
        return bool(self._changes.ordered) and self._changes.ordered[-1].entry is tail

    def _note_change_of(self, tail: GrowingEntry) -> None:
        """Add the tail to the changes, unless it already is the last of them."""
        if not self._is_last_change(tail):
            self._changes.ordered.append(_Change(self._epoch, entry=tail))

    def _forget_change_of(self, tail: GrowingEntry) -> None:
        if self._is_last_change(tail):
            self._changes.ordered.pop()


def _too_long(entry_id: int) -> LimitExceeded:
    return LimitExceeded(
        Limit.ENTRY_BYTES, f"entry {entry_id}", f"at most {MAX_CONTENT_BYTES} bytes", None
    )
