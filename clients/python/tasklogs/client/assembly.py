"""Turns the messages of a follow's streams into events: applies deltas, leaves out repeats.

Pure: no connection, no waiting.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

from google.protobuf.message import DecodeError

from tasklogs import compression, delta_codec
from tasklogs.client import decode
from tasklogs.client.entry import LogEntry
from tasklogs.client.events import (
    CaughtUp,
    EntriesChanged,
    EntryChange,
    EntryWithdrawn,
    EpochStarted,
    FollowEvent,
    Progress,
    StatusChanged,
)
from tasklogs.connection.channel import MAX_MESSAGE_BYTES
from tasklogs.enums import TaskStatus
from tasklogs.log.content import Content
from tasklogs.log.delta import MAX_PIECES, Delta, DeltaError, common_text
from tasklogs.log.text import is_boundary
from tasklogs.v1 import task_logs_pb2, types_pb2

Response: TypeAlias = task_logs_pb2.FollowTaskLogsResponse

_MAX_ENTRY_BYTES = MAX_MESSAGE_BYTES
"""The limit of an entry: a stream that makes it grow without end must not fill the memory."""


class WrongDelta(Exception):
    """A delta does not fit what this stream sent, or a compressed message cannot be expanded.

    So the stream cannot be trusted.
    """


@dataclass(slots=True)
class _Tail:
    """The last entry that was yielded: the only one that may still change."""

    epoch: int
    entry: LogEntry
    content: Content
    sent_by_stream: bool
    """Whether the current stream has sent it, so that its deltas can be applied to it."""


class Assembly:
    """What one follow has yielded, over all of its streams.

    `cursor` is that of the last message; None before the first.
    """

    def __init__(self) -> None:
        self.cursor: str | None = None
        self._status: tuple[TaskStatus, bytes] | None = None
        self._caught_up = False
        # Revisions only increase, so this number is enough to recognize a repeat.
        self._revision = 0
        self._tail: _Tail | None = None

    def stream_opened(self) -> None:
        """A new stream begins. Its deltas do not build on what an earlier one sent."""
        if self._tail is not None:
            self._tail.sent_by_stream = False

    def apply(self, message: Response) -> FollowEvent | None:
        """Return the event of `message`; None if it has nothing new.

        Raises WrongDelta, and then changes nothing.
        """
        cursor = self._cursor_of(message)
        event = self._event(_expanded(message), cursor)
        self.cursor = cursor or None
        return event

    def _cursor_of(self, message: Response) -> str:
        known, end = self.cursor or "", message.cursor_end
        if message.cursor or not end:
            return message.cursor or known
        if len(end) > len(known):
            raise WrongDelta("a cursor is only an end, and none came before")
        return known[: len(known) - len(end)] + end

    def _event(self, message: Response, cursor: str) -> FollowEvent | None:
        match message.WhichOneof("event"):
            case "status":
                return self._status_changed(message.status, cursor)
            case "entries":
                return self._entries(message.entries, cursor)
            case "delta":
                return self._delta(message.delta, cursor)
            case "entry_withdrawn":
                withdrawn = message.entry_withdrawn
                return self._withdrawn(withdrawn, cursor)
            case "epoch_started":
                started = message.epoch_started
                if not self._is_new(started.revision):
                    return None
                self._tail = None
                return EpochStarted(cursor=cursor, epoch=started.epoch, revision=started.revision)
            case "caught_up":
                if self._caught_up:
                    return None
                self._caught_up = True
                return CaughtUp(cursor=cursor)
            case "progress":
                return Progress(cursor=cursor)
            case "compressed" | None:
                # An event of a newer server. Its cursor is used all the same.
                return None

    def _status_changed(
        self, message: task_logs_pb2.StatusChanged, cursor: str
    ) -> StatusChanged | None:
        status = TaskStatus(message.status)
        seen = (status, message.status_detail.SerializeToString(deterministic=True))
        if seen == self._status:
            return None
        self._status = seen
        return StatusChanged(
            cursor=cursor,
            status=status,
            detail=decode.status_detail(message.status_detail),
            task_id=message.task_id or None,
        )

    def _entries(self, message: task_logs_pb2.Entries, cursor: str) -> EntriesChanged | None:
        changes = tuple(
            change
            for entry in message.logs
            if (change := self._whole(message.epoch, entry)) is not None
        )
        return (
            EntriesChanged(cursor=cursor, epoch=message.epoch, changes=changes) if changes else None
        )

    def _whole(self, epoch: int, message: types_pb2.TaskLogEntry) -> EntryChange | None:
        tail = self._tail_with(epoch, message.id)
        if not self._is_new(message.revision):
            # It is a repeat, but the next delta may build on it.
            if (
                tail is not None
                and tail.entry.revision == message.revision
                and tail.entry.content == message.content
            ):
                tail.sent_by_stream = True
            return None
        entry = decode.entry(message)
        content = message.content.encode()
        self._tail = _Tail(epoch, entry, Content(content), sent_by_stream=True)
        if tail is None:
            return EntryChange(entry=entry, appended=entry.content)
        return _change(tail.entry, bytes(tail.content.data), entry, content)

    def _delta(self, message: task_logs_pb2.EntryDelta, cursor: str) -> EntriesChanged | None:
        if message.revision <= self._revision:
            return None
        tail = self._tail_with(message.epoch, message.id)
        if tail is None or not tail.sent_by_stream or tail.entry.revision != message.base_revision:
            raise WrongDelta(
                f"a delta for entry {message.id} of epoch {message.epoch} builds on revision"
                f" {message.base_revision}, which is not what this stream sent last"
            )
        before = tail.entry
        delta, crc32 = _content_delta(message)
        appends = delta.is_prefix and delta.kept_bytes == len(tail.content)
        replaced = b"" if appends else bytes(tail.content.data)
        try:
            tail.content.patch(delta, crc32=crc32, limit_bytes=_MAX_ENTRY_BYTES)
        except DeltaError as error:
            raise WrongDelta(f"a delta for entry {message.id} {error}") from error
        text = delta.pieces[0].text.decode() if appends else ""
        self._revision = message.revision
        has_time = message.HasField("time")
        tail.entry = replace(
            before,
            content=before.content + text if appends else tail.content.data.decode(),
            time_ns=decode.nanoseconds(message.time) if has_time else before.time_ns,
            revision=message.revision,
        )
        if appends:
            change = EntryChange(
                entry=tail.entry,
                replaces=before.revision,
                kept=len(before.content),
                appended=text,
            )
        else:
            change = _change(before, replaced, tail.entry, bytes(tail.content.data))
        return EntriesChanged(cursor=cursor, epoch=message.epoch, changes=(change,))

    def _withdrawn(
        self, message: task_logs_pb2.EntryWithdrawn, cursor: str
    ) -> EntryWithdrawn | None:
        if not self._is_new(message.revision):
            return None
        self._tail = None
        return EntryWithdrawn(
            cursor=cursor, epoch=message.epoch, id=message.id, revision=message.revision
        )

    def _tail_with(self, epoch: int, entry_id: int) -> _Tail | None:
        tail = self._tail
        if tail is None or (tail.epoch, tail.entry.id) != (epoch, entry_id):
            return None
        return tail

    def _is_new(self, revision: int) -> bool:
        if revision <= self._revision:
            return False
        self._revision = revision
        return True


def _expanded(message: Response) -> Response:
    """Return the message that `message` has inside, or `message`. Raises WrongDelta."""
    if not message.HasField("compressed"):
        return message
    try:
        inside = Response.FromString(compression.expanded(message.compressed))
    except (compression.CannotExpand, DecodeError) as error:
        raise WrongDelta(f"a compressed message {error}") from None
    if inside.HasField("compressed"):
        raise WrongDelta("a compressed message has a compressed message inside")
    return inside


def _content_delta(message: task_logs_pb2.EntryDelta) -> tuple[Delta, int]:
    """Return the delta and the checksum of its result. Raises WrongDelta if it is incomplete."""
    if message.WhichOneof("form") != "content":
        raise WrongDelta(f"a delta for entry {message.id} has a form that is not known here")
    content = message.content
    if not content.HasField("crc32"):
        raise WrongDelta(f"a delta for entry {message.id} has no checksum")
    if not 1 <= len(content.pieces) <= MAX_PIECES:
        raise WrongDelta(f"a delta for entry {message.id} has {len(content.pieces)} pieces")
    return delta_codec.decode(content), content.crc32


def _change(before: LogEntry, replaced: bytes, entry: LogEntry, content: bytes) -> EntryChange:
    """Return how an entry differs from what was yielded of it before.

    `replaced` and `content` are the encoded contents of `before` and `entry`.
    """
    lost = entry.dropped_bytes - before.dropped_bytes
    if 0 <= lost <= len(replaced) and is_boundary(replaced, lost):
        # An entry of more than 1 MiB loses its front, but its growth may still be an append.
        stays = len(replaced) - lost
        if content.startswith(memoryview(replaced)[lost:]):
            kept = 0 if lost else len(before.content)
            return EntryChange(
                entry=entry,
                replaces=before.revision,
                kept=kept,
                appended=content[stays:].decode(),
            )
    kept_bytes = common_text(replaced, content)
    kept = len(content[:kept_bytes].decode())
    return EntryChange(entry=entry, replaces=before.revision, kept=kept)
