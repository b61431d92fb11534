"""The smallest store that follows the rules of the agent stream: what a server's log must be."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tasklogs import delta_codec
from tasklogs.log import digest
from tasklogs.log.delta import apply
from tasklogs.log.entry import Entry, EntryType, Names, Time
from tasklogs.log.truncation import MAX_CONTENT_BYTES
from tasklogs.v1 import task_agents_pb2 as pb


class BrokenRule(AssertionError):
    """An append that a server would refuse with INVALID_ARGUMENT."""


@dataclass
class Epoch:
    entries: list[Entry] = field(default_factory=list)
    has_tail: bool = False

    @property
    def sealed(self) -> list[Entry]:
        return self.entries[:-1] if self.has_tail else self.entries


@dataclass
class ReferenceStore:
    """Epochs count from 1: `epochs[0]` is the first."""

    epochs: list[Epoch] = field(default_factory=list)
    revision: int = 0
    features: Sequence[str] = ("content_delta_pieces", "entry_names")
    entry_types: Sequence[int] = tuple(EntryType)
    """Empty: INPUT and OUTPUT, and Welcome names none."""

    @property
    def entries(self) -> list[Entry]:
        return self.epochs[-1].entries if self.epochs else []

    @property
    def contents(self) -> list[str]:
        return [entry.content.decode() for entry in self.entries]

    def apply(self, append: pb.LogAppend) -> None:
        parts = append.open_epoch or append.withdraw_tail or append.HasField("tail")
        _check(bool(parts or append.entries), "no part")
        if append.open_epoch:
            _check(not append.withdraw_tail and not append.HasField("tail"), "opens, and more")
            self.epochs.append(Epoch())
            self.revision += 1
        _check(bool(self.epochs), "no epoch is open")
        epoch = self.epochs[-1]
        if append.withdraw_tail:
            _check(epoch.has_tail and not append.HasField("tail"), "no tail to withdraw")
            epoch.entries.pop()
            epoch.has_tail = False
            self.revision += 1
        if append.HasField("tail"):
            self._grow(epoch, append.tail)
        for entry in append.entries:
            self._add(epoch, entry)

    def _grow(self, epoch: Epoch, change: pb.TailDelta) -> None:
        _check(epoch.has_tail and epoch.entries[-1].id == change.id, "not the tail")
        tail = epoch.entries[-1]
        _check(change.WhichOneof("form") == "content", "an unknown form")
        content = apply(tail.content, delta_codec.decode(change.content))
        _check(change.content.HasField("crc32"), "no checksum")
        _check(change.content.crc32 == zlib.crc32(content), "the checksum is wrong")
        at = Time(change.time.seconds, change.time.nanos)
        epoch.entries[-1] = replace(tail, time=at, content=content)
        self.revision += 1

    def _add(self, epoch: Epoch, message: object) -> None:
        from tasklogs.v1 import types_pb2

        assert isinstance(message, types_pb2.TaskLogEntry)
        _check(message.HasField("id") and message.HasField("time"), "no id or time")
        entry = Entry(
            message.id,
            EntryType(message.type),
            Time(message.time.seconds, message.time.nanos),
            message.content.encode(),
            message.dropped_bytes,
            Names(message.source_id, message.name, message.call_id),
        )
        known = self.entry_types or (EntryType.INPUT, EntryType.OUTPUT)
        _check(entry.type in known, "a type that Welcome does not name")
        named = "entry_names" in self.features or not any(entry.names)
        _check(named, "names that Welcome does not allow")
        _check(len(entry.content) <= MAX_CONTENT_BYTES, "too long")
        if epoch.has_tail and epoch.entries[-1].id == entry.id:
            _check(epoch.entries[-1].type == entry.type, "the tail changes its type")
            _check(epoch.entries[-1].names == entry.names, "the tail changes its names")
            epoch.entries[-1] = entry
        else:
            higher = not epoch.entries or entry.id > epoch.entries[-1].id
            _check(higher, "ids do not grow")
            epoch.entries.append(entry)
            epoch.has_tail = True
        self.revision += 1

    def welcome(
        self, *, session: int = 1, append_bytes: int = 262_144, window_bytes: int = 1_048_576
    ) -> pb.Welcome:
        welcome = pb.Welcome(session=session, epoch=len(self.epochs), revision=self.revision)
        welcome.limits.append_bytes = append_bytes
        welcome.limits.window_bytes = window_bytes
        welcome.limits.entry_bytes = MAX_CONTENT_BYTES
        welcome.digest = digest.EMPTY
        welcome.features.extend(self.features)
        welcome.entry_types.extend(self.entry_types)  # type: ignore[arg-type]
        if self.epochs:
            epoch = self.epochs[-1]
            welcome.entries = len(epoch.entries)
            welcome.digest = digest.seal_all(epoch.sealed)
            if epoch.has_tail:
                tail = epoch.entries[-1]
                welcome.tail.id = tail.id
                welcome.tail.type = tail.type  # type: ignore[assignment]
                welcome.tail.time.seconds = tail.time.seconds
                welcome.tail.time.nanos = tail.time.nanos
                welcome.tail.content_bytes = len(tail.content)
                welcome.tail.content_sha256 = digest.content_hash(tail.content)
                welcome.tail.dropped_bytes = tail.dropped_bytes
                welcome.tail.source_id = tail.names.source_id
                welcome.tail.name = tail.names.name
                welcome.tail.call_id = tail.names.call_id
        return welcome


def _check(fits: bool, reason: str) -> None:
    if not fits:
        raise BrokenRule(reason)
