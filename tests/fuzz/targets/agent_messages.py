"""The messages of an agent, in one stream after another."""

from __future__ import annotations

import asyncio
import zlib
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import timedelta
from typing import Any, ClassVar

from google.protobuf.message import DecodeError

from tasklogs.log.digest import content_hash
from tasklogs.log.truncation import MAX_CONTENT_BYTES
from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs.v1.types_pb2 import CompressedMessage
from tasklogs_server.domain.errors import StoreUnavailable, TaskLogsError, TaskNotFound
from tasklogs_server.domain.status import BuildTransition, Facts
from tasklogs_server.ingest.messages import Hello
from tasklogs_server.store.log_writes import Outcome
from tests.fuzz.loop import Loop
from tests.fuzz.target import Target
from tests.fuzz.targets.agent_script import Event, Meanwhile, Script
from tests.fuzz.targets.ingest_server import AGENT, INGEST_BYTES, TASK, IngestServer, check_refusal
from tests.fuzz.targets.log_model import LogModel

_SYNC_TIMEOUT = timedelta(seconds=60)
_SECOND = timedelta(seconds=1)
_MOST_STREAMS = 4
_MOST_STEPS = 200
_HANGS_AFTER_SECONDS = 20
_TROUBLES: Sequence[Outcome | Exception] = (
    *(Outcome.LOCKED, Outcome.GONE, Outcome.CORRUPT, Outcome.REFUSED, Outcome.UNAVAILABLE),
    *(StoreUnavailable(_SECOND), ConnectionError("lost"), Outcome.LOCKED, Outcome.POSTPONED),
)


class AgentMessages(Target):
    """A script of messages and other events runs through the real handler of `Connect`.

    After an `Ack` the store has had exactly the log that the appends make. After a finished sync it
    has had everything that was appended before the agent's answer. `Welcome` has the position of
    the store. Refusals must be documented ones, and at the end no byte of the budget is in use.
    """

    name: ClassVar[str] = "agent_messages"
    examples: ClassVar[int] = 150
    max_bytes: ClassVar[int] = 1024

    def __init__(self) -> None:
        self._loop = Loop()

    def close(self) -> None:
        self._loop.close()

    def seeds(self) -> Iterable[bytes]:
        opens = bytes([1, 0, 8, 0x21, 0, 0x23, 0, 0x45])
        grows = bytes([9, 0x08, 1, 0x31]) * 3
        yield opens + grows
        yield opens + grows + bytes([10, 0x02, 5, 0, 5, 8, 11, 0x10, 1, 0x23, 4, 255, 1])
        # A sync, its answer, the end of the stream, and a second stream
        yield opens + bytes([5, 1, 0, 1, 1, 5, 0, 9, 6, 8, 0]) + bytes([0]) + opens[2:] + grows
        # An answer before the commit that it depends on; two changes of a stored tail at once
        stored = opens + bytes([5, 0, 20])
        yield stored + bytes([5, 1, 0, 5, 0, 3]) + grows + bytes([1, 1, 5, 0, 20])
        yield stored + bytes([9, 8, 3, 0x31, 9, 8, 0, 0x31, 5, 0, 20, 10, 2, 5, 0, 20]) + grows
        # A rival agent, a commit that fails, a new build, a drain, a deletion
        for event in (4, 2, 6, 5, 7, 3):
            yield opens + bytes([5, event, 2]) + grows + bytes([5, 0, 20]) + opens[2:]
        for trouble in range(len(_TROUBLES)):
            yield opens + bytes([5, 2, trouble]) + grows + bytes([5, 8, 0, 0]) + opens[2:] + grows
        for spoilt in range(10):
            yield opens + bytes([9, 0x98, 1, 0x31, 0, 0x31, 255, spoilt, 1])
        yield opens + bytes([8, 0x31, 0, 255, 255, 0, 0, 255, 255, 2, 0, 255, 255, 4])
        yield opens + bytes([8, 0x11, 0, 0xD1, 200]) * 8
        hello = pb.AgentMessage(hello=pb.Hello()).SerializeToString()
        append = pb.AgentMessage(
            append=pb.LogAppend(sequence=1, open_epoch=True, withdraw_tail=True)
        )
        twice = _compressed(_compressed(hello))
        cut_off = _compressed(append.SerializeToString())[:-1]
        for raw in (hello, append.SerializeToString(), b"", b"\xff\xff", twice, cut_off):
            yield bytes([1, 0, 0, len(raw)]) + raw

    def run(self, data: bytes) -> None:
        self._loop.run(_within_reason(data))


async def _within_reason(data: bytes) -> None:
    async with asyncio.timeout(_HANGS_AFTER_SECONDS):
        async with IngestServer.open(standalone=bool(data[:1]) and data[0] & 1 == 1) as server:
            script = Script(data[1:])
            for _ in range(_MOST_STREAMS):
                await _Stream(server, script).serve()
                if script.is_done:
                    break


def _inside(message: pb.AgentMessage) -> pb.AgentMessage:
    """Return the message inside a compressed one. A bad one has none."""
    if not message.HasField("compressed"):
        return message
    try:
        return pb.AgentMessage.FromString(zlib.decompress(message.compressed.zlib))
    except (zlib.error, DecodeError):
        return pb.AgentMessage()


def _compressed(encoded: bytes) -> bytes:
    message = CompressedMessage(zlib=zlib.compress(encoded), size_bytes=len(encoded))
    return pb.AgentMessage(compressed=message).SerializeToString()


