"""What a line of a transcript says: one entry, or that another conversation begins."""

from __future__ import annotations

from dataclasses import dataclass

from tasklogs.log.entry import NO_NAMES, EntryType, Names, Time


@dataclass(frozen=True, slots=True)
class Record:
    """One entry as the transcript has it.

    time: None if the transcript has none.
    replaces: it is the last entry again, if that has the same type and names.
    extends: it is more text of the last entry, if that has the same type and names. What `--redact`
        matches may be in two such pieces: with `--redact`, send a text when it is complete.
    grows: what is stored of it may be its beginning. It has no time.
    """

    type: EntryType
    content: str
    time: Time | None = None
    names: Names = NO_NAMES
    replaces: bool = False
    extends: bool = False
    grows: bool = False


class NewEpoch:
    """Another conversation begins."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A line, or a part of one, that is no entry. `kind` is its type in the transcript."""

    kind: str


Found = Record | NewEpoch | LeftOut
