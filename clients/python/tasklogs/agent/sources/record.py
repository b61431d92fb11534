"""What a line of a transcript says: one entry, or that another conversation begins."""

from __future__ import annotations

from dataclasses import dataclass

from tasklogs.log.entry import NO_NAMES, EntryType, Names, Time


@dataclass(frozen=True, slots=True)
class Record:
    """One entry as the transcript has it.

    time: None if the transcript has none.
    replaces: it is the last entry again, if that has the same type and names.
    grows: when it was shown first, it may have been shorter. It has no time.
    """

    type: EntryType
    content: str
    time: Time | None = None
    names: Names = NO_NAMES
    replaces: bool = False
    grows: bool = False


class NewEpoch:
    """Another conversation begins."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A line, or a part of one, that is no entry. `kind` is its type in the transcript."""

    kind: str


Found = Record | NewEpoch | LeftOut
