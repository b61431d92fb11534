"""A change of a log on its way from an agent to the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from tasklogs.log.delta import Delta
from tasklogs.log.entry import Entry, Time


@dataclass(frozen=True, slots=True)
class TailChange:
    """The tail `id` grew or was rewritten: a delta to what this session sent of it before.

    `crc32`: that of the resulting content. None: it is not checked. An agent always sends it.
    """

    id: int
    time: Time
    delta: Delta
    crc32: int | None = None


@dataclass(frozen=True)
class Append:
    """A change of the log; its parts apply in the order of the fields."""

    sequence: int = 0
    """Its number in the session, from 1; 0: not numbered yet."""
    open_epoch: bool = False
    withdraw_tail: bool = False
    tail: TailChange | None = None
    entries: Sequence[Entry] = ()
    waited_seconds: float = 0.0
    """How long the oldest of these changes had waited at the agent before it was sent."""

    # The server asks twice, and an append may have hundreds of entries.
    @cached_property
    def content_bytes(self) -> int:
        """The most that it adds to the log's content; less where it replaces some."""
        added = 0 if self.tail is None else self.tail.delta.most_added_bytes
        return added + sum(len(entry.content) for entry in self.entries)

    @property
    def most_rows(self) -> int:
        """The most rows that it adds to the stored log."""
        return len(self.entries) + self.open_epoch + self.withdraw_tail

    def parts(self, most_entries: int) -> Sequence[Append]:
        """Split it into appends with at most so many entries each, which apply in this order."""
        if len(self.entries) <= most_entries:
            return [self]
        first = replace(self, entries=self.entries[:most_entries])
        others = (
            Append(
                sequence=self.sequence,
                entries=self.entries[begin : begin + most_entries],
                waited_seconds=self.waited_seconds,
            )
            for begin in range(most_entries, len(self.entries), most_entries)
        )
        return [first, *others]
