"""Stores a whole conversation at once, for programs that cannot keep a stream open."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from tasklogs.client.calls import Call, Calls
from tasklogs.client.credentials import Metadata
from tasklogs.client.new_entry import Entry, in_log
from tasklogs.errors import parsed_rpc_errors, readable
from tasklogs.log import entry as log_entry
from tasklogs.log.entry import Time
from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs.v1 import types_pb2
from tasklogs.v1.task_agents_pb2_grpc import TaskAgentsStub

_ONE_MESSAGE_BYTES = 2 * 1024 * 1024
"""A longer conversation goes in parts: with one more entry, a message stays below 4 MiB."""
_ENTRY_BYTES = 128
_ONE_MESSAGE_ENTRIES = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadedLog:
    """The stored log after an upload. `snapshot_at`: the moment of which it is a true picture."""

    revision: int
    snapshot_at: datetime


class Uploads:
    """The uploads of one client."""

    def __init__(self, agents: TaskAgentsStub, calls: Calls) -> None:
        self._agents = agents
        self._calls = calls

    async def upload(
        self, entries: Iterable[Entry], timeout: timedelta | None, metadata: Metadata | None
    ) -> UploadedLog:
        """Store `entries` as the whole conversation."""
        now = Time(*divmod(time.time_ns(), 1_000_000_000))
        parts = list(_parts(in_log(entry, index, now) for index, entry in enumerate(entries)))
        if len(parts) <= 1:
            request = pb.UploadLogSnapshotRequest(
                format=pb.SNAPSHOT_FORMAT_ENTRIES, entries=parts[0] if parts else ()
            )
            call = self._calls.begin(timeout, metadata)
            answer = await call.unary(self._agents.UploadLogSnapshot, request)
            return _uploaded(answer.revision, answer.snapshot_at)
        call = self._calls.begin(timeout, metadata, is_short=False)
        return await self._upload_in_parts(parts, call)

    async def _upload_in_parts(
        self, parts: Sequence[Sequence[types_pb2.TaskLogEntry]], call: Call
    ) -> UploadedLog:
        async def messages() -> AsyncIterator[pb.UploadLogSnapshotInPartsRequest]:
            for index, part in enumerate(parts):
                yield pb.UploadLogSnapshotInPartsRequest(entries=part, last=index == len(parts) - 1)

        async with call.running():
            metadata = await call.metadata()
            timeout = call.remaining_seconds()
            with parsed_rpc_errors():
                answer = readable(
                    await self._agents.UploadLogSnapshotInParts(
                        messages(), timeout=timeout, metadata=metadata
                    )
                )
        return _uploaded(answer.revision, answer.snapshot_at)


def _parts(entries: Iterable[log_entry.Entry]) -> Iterable[list[types_pb2.TaskLogEntry]]:
    part: list[types_pb2.TaskLogEntry] = []
    size_bytes = 0
    for entry in entries:
        size_bytes += entry.size_bytes + _ENTRY_BYTES
        if part and (size_bytes > _ONE_MESSAGE_BYTES or len(part) == _ONE_MESSAGE_ENTRIES):
            yield part
            part, size_bytes = [], entry.size_bytes + _ENTRY_BYTES
        part.append(_message(entry))
    if part:
        yield part


def _message(entry: log_entry.Entry) -> types_pb2.TaskLogEntry:
    return types_pb2.TaskLogEntry(
        id=entry.id,
        type=types_pb2.TaskLogType.ValueType(entry.type),
        time=Timestamp(seconds=entry.time.seconds, nanos=entry.time.nanos),
        dropped_bytes=entry.dropped_bytes,
        source_id=entry.names.source_id,
        name=entry.names.name,
        call_id=entry.names.call_id,
        content=entry.content.decode(),
    )


def _uploaded(revision: int, snapshot_at: Timestamp) -> UploadedLog:
    return UploadedLog(revision=revision, snapshot_at=snapshot_at.ToDatetime(UTC))
