"""What an agent sent and what was acknowledged, from the record of its stream."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from tests.system.soak.contents import MARK_DIGITS, mark
from tests.system.soak.journal import Record
from tests.system.soak.shown import Shown


@dataclass
class Append:
    """A LogAppend, as the store must apply it."""

    sent: float
    epoch: int
    changes: list[tuple[int, str]]
    """Ids and content marks, in order."""
    withdrew: int | None = None
    """The id of the withdrawn tail."""
    acked: float | None = None


@dataclass(frozen=True, slots=True)
class Welcome:
    """The position of the store when a stream began."""

    asked: float
    """A time before its agent sent Hello."""
    t: float
    epoch: int
    tail: tuple[int, str] | None
    """Id and content mark."""


@dataclass(repr=False)
class Wire:
    """All streams of the agents of a task."""

    appends: list[Append] = field(default_factory=list)
    """In the order in which they were sent."""
    welcomes: list[Welcome] = field(default_factory=list)
    sessions: list[tuple[float, float]] = field(default_factory=list)
    """From a Welcome to the end of its stream or the next Hello: a killed agent records no end."""
    superseded: list[Append] = field(default_factory=list)
    """Those that were sent after the Welcome of a later session."""
    unknown: list[str] = field(default_factory=list)
    """Stored tails that no task app ever showed."""

    @cached_property
    def acked(self) -> list[Append]:
        """Return the acknowledged appends in the order of their acks."""
        found = [one for one in self.appends if one.acked is not None]
        return sorted(found, key=lambda one: one.acked or 0.0)

    @cached_property
    def ack_times(self) -> list[float]:
        """Return the times of `acked`."""
        return [one.acked or 0.0 for one in self.acked]

    def end_session(self, t: float) -> None:
        """The connected agent is no longer connected."""
        if self.sessions and math.isinf(self.sessions[-1][1]):
            self.sessions[-1] = self.sessions[-1][0], t


@dataclass
class _Stream:
    asked: float = 0.0
    epoch: int = 0
    tail: tuple[int, str] | None = None
    """Id and content."""
    pending: dict[int, Append] = field(default_factory=dict)


def replay(records: Iterable[Record], shown: Shown) -> Wire:
    """Replay `wire.jsonl` (tests/system/soak/agent_process.py has its format)."""
    wire = Wire()
    streams: dict[tuple[int, int], _Stream] = {}
    latest: _Stream | None = None
    for record in records:
        stream = streams.setdefault((record["pid"], record["stream"]), _Stream())
        match record["kind"]:
            case "hello":
                stream.asked = record["t"]
                wire.end_session(record["t"])
            case "welcome":
                stream.epoch = record["epoch"]
                stream.tail = _stored_tail(record, shown, wire)
                tail = record["tail"] and (record["tail"][0], record["tail"][2][:MARK_DIGITS])
                wire.welcomes.append(Welcome(stream.asked, record["t"], stream.epoch, tail))
                wire.sessions.append((record["t"], math.inf))
                latest = stream
            case "end" if stream is latest:
                wire.end_session(record["t"])
            case "append":
                append = _apply(record, stream)
                if stream is not latest:
                    wire.superseded.append(append)
                stream.pending[record["sequence"]] = append
                wire.appends.append(append)
            case "ack":
                for sequence in [one for one in stream.pending if one <= record["sequence"]]:
                    stream.pending.pop(sequence).acked = record["t"]
    return wire


def _stored_tail(record: Record, shown: Shown, wire: Wire) -> tuple[int, str] | None:
    if record["tail"] is None:
        return None
    entry_id, _, digest = record["tail"]
    if not shown.knows(entry_id, digest[:MARK_DIGITS]):
        wire.unknown.append(f"entry {entry_id} of epoch {record['epoch']} in Welcome")
        return entry_id, ""
    return entry_id, shown.content(entry_id, digest[:MARK_DIGITS])


def _apply(record: Record, stream: _Stream) -> Append:
    withdrew = None
    if record["open_epoch"]:
        stream.epoch += 1
        stream.tail = None
    if record["withdraw_tail"] and stream.tail is not None:
        withdrew = stream.tail[0]
        stream.tail = None
    changes: list[tuple[int, str]] = []
    if record["tail"] is not None:
        entry_id, pieces = record["tail"]
        before = (stream.tail[1] if stream.tail is not None else "").encode()
        content = "".join(
            before[start : start + length].decode() + text for start, length, text in pieces
        )
        changes.append((entry_id, mark(content)))
        stream.tail = (entry_id, content)
    for entry_id, _, content in record["entries"]:
        changes.append((entry_id, mark(content)))
        stream.tail = (entry_id, content)
    return Append(record["t"], stream.epoch, changes, withdrew)
