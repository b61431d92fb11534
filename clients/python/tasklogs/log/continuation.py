"""Decides whether the task app's list continues the stored epoch."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from tasklogs.log import digest
from tasklogs.log.entry import NO_NAMES, Entry, Names, Time


@dataclass(frozen=True, slots=True)
class StoredTail:
    """The stored tail as `Welcome` describes it.

    Only the length in bytes and the SHA-256 of the content are known. `type` is one of EntryType,
    or the number of a type that this version does not know.
    """

    id: int
    type: int
    time: Time
    content_bytes: int
    content_sha256: bytes
    dropped_bytes: int = 0
    names: Names = NO_NAMES

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
            entry.names,
        )

    def is_extended_by(self, entry: Entry) -> bool:
        """Whether the content of `entry` begins with the stored content, or equals it.

        False, too, if more was truncated since: `entry` then lacks the stored front.
        """
        return (
            entry.dropped_bytes == self.dropped_bytes
            and len(entry.content) >= self.content_bytes
            and digest.content_hash(entry.content[: self.content_bytes]) == self.content_sha256
        )


@dataclass(frozen=True, slots=True)
class Position:
    """What the store has of a task's current epoch.

    Epoch 0: nothing was ever stored. `digest` is that of the sealed entries. Without a `tail` all
    `entries` are sealed: the epoch is empty, or its tail was withdrawn (a sealed entry stays
    sealed).
    """

    epoch: int = 0
    entries: int = 0
    digest: bytes = digest.EMPTY
    tail: StoredTail | None = None

    @property
    def sealed(self) -> int:
        """How many entries are sealed: they never change again."""
        return self.entries if self.tail is None else self.entries - 1


class Verdict(enum.Enum):
    """How a whole list relates to the stored epoch."""

    CONTINUES = enum.auto()
    """It continues the epoch: the tail may have changed, and entries may follow."""
    WITHDRAWS_TAIL = enum.auto()
    """It continues the epoch without the stored tail; entries may follow."""
    OPENS_EPOCH = enum.auto()
    """It is another conversation."""


def compare(
    entries: Sequence[Entry],
    stored: Position,
    *,
    restarted: bool,
    seal_all: Callable[[Sequence[Entry]], bytes] = digest.seal_all,
) -> Verdict:
    """Decide how the task app's whole list relates to the stored epoch.

    `restarted`: whether the task app may have restarted since it showed the stored tail. If it has
    not, it may rewrite its tail (a terminal that redraws) and withdraw it. If it has, it may show
    an older saved state, which must not be taken for a continuation. `seal_all` returns the digest
    of entries, for a caller that knows it already.
    """
    if stored.epoch == 0:
        return Verdict.OPENS_EPOCH
    sealed = stored.sealed
    if len(entries) < sealed or seal_all(entries[:sealed]) != stored.digest:
        return Verdict.OPENS_EPOCH
    tail = stored.tail
    if tail is None:
        return Verdict.CONTINUES
    if len(entries) == sealed or entries[sealed].id > tail.id:
        return Verdict.OPENS_EPOCH if restarted else Verdict.WITHDRAWS_TAIL
    if _is_tail(entries[sealed], tail, restarted=restarted):
        return Verdict.CONTINUES
    return Verdict.OPENS_EPOCH


def compare_rest(
    rest: Sequence[Entry],
    stored: Position,
    skipped: int,
    skipped_digest: bytes,
    *,
    restarted: bool,
) -> Verdict:
    """Decide as `compare` does, on a list whose first `skipped` entries are known by their digest.

    If these are all that is stored, the stored tail counts as sealed: the list goes on after it.
    """
    if skipped == stored.entries and stored.tail is not None:
        stored = Position(stored.epoch, stored.entries, digest_with_tail(stored))
    if stored.epoch == 0 or skipped > stored.sealed:
        return Verdict.OPENS_EPOCH
    return compare(
        rest,
        replace(stored, entries=stored.entries - skipped),
        restarted=restarted,
        seal_all=partial(digest.seal_on, skipped_digest),
    )


def digest_with_tail(stored: Position) -> bytes:
    """Return the digest of all stored entries, the tail included."""
    tail = stored.tail
    if tail is None:
        return stored.digest
    return digest.advance(
        stored.digest, tail.id, tail.type, tail.time, tail.content_sha256, tail.names
    )


def _is_tail(entry: Entry, tail: StoredTail, *, restarted: bool) -> bool:
    if (entry.id, entry.type, entry.names) != (tail.id, tail.type, tail.names):
        return False
    if entry.time < tail.time:
        return False
    # An equal time proves nothing: over ACP an answer keeps its time while it grows, and an older
    # saved state must not overwrite what is stored of it.
    return not restarted or tail.is_extended_by(entry)
