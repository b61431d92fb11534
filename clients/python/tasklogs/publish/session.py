"""One agent stream: Hello, Welcome, then appends, and the answers to Sync.

Two tasks: one reads, the other writes. One function decides what is written next, so that the order
is easy to see: first the appends on which an answer rests, then the answer.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import grpc

from tasklogs import features
from tasklogs.enums import AppHealth
from tasklogs.log.continuation import Position
from tasklogs.log.entry import Entry
from tasklogs.publish import messages
from tasklogs.publish.departure import Departure
from tasklogs.publish.differ import Differ
from tasklogs.publish.event_log import EventLog
from tasklogs.publish.features import ServerFeatures
from tasklogs.publish.reconnect import StreamEnded, StreamUsedUp
from tasklogs.publish.sent_tails import SentTails
from tasklogs.publish.settings import StreamSettings
from tasklogs.publish.source import Effect, Mark, Shown, Source, SourceError
from tasklogs.publish.stream_limit import StreamLimit
from tasklogs.publish.stream_status import StreamCall
from tasklogs.tracing.base import Tracing
from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs.v1 import types_pb2
from tasklogs.version import version

_log = EventLog()

Call = grpc.aio.StreamStreamCall[pb.AgentMessage, pb.ServerMessage]

_MAX_APPEND_BYTES = 3 * 1024 * 1024  # with one more entry of 1 MiB, still below gRPC's 4 MiB
_MAX_UNANSWERED = 100
"""The most Syncs without an answer. A server sends one or two."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """The outcome of a Sync. `reason` None: it is done."""

    sync_id: int
    reason: str | None


class Session:
    """One stream, from Hello to its end."""

    def __init__(
        self,
        call: Call,
        source: Source,
        departure: Departure,
        sent_tails: SentTails,
        settings: StreamSettings,
        tracing: Tracing | None = None,
        stream_limit: StreamLimit | None = None,
    ) -> None:
        self._stream_limit = stream_limit or StreamLimit()
        self._carried = self._stream_limit.new_stream()
        self._tracing = tracing or Tracing()
        self._call = StreamCall(call)
        self._source = source
        self._departure = departure
        self._sent_tails = sent_tails
        self._settings = settings
        self._wake = asyncio.Event()
        self._differ: Differ
        self._stored: Position
        self._marks: deque[tuple[int, Mark]] = deque()  # what is stored once this append is
        self._features = ServerFeatures()
        self._first_omitted: int | None = None
        """Where the shown list has its first entry of a type that the server does not store."""
        self._said_omitted = False
        self._limit_bytes = _MAX_APPEND_BYTES
        self._sequence = 0
        self._acknowledged = 0
        self._goes_on_elsewhere = False
        """Whether this stream has carried all that it may carry."""
        self._shown_at: float | None = None
        """When the task app showed the oldest change that is not sent yet (time.monotonic)."""
        self._reported: AppHealth | None = None
        self._answers: deque[_Answer] = deque()
        self._tasks: asyncio.TaskGroup
        self._others: set[asyncio.Task[None]] = set()
        self._is_ready_to_leave = False
        self._said_goodbye = False

    async def run(self, build_number: int | None) -> None:
        """Run until the goodbye is confirmed.

        Raises StreamEnded if the stream ends otherwise, StreamUsedUp if it has carried all that it
        may carry and all of that is stored.
        """
        try:
            await self._open(build_number)
            self._source.attach(self)
            await self._serve()
        except grpc.aio.AioRpcError as error:
            raise StreamEnded.of(error, was_welcome=False) from None
        except messages.ProtocolError as error:
            raise StreamEnded(grpc.StatusCode.INTERNAL, str(error)) from None
        finally:
            self._source.detach()
            self._call.cancel()

    @property
    def stored(self) -> Position:
        """What `Welcome` said: see `Listener`."""
        return self._stored

    @property
    def sealed(self) -> int:
        """How many entries are sent and sealed, and were not omitted: see `Listener`."""
        # With an omitted entry among them, positions in the list would not be those of the differ.
        sealed = self._differ.sealed
        return sealed if self._first_omitted is None else min(sealed, self._first_omitted)

    @property
    def last_id(self) -> int:
        """The highest id that is shown: see `Listener`."""
        return self._differ.last_id

    def show_list(self, shown: Shown, newer: Iterable[Entry]) -> Effect:
        """Apply a whole list: see `Listener`."""
        omitted = [one for one in enumerate(shown.entries) if not self._features.accepts(one[1])]
        self._first_omitted = shown.skipped + omitted[0][0] if omitted else None
        self._note_omitted([entry for _, entry in omitted])
        effect = self._differ.show_list(
            self._features.fitted_all(shown.entries),
            process=shown.process,
            skipped=shown.skipped,
            newer=self._features.fitted_all(newer),
            lags=shown.lags,
            verdict=shown.verdict,
        )
        self._sent_tails.note(self._differ.tail_sent)
        if self._differ.has_changes:
            self._note_change()
        self._wake.set()
        return effect

    def show_entry(self, entry: Entry, process: int) -> Effect:
        """Apply one entry: see `Listener`."""
        if not self._features.accepts(entry):
            self._note_omitted([entry])
            return Effect.STALE
        effect = self._differ.show_entry(self._features.fitted(entry), process=process)
        if effect is Effect.CHANGED:
            self._note_change()
            self._wake.set()
        return effect

    def fitted(self, entry: Entry) -> Entry | None:
        """Return `entry` as the server can store it: see `Listener`."""
        if self._features.accepts(entry):
            return self._features.fitted(entry)
        self._note_omitted([entry])
        return None

    def wake(self) -> None:
        """Let the source offer what waits: see `Listener`."""
        self._wake.set()

    def health_changed(self) -> None:
        """Report the health if it has changed."""
        if self._source.health is not self._reported:
            self._wake.set()

    def _note_omitted(self, entries: Sequence[Entry]) -> None:
        """Log, once per stream, that the server does not store these entries."""
        if entries and not self._said_omitted:
            self._said_omitted = True
            types = sorted({entry.type.name for entry in entries})
            _log.warning("entries.omitted", count=len(entries), types=types)

    def _note_change(self) -> None:
        if self._shown_at is None:
            self._shown_at = time.monotonic()

    def _waited_seconds(self) -> float:
        """Return how long the oldest change of the append that was just made has waited."""
        if self._shown_at is None:
            return 0.0
        waited = time.monotonic() - self._shown_at
        if not self._differ.has_changes:
            self._shown_at = None
        return waited

    async def _open(self, build_number: int | None) -> None:
        hello = pb.Hello(
            agent_version=version(),
            task_app=self._source.kind,
            features=features.AGENT_STREAM,
        )
        if build_number is not None:
            hello.build_number = build_number
        try:
            async with asyncio.timeout(self._settings.welcome_timeout_seconds):
                await self._write(pb.AgentMessage(hello=hello))
                first = await self._read()
        except TimeoutError:
            raise StreamEnded(grpc.StatusCode.DEADLINE_EXCEEDED, "no Welcome in time") from None
        if first is None or not first.HasField("welcome"):
            raise messages.ProtocolError("the server's first message was not Welcome")
        welcome = first.welcome
        limits = (welcome.limits.append_bytes, welcome.limits.window_bytes, _MAX_APPEND_BYTES)
        self._limit_bytes = min(limit for limit in limits if limit > 0)
        self._features = ServerFeatures.of(welcome)
        stored = self._stored = messages.position(welcome)
        self._differ = Differ(
            stored,
            process=self._sent_tails.process_of(stored.tail),
            makes_deltas=self._features.content_delta_pieces,
        )
        self._wake.set()  # health is reported at once
        _log.info(
            "stream.opened", session=welcome.session, epoch=stored.epoch, entries=stored.entries
        )

    async def _serve(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            self._others = {
                tasks.create_task(self._write_what_is_due()),
                tasks.create_task(self._prepare_to_leave()),
            }
            # The reading task sees how the stream ended, the others only that it ended.
            ended = await self._read_to_the_end()
            for task in self._others:
                task.cancel()
        if ended is not None:
            raise ended

    async def _read_to_the_end(self) -> StreamEnded | StreamUsedUp | None:
        """Return how the stream ended; None if the goodbye was confirmed."""
        try:
            await self._handle_messages()
        except grpc.aio.AioRpcError as error:
            under_append = self._acknowledged < self._sequence
            ended = StreamEnded.of(
                error,
                was_welcome=True,
                was_acknowledged=self._acknowledged > 0,
                under_append=under_append,
            )
            if under_append and not ended.is_from_the_server:
                was_reset = ended.code is not grpc.StatusCode.UNAVAILABLE
                self._stream_limit.broke(self._carried, was_reset=was_reset)
            return ended
        except (StreamEnded, StreamUsedUp) as ended:
            return ended
        except messages.ProtocolError as error:
            return self._ended(grpc.StatusCode.INTERNAL, str(error))
        return None

    async def _handle_messages(self) -> None:
        while (message := await self._read()) is not None:
            match message.WhichOneof("message"):
                case "ack":
                    self._acknowledge(message.ack.sequence)
                case "sync":
                    self._start_sync(message.sync)
                case "report_state":
                    self._reported = None
                    self._wake.set()
                case "drain":
                    after = messages.wait_of(message.drain.retry_after).total_seconds()
                    raise self._ended(grpc.StatusCode.UNAVAILABLE, "the server is draining", after)
                case _:
                    pass  # a message of a newer server
        if self._goes_on_elsewhere:
            raise StreamUsedUp
        if not self._said_goodbye:
            raise self._ended(grpc.StatusCode.OK, "the server closed the stream")

    def _ended(self, code: grpc.StatusCode, reason: str, after: float = 0.0) -> StreamEnded:
        return StreamEnded(
            code,
            reason,
            retry_after_seconds=max(0.0, after) or None,
            was_welcome=True,
            was_acknowledged=self._acknowledged > 0,
        )

    def _acknowledge(self, sequence: int) -> None:
        if not self._acknowledged <= sequence <= self._sequence:
            raise messages.ProtocolError("the server acknowledged an append that was not sent")
        self._acknowledged = sequence
        while self._marks and self._marks[0][0] <= sequence:
            self._source.committed(self._marks.popleft()[1])
        if sequence == self._sequence:
            self._carried.acknowledged()
            self._sent_tails.acknowledged()
        self._wake.set()

    def _start_sync(self, sync: pb.Sync) -> None:
        if len(self._others) + len(self._answers) > _MAX_UNANSWERED:
            raise messages.ProtocolError("the server sent too many Syncs")
        task = self._tasks.create_task(self._sync(sync))
        self._others.add(task)
        task.add_done_callback(self._others.discard)

    async def _sync(self, sync: pb.Sync) -> None:
        reason = None
        # A sync without a traceparent gets no span, even if the session has one.
        fetch = partial(self._tracing.span, "fetch", traceparent=sync.traceparent)
        try:
            with fetch() if sync.traceparent else nullcontext():
                await self._source.refresh()
        except SourceError as error:
            reason = str(error)
        self._answers.append(_Answer(sync.id, reason))
        self._wake.set()

    async def _prepare_to_leave(self) -> None:
        await self._departure.wanted()
        try:
            async with asyncio.timeout(self._settings.goodbye_sync_seconds):
                await self._source.refresh()
        except (SourceError, TimeoutError) as error:
            _log.warning("last_sync.failed", reason=str(error) or "timeout")
        self._is_ready_to_leave = True
        self._wake.set()

    async def _write_what_is_due(self) -> None:
        try:
            while not (self._said_goodbye or self._goes_on_elsewhere):
                await self._wake.wait()
                self._wake.clear()
                for message in self._due():
                    await self._write(message)
            await self._call.done_writing()
        except grpc.aio.AioRpcError:
            return  # the reading task sees why

    def _due(self) -> Iterator[pb.AgentMessage]:
        """Yield what is to be written now. Each message is written before the next is asked for."""
        if self._acknowledged == self._sequence:
            self._source.offer()
        if self._acknowledged == self._sequence and self._carried.is_used_up(
            for_append=self._differ.has_changes
        ):
            self._goes_on_elsewhere = True
            return
        if (health := self._source.health) is not self._reported:
            self._reported = health
            yield _state(health)
        if self._acknowledged == self._sequence:
            yield from self._appends()
        if self._acknowledged == self._sequence and not self._differ.has_changes:
            self._all_is_stored()
        # An answer is sent once all that its fetch showed is sent.
        while self._answers and (self._answers[0].reason or not self._differ.has_changes):
            yield _answer(self._answers.popleft())
        if self._is_ready_to_leave and not self._answers and not self._differ.has_changes:
            self._said_goodbye = True
            yield pb.AgentMessage(goodbye=pb.Goodbye(reason=self._departure.reason))

    def _all_is_stored(self) -> None:
        if (mark := self._differ.sent) is not None:
            self._source.committed(mark)

    def _appends(self) -> Iterator[pb.AgentMessage]:
        """Yield what differs now: one append, or its parts. What is shown meanwhile waits."""
        append = self._differ.next_append(
            self._carried.append_bytes(self._limit_bytes), splits_entries=self._carried.is_limited
        )
        sent = self._differ.tail_sent
        if append is None:
            return
        append = replace(append, waited_seconds=self._waited_seconds())
        mark = self._differ.sent
        for part in self._features.compressible(append):
            self._sequence += 1
            # If the stream breaks, the store may have this part and no later one.
            if sent is not None and part.entries:
                sent = part.entries[-1], sent[1]
            self._sent_tails.note(sent)
            yield messages.log_append(replace(part, sequence=self._sequence))
        if mark is not None:
            self._marks.append((self._sequence, mark))

    async def _read(self) -> pb.ServerMessage | None:
        message: Any = await self._call.read()
        if message is None:  # gRPC could not decode it
            raise messages.ProtocolError("the server sent an undecodable message")
        return message if isinstance(message, pb.ServerMessage) else None

    async def _write(self, message: pb.AgentMessage) -> None:
        is_append = message.HasField("append")
        if is_append and self._features.compressed_messages:
            message = messages.shortened(message)
        self._carried.count(message.ByteSize(), is_append=is_append)
        await self._call.write(message)


def _state(health: AppHealth) -> pb.AgentMessage:
    return pb.AgentMessage(
        state=pb.StateReport(
            lifecycle=types_pb2.AGENT_LIFECYCLE_READY,
            app_health=types_pb2.AppHealth.ValueType(health),
        )
    )


def _answer(answer: _Answer) -> pb.AgentMessage:
    if answer.reason is None:
        return pb.AgentMessage(sync_done=pb.SyncDone(id=answer.sync_id))
    return pb.AgentMessage(sync_failed=pb.SyncFailed(id=answer.sync_id, reason=answer.reason))
