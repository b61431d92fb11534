"""The events of a follow, before they are encoded."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from tasklogs.log.delta import Delta
from tasklogs_server.domain.errors import LogCorrupt
from tasklogs_server.domain.status import StatusDetail
from tasklogs_server.store.log_changes import EntriesChanged
from tasklogs_server.store.records import EpochOpened, TailHead, TailWithdrawn
from tasklogs_server.wire.entries import EncodedEntry, encode_head, split_entries


@dataclass(frozen=True, slots=True)
class StatusChanged:
    """The task's status. It is sent first, and again whenever the task's facts change.

    `task_id` is set in the first message of a follow.
    """

    detail: StatusDetail
    task_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class TailSent:
    """The tail as it is now, and, if known, the delta from revision `base_revision`.

    `crc32`: that of the content. None: it is not computed yet.
    """

    epoch: int
    head: TailHead
    content: bytes
    base_revision: int | None
    delta: Delta | None
    crc32: int | None = None

    @property
    def revision(self) -> int:
        """The revision of the tail's last change."""
        return self.head.revision

    @property
    def encoded(self) -> bytes:
        """The whole entry, encoded as the field `logs`."""
        head = self.head
        return (
            encode_head(
                head.id,
                head.type,
                head.time,
                head.revision,
                head.dropped_bytes,
                len(self.content),
                head.names,
            )
            + self.content
        )


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """Everything that the log held when the follow began has been sent."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Everything up to the cursor has been sent."""


LogEvent = EntriesChanged | TailSent | EpochOpened | TailWithdrawn
FollowEvent = LogEvent | StatusChanged | CaughtUp | Progress


def content_bytes(event: LogEvent) -> int:
    """Return the bytes of the entries that an event holds."""
    match event:
        case EntriesChanged():
            return len(event.encoded) + len(event.tail_content or b"")
        case TailSent():
            return len(event.content)
        case TailWithdrawn() | EpochOpened():
            return 0


def event_of_types(event: LogEvent, types: Collection[int]) -> LogEvent | None:
    """Return what is left of `event` for a follow of these types only; None: nothing.

    Raises LogCorrupt if an entry cannot be decoded.
    """
    match event:
        case EntriesChanged():
            return _entries_of_types(event, types)
        case TailSent():
            return event if event.head.type in types else None
        case TailWithdrawn():
            # The type of an old withdrawal is unknown. To withdraw what was not sent does no harm.
            return event if event.type is None or event.type in types else None
        case EpochOpened():
            return event


def parts_of(event: EntriesChanged, most_bytes: int) -> Sequence[EntriesChanged]:
    """Split `event` into events of about `most_bytes` bytes at most, or one entry.

    Raises LogCorrupt if an entry cannot be decoded.
    """
    event = replace(event, tail_content=None)
    parts: list[EntriesChanged] = []
    run: list[EncodedEntry] = []
    size_bytes = 0
    for entry in _split(event):
        size_bytes += len(entry.encoded)
        if run and size_bytes > most_bytes:
            parts.append(_joined(event, run))
            run, size_bytes = [], len(entry.encoded)
        run.append(entry)
    return [*parts, _joined(event, run)]


def _split(event: EntriesChanged) -> Sequence[EncodedEntry]:
    try:
        return list(split_entries(event.encoded))
    except IndexError as error:
        raise LogCorrupt from error


def _joined(event: EntriesChanged, entries: Sequence[EncodedEntry]) -> EntriesChanged:
    last = entries[-1]
    encoded = b"".join(one.encoded for one in entries)
    return replace(event, encoded=encoded, last_id=last.id, revision=last.revision)


def _entries_of_types(event: EntriesChanged, types: Collection[int]) -> EntriesChanged | None:
    entries = _split(event)
    of_types = [one for one in entries if one.type in types]
    if len(of_types) == len(entries):
        return event  # not a copy
    if not of_types:
        return None
    return _joined(event, of_types)
