"""Turns bytes into messages of an agent and other events around its stream."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from google.protobuf.message import DecodeError

from tasklogs.log.delta import Delta
from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs.v1 import types_pb2 as types
from tests.fuzz.byte_reader import ByteReader
from tests.fuzz.targets.log_model import LogModel
from tests.support.fixtures.content_deltas import content_delta, cut

_CHARACTERS = ("a", "b", "\n", "€", "𝄞", "\0", "\u202e", "\x1b[2J", "é", "x" * 40)
_TYPES = types.TaskLogType.values()[1:]
_NAMES = (("", "", ""), ("", "bash", "c€"), ("m\0", "", ""), ("s" * 255, "n" * 255, "c" * 255))
_MIB = 1024 * 1024
_MAX_ID = 2**31 - 1
_IDS = (-1, 0, 1, 2**31 - 1, -(2**31))
_SECONDS = (0, 1, -62_135_596_800, 253_402_300_799, 2**63 - 1, -(2**63))
_NANOS = (0, 1, 999_999_999, 10**9, -1)


class Meanwhile(Enum):
    """What else happens around the stream."""

    YIELD = auto()
    SYNC = auto()
    TROUBLE = auto()
    TICK = auto()
    RIVAL = auto()
    DRAIN = auto()
    BUILD = auto()
    DELETED = auto()
    END_OF_STREAM = auto()


@dataclass(frozen=True)
class Event:
    """One event around the stream. `number` is its parameter."""

    what: Meanwhile
    number: int


Step = pb.AgentMessage | Event
_EVENTS = tuple(Meanwhile)


class Script:
    """Reads the steps of several streams from an input, one stream after another.

    It keeps the log as the agent sees it, so that most of its messages are valid.
    """

    def __init__(self, data: bytes) -> None:
        self._reader = ByteReader(data)
        self._log = LogModel()
        self._sequence = 0
        self._withdrawn_id = -1
        self._clock = 0

    @property
    def is_done(self) -> bool:
        return self._reader.is_done

    def begin(self, log: LogModel) -> None:
        """Begin a stream on the stored log. The appends are counted from 1 again."""
        self._log = log
        self._sequence = 0

    def hello(self) -> pb.AgentMessage:
        """Return the first message, rarely one of another kind."""
        kind = self._reader.byte()
        if kind >= 250:
            return self._append()
        hello = pb.Hello(agent_version="1", task_app="x" * (kind % 128))
        if kind >= 240:
            hello.build_number = (kind - 242) % 3
        return pb.AgentMessage(hello=hello)

    def step(self) -> Step | None:
        """Return the next message or event. None: the bytes are not a valid message."""
        kind = self._reader.below(16)
        match kind:
            case 0:
                return self._raw()
            case 1:
                return pb.AgentMessage(sync_done=pb.SyncDone(id=self._reader.below(5)))
            case 2:
                failed = pb.SyncFailed(id=self._reader.below(5), reason=self._text())
                return pb.AgentMessage(sync_failed=failed)
            case 3:
                state = pb.StateReport()
                state.lifecycle = types.AgentLifecycle.ValueType(self._reader.below(12))
                state.app_health = types.AppHealth.ValueType(self._reader.below(8) - 1)
                return pb.AgentMessage(state=state)
            case 4 if self._reader.chance(64):
                reason = pb.Goodbye.Reason.ValueType(self._reader.below(4))
                return pb.AgentMessage(goodbye=pb.Goodbye(reason=reason))
            case 5 | 6 | 7:
                return Event(self._reader.one_of(_EVENTS), self._reader.byte())
            case _:
                return self._append()

    def _raw(self) -> pb.AgentMessage | None:
        try:
            return pb.AgentMessage.FromString(self._reader.bytes_(self._reader.byte()))
        except DecodeError:
            return None

    def _append(self) -> pb.AgentMessage:
        self._sequence += 1
        append = pb.LogAppend(sequence=self._sequence)
        parts = self._reader.byte()
        if parts & 7 == 1 or not self._log.epochs:
            append.open_epoch = True
            self._withdrawn_id = -1
        elif parts & 7 == 2 and self._log.has_tail:
            append.withdraw_tail = True
            self._withdrawn_id = self._log.epochs[-1][-1].id
        elif parts & 8 and self._log.has_tail:
            self._grow(append.tail)
        for _ in range(parts >> 4 & 3):
            self._add(append.entries.add(), self._log.after(append) or self._log)
        if parts & 128 and self._reader.chance(64):
            self._spoil(append)
        self._log = self._log.after(append) or self._log
        return pb.AgentMessage(append=append)

    def _grow(self, change: pb.TailDelta) -> None:
        tail = self._log.epochs[-1][-1]
        change.id = tail.id
        self._set_time(change)
        if self._reader.chance(96):
            pieces = 1 + self._reader.below(4)
            cuts = [(self._reader.byte(), self._reader.byte(), self._text()) for _ in range(pieces)]
            delta = cut(tail.content, cuts)
        else:
            kept = max(0, len(tail.content) - self._reader.one_of((0, 0, 0, 3, 4, 1)))
            delta = Delta.keeping(kept, self._text().encode())
        change.content.CopyFrom(content_delta(tail.content, delta))

    def _add(self, entry: types.TaskLogEntry, log: LogModel) -> None:
        gap = self._reader.below(4)
        current = log.epochs[-1] if log.epochs else ()
        last_id = max(current[-1].id if current else -1, self._withdrawn_id)
        # 3: the whole tail again
        entry.id = last_id if gap == 3 and log.has_tail else min(last_id + 1 + gap, _MAX_ID)
        # The same for each version of an entry, because neither may change.
        entry.type = _TYPES[entry.id % len(_TYPES)]
        entry.source_id, entry.name, entry.call_id = _NAMES[entry.id % len(_NAMES)]
        self._set_time(entry)
        entry.content = self._text()

    def _set_time(self, at: types.TaskLogEntry | pb.TailDelta) -> None:
        self._clock += 1
        at.time.seconds, at.time.nanos = self._clock, self._clock * 1000

    def _spoil(self, append: pb.LogAppend) -> None:
        reader = self._reader
        entry = append.entries[-1] if append.entries else None
        match reader.below(10):
            case 0:
                append.sequence += reader.below(5) - 2
            case 1:
                append.open_epoch = append.withdraw_tail = True
            case 2:
                append.tail.id = reader.one_of(_IDS)
            case 3:
                self._spoil_delta(append.tail)
            case 4 if entry is not None:
                entry.id = reader.one_of(_IDS)
            case 5 if entry is not None:
                entry.type = types.TaskLogType.ValueType(reader.byte() - 4)
            case 6 if entry is not None:
                entry.dropped_bytes = reader.one_of((-1, 1, 2**31, 2**63 - 1))
            case 7 if entry is not None:
                entry.time.seconds = reader.one_of(_SECONDS)
                entry.time.nanos = reader.one_of(_NANOS)
            case 8:
                append.tail.time.seconds = reader.one_of(_SECONDS)
                append.tail.time.nanos = reader.one_of(_NANOS)
            case _:
                append.waited_ms = reader.one_of((-(2**31), 0, 2**31 - 1))

    def _spoil_delta(self, tail: pb.TailDelta) -> None:
        reader, content = self._reader, tail.content
        match reader.below(6):
            case 0:
                tail.ClearField("content")
            case 1:
                content.ClearField("crc32")
            case 2:
                content.crc32 ^= 1
            case 3:
                content.pieces.add(bytes=reader.one_of((-1, 2**62, 1, 2, 3)))
            case 4:
                setattr(content.pieces.add(), "from", reader.one_of((-1, 2**62, 1, 2, 3)))
            case _:
                del content.pieces[:]

    def _text(self) -> str:
        form = self._reader.byte()
        if form == 255 and self._reader.chance(32):
            return "m" * (_MIB - 2 + self._reader.below(5))
        character = _CHARACTERS[form % len(_CHARACTERS)]
        return character * (form >> 4) * (self._reader.byte() if form >= 208 else 1)
