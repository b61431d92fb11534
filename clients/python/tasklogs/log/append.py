"""A change of a log on its way from an agent to the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

from tasklogs.log.delta import Delta
from tasklogs.log.entry import NO_NAMES, Entry, Time


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

    @cached_property
    def size_bytes(self) -> int:
        """Like `content_bytes`, with the names of the entries: what it takes to send and hold."""
        return self.content_bytes + sum(
            entry.names.size_bytes for entry in self.entries if entry.names is not NO_NAMES
        )

    @property
    def most_rows(self) -> int:
        """The most rows that it adds to the stored log."""
        return len(self.entries) + self.open_epoch + self.withdraw_tail

    def parts(self, most_entries: int, most_bytes: int) -> Sequence[Append]:
        """Split it into appends which apply in this order.

        Each has at most `most_entries` entries, and at most `most_bytes` of their content and
        names unless it has one entry only.
        """
        if len(self.entries) <= most_entries and self.size_bytes <= most_bytes:
            return [self]
        cuts = self._cuts(most_entries, most_bytes)
        if not cuts:
            return [self]
        first = replace(self, entries=self.entries[: cuts[0]])
        others = (
            Append(
                sequence=self.sequence,
                entries=self.entries[begin:end],
                waited_seconds=self.waited_seconds,
            )
            for begin, end in pairwise([*cuts, len(self.entries)])
        )
        return [first, *others]

    def _cuts(self, most_entries: int, most_bytes: int) -> Sequence[int]:
        cuts: list[int] = []
        begin = size_bytes = 0
        for index, entry in enumerate(self.entries):
            size_bytes += entry.size_bytes
            if index - begin == most_entries or (size_bytes > most_bytes and index > begin):
                cuts.append(index)
                begin, size_bytes = index, entry.size_bytes
        return cuts
