"""A simple model of the log that results from an append."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, replace

from tasklogs import delta_codec
from tasklogs.log import digest
from tasklogs.log.delta import DeltaError, apply
from tasklogs.log.entry import Entry, EntryType, Names, Time
from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs.v1 import types_pb2 as types

_Epoch = tuple[Entry, ...]


@dataclass(frozen=True)
class LogModel:
    """Epochs of entries. Two models are equal if readers see the same.

    It accepts more than the server does: a refused append needs no model.
    """

    epochs: tuple[_Epoch, ...] = ()
    has_tail: bool = field(default=False, compare=False)

    def after(self, append: pb.LogAppend) -> LogModel | None:
        """Return the log after an append. None if no log can satisfy the append."""
        log: LogModel | None = self
        if append.open_epoch:
            log = LogModel((*self.epochs, ()))
        if append.withdraw_tail:
            log = None if log is None else log._without_tail()
        if append.HasField("tail"):
            log = None if log is None else log._with_tail_grown(append.tail)
        for entry in append.entries:
            log = None if log is None else log._with(entry)
        return log

    @property
    def digest(self) -> bytes:
        """Return the running digest over the sealed entries of the current epoch."""
        current = self.epochs[-1] if self.epochs else ()
        return digest.seal_all(current[:-1] if self.has_tail else current)

    @property
    def entries(self) -> int:
        return len(self.epochs[-1]) if self.epochs else 0

    def _without_tail(self) -> LogModel | None:
        if not self.has_tail:
            return None
        return LogModel((*self.epochs[:-1], self.epochs[-1][:-1]))

    def _with_tail_grown(self, change: pb.TailDelta) -> LogModel | None:
        if not self.has_tail:
            return None
        tail = self.epochs[-1][-1]
        if change.id != tail.id or not change.content.HasField("crc32"):
            return None
        try:
            content = apply(tail.content, delta_codec.decode(change.content))
        except DeltaError:
            return None
        if zlib.crc32(content) != change.content.crc32:
            return None
        time = Time(change.time.seconds, change.time.nanos)
        return self._ending_with(self.epochs[-1][:-1], replace(tail, time=time, content=content))

    def _with(self, message: types.TaskLogEntry) -> LogModel | None:
        if not self.epochs or message.type not in types.TaskLogType.values()[1:]:
            return None
        entry = Entry(
            id=message.id,
            type=EntryType(message.type),
            time=Time(message.time.seconds, message.time.nanos),
            content=message.content.encode(),
            dropped_bytes=message.dropped_bytes,
            names=Names(message.source_id, message.name, message.call_id),
        )
        current = self.epochs[-1]
        if self.has_tail and current[-1].id == entry.id:
            return self._ending_with(current[:-1], entry)
        if current and entry.id <= current[-1].id:
            return None
        return self._ending_with(current, entry)

    def _ending_with(self, sealed: _Epoch, tail: Entry) -> LogModel:
        return LogModel((*self.epochs[:-1], (*sealed, tail)), has_tail=True)
