"""An entry that a program writes: what the program says of it, before it is in a log."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from tasklogs.enums import TaskLogType
from tasklogs.log import entry as log_entry
from tasklogs.log.entry import MAX_NAME_BYTES, EntryType, Names, Time
from tasklogs.log.text import to_utf8

_TYPES = frozenset(map(int, EntryType))
_1970 = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One message to write. `time` None: now.

    `content` may have any text. Of more than 1 MiB (UTF-8) the log keeps the end, and says in
    `dropped_bytes` how much it dropped. Lone surrogates become U+FFFD. Each name has at most 255
    bytes of UTF-8. Raises ValueError for a longer name, a time without a time zone, and a type that
    is not one of TaskLogType.
    """

    type: TaskLogType
    content: str = ""
    time: datetime | None = None
    source_id: str = ""
    """The message's id in the program that writes it."""
    name: str = ""
    """The tool's name, for TOOL_CALL and TOOL_RESULT."""
    call_id: str = ""
    """Joins a tool's result to its call: both have the same `call_id`."""

    def __post_init__(self) -> None:
        if int(self.type) not in _TYPES:
            raise ValueError(f"an entry cannot have the type {self.type!r}")
        if self.time is not None and self.time.tzinfo is None:
            raise ValueError("`time` has no time zone")
        for field, name in zip(Names._fields, self._names, strict=True):
            if len(to_utf8(name)) > MAX_NAME_BYTES:
                raise ValueError(f"`{field}` is longer than {MAX_NAME_BYTES} bytes")

    @classmethod
    def input(cls, content: str = "", *, time: datetime | None = None) -> Entry:
        """Return what a user said."""
        return cls(type=TaskLogType.INPUT, content=content, time=time)

    @classmethod
    def output(cls, content: str = "", *, time: datetime | None = None) -> Entry:
        """Return what the agent said."""
        return cls(type=TaskLogType.OUTPUT, content=content, time=time)

    @classmethod
    def tool_call(
        cls, name: str, content: str = "", *, call_id: str = "", time: datetime | None = None
    ) -> Entry:
        """Return a call of the tool `name`; `content` is its arguments."""
        return cls(
            type=TaskLogType.TOOL_CALL, name=name, content=content, call_id=call_id, time=time
        )

    @classmethod
    def tool_result(
        cls, name: str, content: str = "", *, call_id: str = "", time: datetime | None = None
    ) -> Entry:
        """Return what the tool `name` returned."""
        return cls(
            type=TaskLogType.TOOL_RESULT, name=name, content=content, call_id=call_id, time=time
        )

    @classmethod
    def notice(cls, content: str, *, time: datetime | None = None) -> Entry:
        """Return what is neither said nor done, for example that a conversation was compacted."""
        return cls(type=TaskLogType.NOTICE, content=content, time=time)

    def with_source_id(self, source_id: str) -> Entry:
        """Return the entry with another `source_id`."""
        return replace(self, source_id=source_id)

    @property
    def _names(self) -> Names:
        return Names(self.source_id, self.name, self.call_id)


def type_of(entry: Entry) -> EntryType:
    """Return the type in the log's own words."""
    return EntryType(int(entry.type))


def names_of(entry: Entry) -> Names:
    """Return the names, without lone surrogates."""
    names = (entry.source_id, entry.name, entry.call_id)
    return Names(*(to_utf8(name).decode() for name in names))


def time_of(entry: Entry, now: Time) -> Time:
    """Return the entry's time, to the microsecond; `now` if it has none."""
    return now if entry.time is None else time_from(entry.time)


def time_from(moment: datetime) -> Time:
    """Return a datetime with a time zone as a Time."""
    since = moment - _1970
    return Time(since.days * 86400 + since.seconds, since.microseconds * 1000)


def in_log(entry: Entry, entry_id: int, now: Time) -> log_entry.Entry:
    """Return `entry` as an entry of a log, truncated."""
    from tasklogs.log.truncation import truncate

    dropped, content = truncate(to_utf8(entry.content))
    return log_entry.Entry(
        entry_id, type_of(entry), time_of(entry, now), content, dropped, names_of(entry)
    )