class _Stream:
    """One stream: it yields the agent's messages, and is the context for the server's messages."""

    def __init__(self, server: IngestServer, script: Script) -> None:
        self._server = server
        self._script = script
        self._steps = 0
        self._log = LogModel()
        self._expected: dict[int, LogModel | None] = {}
        self._answered: dict[int, list[int]] = defaultdict(list)
        """The appends before the answers to each sync."""
        self._asked: list[asyncio.Task[None]] = []
        self._said_goodbye = False
        self._began = 0
        self._acked = 0

    async def serve(self) -> None:
        """Run the handler to the end."""
        self._script.begin(self._server.store.states[-1])
        context: Any = self
        failed = False
        try:
            await self._server.service.connect(self, context, AGENT)
        except TaskLogsError as error:
            check_refusal(error)
            failed = True
        for asked in self._asked:
            await asked
        if self._said_goodbye and not failed:
            assert self._server.store.states[-1] == self._log, "not everything was committed"

    # The request's messages

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        self._check_bounds()
        if self._steps == 0:
            self._steps = 1
            return self._noted(self._script.hello())
        while self._steps < _MOST_STEPS and not self._script.is_done:
            self._steps += 1
            step = self._script.step()
            if isinstance(step, pb.AgentMessage):
                return self._noted(step)
            if isinstance(step, Event) and await self._has_ended(step):
                break
        raise StopAsyncIteration

    def _noted(self, message: pb.AgentMessage) -> bytes:
        self._note(_inside(message))
        encoded = message.SerializeToString()
        is_compressed = self._steps > 1 and len(encoded) % 3 == 0
        return _compressed(encoded) if is_compressed else encoded

    def _note(self, message: pb.AgentMessage) -> None:
        match message.WhichOneof("message"):
            case "append":
                after = self._log.after(message.append)
                self._expected.setdefault(message.append.sequence, after)
                self._log = after or self._log
            case "sync_done":
                self._answered[message.sync_done.id].append(max(self._expected, default=0))
            case "goodbye":
                self._said_goodbye = True

    def _check_bounds(self) -> None:
        session = self._server.sessions.find(TASK)
        held = self._server.budget.held_bytes
        # A message larger than the whole budget is admitted alone.
        assert held <= max(INGEST_BYTES, 4 * MAX_CONTENT_BYTES)
        if session is not None:
            assert session.tail_bytes <= 2 * MAX_CONTENT_BYTES
            assert session._draft.size_bytes <= held

    # Other events

    async def _has_ended(self, event: Event) -> bool:
        server, session = self._server, self._server.sessions.find(TASK)
        match event.what:
            case Meanwhile.YIELD:
                for _ in range(event.number % 32):
                    await asyncio.sleep(0)
            case Meanwhile.SYNC:
                self._asked.append(asyncio.create_task(self._sync()))
            case Meanwhile.TROUBLE:
                server.store.troubles.append(_TROUBLES[event.number % len(_TROUBLES)])
            case Meanwhile.TICK:
                server.clock.advance(event.number)
                await server.sessions.tick()
                server.tails.release()
            case Meanwhile.RIVAL:
                async with server.sessions.connect(TASK, Hello("rival", "", None)):
                    await asyncio.sleep(0)
            case Meanwhile.DRAIN:
                server.sessions.drain(_SECOND)
            case Meanwhile.BUILD:
                facts = Facts(event.number % 4, BuildTransition.START, None, None, None)
                server.sessions.build_reported(TASK, facts)
            case Meanwhile.DELETED:
                server.sessions.end(TASK, TaskNotFound(str(TASK)))
            case Meanwhile.END_OF_STREAM:
                assert session is None or session.is_open
                return True
        return False

    async def _sync(self) -> None:
        session = self._server.sessions.find(TASK)
        if session is None:
            return
        number = session.syncs._last_id + 1
        try:
            await session.sync(_SYNC_TIMEOUT)
        except TaskLogsError as error:
            check_refusal(error)
            return
        # If the agent answers twice, the second answer counts. Later appends may be committed
        # together with those that the answer covers.
        assert any(self._is_committed(sequence) for sequence in self._answered[number])

    # What the server sends

    async def write(self, encoded: bytes) -> None:
        message = pb.ServerMessage.FromString(encoded)
        match message.WhichOneof("message"):
            case "welcome":
                self._welcome(message.welcome)
            case "ack":
                sequence = message.ack.sequence
                assert sequence > self._acked
                self._acked = sequence
                assert self._has_been(self._expected[sequence]), "acknowledged but not committed"
        await asyncio.sleep(0)

    def _welcome(self, welcome: pb.Welcome) -> None:
        states, head = self._server.store.states, self._server.store.head
        self._began = len(states) - 1
        log = self._log = states[-1]
        assert welcome.revision == head.revision
        assert (welcome.epoch, welcome.entries) == (len(log.epochs), log.entries)
        assert welcome.digest == log.digest
        assert welcome.HasField("tail") == log.has_tail
        if log.has_tail:
            tail = log.epochs[-1][-1]
            assert (welcome.tail.id, int(welcome.tail.type)) == (tail.id, int(tail.type))
            assert welcome.tail.content_bytes == len(tail.content)
            assert welcome.tail.content_sha256 == content_hash(tail.content)
            assert welcome.tail.dropped_bytes == tail.dropped_bytes
            names = (welcome.tail.source_id, welcome.tail.name, welcome.tail.call_id)
            assert names == tail.names
            time = welcome.tail.time
            assert (time.seconds, time.nanos) == tail.time

    def _is_committed(self, sequence: int) -> bool:
        later = (log for number, log in self._expected.items() if number >= sequence)
        return sequence == 0 or any(self._has_been(log) for log in later)

    def _has_been(self, log: LogModel | None) -> bool:
        return log in self._server.store.states[self._began :]
