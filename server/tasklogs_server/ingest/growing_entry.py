"""An entry that a session writes: its whole content, and what of it is stored as parts. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from tasklogs.log.append import TailChange
from tasklogs.log.content import Content
from tasklogs.log.delta import Delta, compose, shorter
from tasklogs.log.entry import Names, Time
from tasklogs_server.store.records import EntryRow, TailHead, TailPart
from tasklogs_server.wire.entries import encode_head

# A tail is folded into one row when it is sealed, or when its parts exceed this multiple of its
# content (for example, a screen that is redrawn for hours). If every few parts were folded, most of
# the WAL would come from folds.
_FOLD_AT_MULTIPLE = 4
_FOLD_AT_LEAST_BYTES = 256 * 1024
# A reader needs 6 us for each part, whatever its size. So a tail is also folded when it has this
# many parts. A longer content may have more of them, one for each 512 bytes: a fold writes the
# content, so folds add 512 bytes of WAL to each part at most. That is less than its commit writes.
_FOLD_AT_PARTS = 1000
_CONTENT_BYTES_PER_PART = 512
# To apply a part that does more than keep a prefix, a reader copies the content. A byte of that
# costs this part of what a byte of text costs, which Postgres sends.
_COPIED_BYTES_PER_COST_BYTE = 16


@dataclass(slots=True)
class GrowingEntry:
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
        """Return the whole entry as a row of this epoch."""
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
        """Take another content, which is stored as a whole."""
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
        """Return the entry as the tail of the log's head."""
        return TailHead(
            self.id,
            self.type,
            self.time,
            self.revision,
            self.dropped_bytes,
            self.part_bytes,
            self.names,
        )
