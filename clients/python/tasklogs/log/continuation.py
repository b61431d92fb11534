"""Does the conversation go on? The task app's whole list against where the store stands."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from tasklogs.log import digest
from tasklogs.log.entry import Entry, EntryType, Time


@dataclass(frozen=True, slots=True)
class StoredTail:
    """The stored tail as `Welcome` tells it.

    The content is known by its length (bytes) and SHA-256.
    """

    id: int
    type: EntryType
    time: Time
    content_bytes: int
    content_sha256: bytes
    dropped_bytes: int = 0

    @classmethod
    def of(cls, entry: Entry) -> StoredTail:
        """Describe `entry` as a stored tail."""
        return cls(
            entry.id,
            entry.type,
            entry.time,
            len(entry.content),
            digest.content_hash(entry.content),
            entry.dropped_bytes,
        )

    def is_extended_by(self, entry: Entry) -> bool:
        """Whether the content of `entry` begins with what is stored, or is the same.

        False, too, where truncation has moved between the two: the stored front is then gone.
        """
        return (
            entry.dropped_bytes == self.dropped_bytes
            and len(entry.content) >= self.content_bytes
            and digest.content_hash(entry.content[: self.content_bytes]) == self.content_sha256
        )


@dataclass(frozen=True, slots=True)
class Position:
    """Where the store stands in a task's current epoch.

    Epoch 0: nothing was ever stored. `digest` covers the sealed entries. Without a `tail` all
    `entries` are sealed: the epoch is empty, or its tail was withdrawn (what was sealed once stays
    so).
    """

    epoch: int = 0
    entries: int = 0
    digest: bytes = digest.EMPTY
    tail: StoredTail | None = None

    @property
    def sealed(self) -> int:
        """How many entries never change again."""
        return self.entries if self.tail is None else self.entries - 1


class Verdict(enum.Enum):
    """What a whole list is to the stored epoch."""

    CONTINUES = enum.auto()
    """The epoch goes on: its tail may have changed, entries may follow."""
    WITHDRAWS_TAIL = enum.auto()
    """The stored tail is no longer part of it; entries may follow."""
    OPENS_EPOCH = enum.auto()
    """Another conversation."""


def compare(entries: Sequence[Entry], stored: Position, *, restarted: bool) -> Verdict:
    """Decide what the task app's whole list is to the stored epoch.

    `restarted`: whether the task app may have restarted since the stored tail was last taken from
    it. A task app that has not may rewrite its tail at will (a terminal that redraws) and withdraw
    it; one that has may show an older save, which must not pass for a continuation.
    """
    if stored.epoch == 0:
        return Verdict.OPENS_EPOCH
    sealed = stored.sealed
    if len(entries) < sealed or digest.seal_all(entries[:sealed]) != stored.digest:
        return Verdict.OPENS_EPOCH
    tail = stored.tail
    if tail is None:
        return Verdict.CONTINUES
    if len(entries) == sealed or entries[sealed].id > tail.id:
        return Verdict.OPENS_EPOCH if restarted else Verdict.WITHDRAWS_TAIL
    if _is_tail(entries[sealed], tail, restarted=restarted):
        return Verdict.CONTINUES
    return Verdict.OPENS_EPOCH


def _is_tail(entry: Entry, tail: StoredTail, *, restarted: bool) -> bool:
    if entry.id != tail.id or entry.type != tail.type or entry.time < tail.time:
        return False
    # An equal time proves nothing: over ACP an answer keeps its time while it grows, and what is
    # stored of it must not be overwritten by an older save.
    return not restarted or tail.is_extended_by(entry)
