"""The log that a reader builds from a follow. Each message is checked against rule I8."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from tasklogs import delta_codec
from tasklogs.log.delta import apply
from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs.v1 import types_pb2
from tasklogs_server.reads.follow_events import FollowEvent, TailSent
from tasklogs_server.reads.tokens import Cursor

Key = tuple[int, int]
"""Epoch and id."""


def events(messages: Iterable[pb.FollowTaskLogsResponse]) -> list[str]:
    """Name the event of each message."""
    return [str(one.WhichOneof("event")) for one in messages]


@dataclass
class View:
    """A log as followers see it, over any number of streams. Each begins with the last cursor."""

    entries: dict[Key, types_pb2.TaskLogEntry] = field(default_factory=dict)
    statuses: list[types_pb2.TaskStatus.ValueType] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)
    start: int | None = None
    """The view has all changes after this revision."""
    revision: int = 0
    cursor: str = ""
    deltas: int = 0
    """How many deltas this stream has sent."""
    caught_up: bool = False
    """Whether this stream has sent `caught_up`."""
    _sent: dict[Key, int] = field(default_factory=dict)
    _expects_status: bool = True

    def reconnect(self, *, expects_status: bool = True) -> None:
        """Begin the next stream, which has not sent anything yet."""
        self._sent.clear()
        self._expects_status = expects_status
        self.deltas = 0
        self.caught_up = False

    def apply(self, message: pb.FollowTaskLogsResponse) -> None:
        """Apply a message. Fail if it breaks a rule."""
        event = message.WhichOneof("event")
        at = Cursor.decode(message.cursor).revision
        if self.start is None:
            self.start = self.revision = at
        assert event == "status" or not self._expects_status, "the status comes first"
        self._expects_status = False
        match event:
            case "status":
                self.statuses.append(message.status.status)
            case "entries":
                for one in message.entries.logs:
                    self._whole(message.entries.epoch, one)
            case "delta":
                self._delta(message.delta)
            case "entry_withdrawn":
                withdrawn = message.entry_withdrawn
                self._ascend(withdrawn.revision)
                self.entries.pop((withdrawn.epoch, withdrawn.id), None)
                self._sent.pop((withdrawn.epoch, withdrawn.id), None)
            case "epoch_started":
                self._ascend(message.epoch_started.revision)
                self.epochs.append(message.epoch_started.epoch)
            case "caught_up":
                assert not self.caught_up, "once a stream"
                self.caught_up = True
            case "progress":
                pass
            case _:
                raise AssertionError(f"no such event: {event}")
        assert at == self.revision, "a cursor stands for exactly what was sent"
        self.cursor = message.cursor

    def contents(self) -> dict[Key, str]:
        """Each entry's content."""
        return {key: one.content for key, one in self.entries.items()}

    def sent_revision(self, event: FollowEvent) -> int | None:
        """The revision of the tail as this stream last sent it."""
        return self._sent.get((event.epoch, event.head.id)) if isinstance(event, TailSent) else None

    def check(self, stored: dict[Key, types_pb2.TaskLogEntry]) -> None:
        """Compare what was followed with the whole log, by epoch and id."""
        start = self.start
        assert start is not None, "nothing was followed"
        covered = {key: one for key, one in stored.items() if one.revision > start}
        assert self.entries == covered

    def _whole(self, epoch: int, one: types_pb2.TaskLogEntry) -> None:
        self._ascend(one.revision)
        self.entries[epoch, one.id] = one
        self._sent[epoch, one.id] = one.revision

    def _delta(self, delta: pb.EntryDelta) -> None:
        key = (delta.epoch, delta.id)
        self._ascend(delta.revision)
        assert self._sent.get(key) == delta.base_revision, "this stream has not sent the base"
        base = self.entries[key]
        content = apply(base.content.encode(), delta_codec.decode(delta.content))
        assert zlib.crc32(content) == delta.content.crc32
        self.deltas += 1
        self._sent[key] = delta.revision
        self.entries[key] = types_pb2.TaskLogEntry(
            id=base.id,
            type=base.type,
            content=content.decode(),
            time=delta.time,
            revision=delta.revision,
            dropped_bytes=base.dropped_bytes,
            source_id=base.source_id,
            name=base.name,
            call_id=base.call_id,
        )

    def _ascend(self, revision: int) -> None:
        assert revision > self.revision, "revisions ascend, and nothing comes twice"
        self.revision = revision
