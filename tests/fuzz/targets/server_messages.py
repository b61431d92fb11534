"""The messages of a server on the stream of an agent."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError

from tasklogs.agent.settings import Settings
from tasklogs.agent.sources.agentapi.faults import Fault, TaskAppError
from tasklogs.enums import AppHealth
from tasklogs.log.append import Append
from tasklogs.log.entry import Entry, EntryType, Time
from tasklogs.publish.departure import Departure
from tasklogs.publish.messages import log_append
from tasklogs.publish.reconnect import Backoff, Fatal, StreamEnded
from tasklogs.publish.sent_tails import SentTails
from tasklogs.publish.session import Session
from tasklogs.publish.source import Listener, Mark, Shown
from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs.v1.types_pb2 import TASK_LOG_TYPE_OUTPUT, TASK_LOG_TYPE_UNSPECIFIED
from tasklogs_server.services import agent_codec
from tests.fuzz.loop import Loop
from tests.fuzz.pieces import joined, split
from tests.fuzz.target import Target
from tests.fuzz.virtual_time import VirtualTimeLoop
from tests.support.fakes.reference_store import ReferenceStore

_TURNS = 8
_MOST_MESSAGES = 300
_HOURS = 1.5
_BACKOFF = Settings()


class ServerMessages(Target):
    """A stream of arbitrary messages to an agent whose task app continues meanwhile.

    The agent sends nothing that a server would refuse, keeps the order of its appends, and ends the
    stream only with a reason.
    """

    name: ClassVar[str] = "server_messages"
    max_bytes: ClassVar[int] = 2048

    def __init__(self) -> None:
        self._loop = Loop(VirtualTimeLoop())

    def close(self) -> None:
        self._loop.close()

    def seeds(self) -> Iterable[bytes]:
        store = ReferenceStore()
        fresh = _encoded(welcome=store.welcome())
        acks = [_encoded(ack=pb.Ack(sequence=sequence)) for sequence in (1, 2, 3)]
        syncs = [_encoded(sync=pb.Sync(id=number)) for number in (1, 2)]
        drain = _encoded(drain=pb.Drain(retry_after=Duration(seconds=2)))
        yield joined([fresh, acks[0], syncs[0], acks[1], syncs[1], acks[2], drain])
        store.apply(_opening(_entries(3)))
        known = _encoded(welcome=store.welcome(append_bytes=1))
        yield joined([known, acks[0], b"", syncs[0], acks[1]])
        yield joined([known, _encoded(report_state=pb.ReportState()), b"\xff"])
        odd = store.welcome()
        odd.tail.type = TASK_LOG_TYPE_UNSPECIFIED
        yield joined([_encoded(welcome=odd)])
        odd.tail.type, odd.entries = TASK_LOG_TYPE_OUTPUT, -5
        yield joined([_encoded(welcome=odd)])
        yield joined([fresh, _encoded(ack=pb.Ack(sequence=2**62))])
        for seconds in (2**63 - 1, -(2**63), 315_576_000_000):
            yield joined([fresh, _encoded(drain=pb.Drain(retry_after=Duration(seconds=seconds)))])
        yield joined([fresh, *syncs * 60])

    def run(self, data: bytes) -> None:
        self._loop.run(_stream(split(data)[:_MOST_MESSAGES]))


def _encoded(**message: Any) -> bytes:
    return pb.ServerMessage(**message).SerializeToString()


def _entries(count: int) -> list[Entry]:
    return [
        Entry(number, EntryType(1 + number % 2), Time(number, number), f"ü{number}".encode())
        for number in range(count)
    ]


def _opening(entries: list[Entry]) -> pb.LogAppend:
    return log_append(Append(1, open_epoch=True, entries=entries)).append


async def _stream(pieces: list[bytes]) -> None:
    app = _App()
    call: Any = _Call(pieces, app.grow)
    watch: Any = app
    session = Session(call, watch, Departure(), SentTails(), Settings())
    try:
        await session.run(None)
    except StreamEnded as ended:
        assert ended.reason
        assert "\n" not in ended.reason
        try:
            seconds = Backoff(_BACKOFF, random.Random(1)).wait_seconds(ended)
        except Fatal:
            pass
        else:
            assert 0 <= seconds <= _HOURS * 3600
    else:
        raise AssertionError("the stream ended as if after a goodbye")
    assert app.listener is None
    assert call.is_cancelled


class _App:
    """A task app as a session sees it: a list that grows each time it is read."""

    health = AppHealth.HEALTHY
    kind = "agentapi"

    def __init__(self) -> None:
        self.listener: Listener | None = None
        self._looks = 0

    def attach(self, listener: Listener) -> None:
        self.listener = listener
        self._show()

    def detach(self) -> None:
        self.listener = None

    def offer(self) -> None:
        pass

    def committed(self, mark: Mark) -> None:
        pass

    async def refresh(self) -> None:
        await asyncio.sleep(0)
        if self._looks % 5 == 4:
            self._looks += 1
            raise TaskAppError(Fault.TIMEOUT, "no answer")
        self._show()

    def grow(self) -> None:
        """Make the last message longer."""
        if self.listener is not None and self._looks:
            grown = self._shown()[-1]
            self.listener.show_entry(grown, 1)

    def _show(self) -> None:
        self._looks += 1
        if self.listener is not None:
            self.listener.show_list(Shown(self._shown(), 1, lags=False), ())

    def _shown(self) -> list[Entry]:
        entries = _entries(1 + self._looks // 3)
        last = entries[-1]
        content = last.content + b"." * self._looks
        time = Time(last.time.seconds + self._looks, 0)
        return [*entries[:-1], Entry(last.id, last.type, time, content)]


class _Call:
    """The parts of a grpc.aio call that a session uses. Checks everything that is written."""

    def __init__(self, pieces: list[bytes], between: Callable[[], None]) -> None:
        self._pieces: Iterator[bytes] = iter(pieces)
        self._between = between
        self._is_acknowledged = True
        self._sequence = 0
        self._said_hello = False
        self.is_cancelled = False

    def add_done_callback(self, _: object) -> None:
        """This fake never hides the status."""

    def cancel(self) -> None:
        self.is_cancelled = True

    async def done_writing(self) -> None:
        await asyncio.sleep(0)

    async def read(self) -> object:
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        self._between()
        piece = next(self._pieces, None)
        if piece is None:
            return grpc.aio.EOF
        try:
            message = pb.ServerMessage.FromString(piece)
        except DecodeError:
            return None
        if message.HasField("ack") and message.ack.sequence == self._sequence:
            self._is_acknowledged = True
        return message

    async def write(self, message: pb.AgentMessage) -> None:
        await asyncio.sleep(0)
        match message.WhichOneof("message"):
            case "hello":
                assert not self._said_hello
                self._said_hello = True
            case "append":
                assert self._is_acknowledged
                self._is_acknowledged = False
                self._sequence += 1
                assert message.append.sequence == self._sequence
                agent_codec.append_at_once(message.append)
            case "state":
                agent_codec.state(message.state)
            case "sync_done" | "sync_failed":
                assert self._said_hello
            case other:
                raise AssertionError(other)
