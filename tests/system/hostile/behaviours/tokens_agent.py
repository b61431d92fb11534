"""The worst that one valid agent token allows."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import suppress
from functools import cache
from typing import Any

import grpc.aio
from google.protobuf.struct_pb2 import ListValue, Struct, Value

from tasklogs.v1 import task_agents_pb2 as pb
from tests.support.fixtures.agent_stream import log_entry
from tests.system.hostile.behaviours.callers import (
    LOST,
    Request,
    Stream,
    by_clients,
    in_turn,
    metadata,
)
from tests.system.hostile.peer import Tally
from tests.system.hostile.target import Target

CONNECT = "/tasklogs.v1.TaskAgents/Connect"
_UPLOAD = "/tasklogs.v1.TaskAgents/UploadLogSnapshot"
_IN_PARTS = "/tasklogs.v1.TaskAgents/UploadLogSnapshotInParts"

_MESSAGES = 30_000
_PARTS, _PART_ENTRIES = 20, 5_000
_EMPTY_ENTRIES = 2_000_000
_PAUSE_SECONDS = 0.05
BUSY_BYTES = 900_000


async def uploads(target: Target, tally: Tally) -> None:
    """Upload 30,000 short messages (3.1 MB), 32 times at once. All but the first change nothing."""
    request = Request(_UPLOAD, _conversation(_MESSAGES), target.agent_tokens["uploads"])
    await in_turn(target, tally, [request], connections=4, at_once=8)


async def refused_uploads(target: Target, tally: Tally) -> None:
    """Upload 2.4 MB whose last message has a role that does not exist."""
    encoded = _conversation(_MESSAGES * 3 // 4, last_role="nobody")
    request = Request(_UPLOAD, encoded, target.agent_tokens["refused uploads"])
    await in_turn(target, tally, [request], connections=2, at_once=2)


async def uploads_in_parts(target: Target, tally: Tally) -> None:
    """Upload 100,000 short entries in parts, again and again."""
    token = target.agent_tokens["uploads in parts"]

    async def upload(channel: grpc.aio.Channel) -> None:
        method: Any = channel.stream_unary(_IN_PARTS)
        while True:
            stream = Stream(method(metadata=metadata(token)), tally)
            with suppress(*LOST):
                for part in _parts():
                    await stream.write(part)
                await stream.call.done_writing()
            await stream.note_end()
            await asyncio.sleep(_PAUSE_SECONDS)

    await by_clients(target, tally, upload, connections=2, at_once=1)


async def huge_first_messages(target: Target, tally: Tally) -> None:
    """Open agent streams whose first message is an append of 2,000,000 empty entries."""
    first = _append_of_empty_entries()

    async def connect(channel: grpc.aio.Channel) -> None:
        method: Any = channel.stream_stream(CONNECT)
        while True:
            call = method(metadata=metadata(target.agent_tokens["first messages"]))
            stream = Stream(call, tally)
            with suppress(*LOST):
                await stream.write(first)
                await stream.call.read()
            call.cancel()
            await stream.note_end()
            await asyncio.sleep(_PAUSE_SECONDS)

    await by_clients(target, tally, connect, connections=2, at_once=10)


async def appends(target: Target, tally: Tally) -> None:
    """Keep one stream open, and replace its last entry of 0.9 MB without a pause."""

    async def connect(channel: grpc.aio.Channel) -> None:
        await rewrite(channel, target.agent_tokens["appends"], tally, pause_seconds=0)

    await by_clients(target, tally, connect, connections=1, at_once=1)


async def rewrite(
    channel: grpc.aio.Channel, token: str, tally: Tally, *, pause_seconds: float = _PAUSE_SECONDS
) -> None:
    """Keep an agent stream open, and replace its last entry of 0.9 MB again and again."""
    method: Any = channel.stream_stream(CONNECT)
    while True:
        stream = Stream(method(metadata=metadata(token)), tally)
        with suppress(*LOST):
            await _rewrite(stream, pause_seconds)
        stream.call.cancel()
        await stream.note_end()
        await asyncio.sleep(1)


async def _rewrite(stream: Stream, pause_seconds: float) -> None:
    hello = pb.AgentMessage(hello=pb.Hello(agent_version="0", task_app="none"))
    await stream.write(hello.SerializeToString())
    welcomed = await stream.call.read()
    if not isinstance(welcomed, bytes):
        return
    is_new = pb.ServerMessage.FromString(welcomed).welcome.epoch == 0
    reading = asyncio.create_task(_read_all(stream.call))
    try:
        for sequence in itertools.count(1):
            entry = log_entry(0, f"{sequence} " + "b" * BUSY_BYTES)
            append = pb.LogAppend(sequence=sequence, entries=[entry], open_epoch=is_new)
            is_new = False
            await stream.write(pb.AgentMessage(append=append).SerializeToString())
            await asyncio.sleep(pause_seconds)
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def _read_all(call: Any) -> None:
    while isinstance(await call.read(), bytes):
        pass


@cache
def _conversation(messages: int, *, last_role: str = "agent") -> bytes:
    """Return an upload in the format of AgentAPI's /messages."""
    listed = ListValue()
    for number in range(messages):
        role = last_role if number == messages - 1 else "user"
        fields = {
            "id": Value(number_value=number),
            "role": Value(string_value=role),
            "content": Value(string_value="short"),
            "time": Value(string_value="2026-01-02T03:04:05Z"),
        }
        listed.values.add(struct_value=Struct(fields=fields))
    data = Struct(fields={"messages": Value(list_value=listed)})
    request = pb.UploadLogSnapshotRequest(format=pb.SNAPSHOT_FORMAT_AGENTAPI, data=data)
    return request.SerializeToString()


@cache
def _parts() -> list[bytes]:
    parts = []
    for part in range(_PARTS):
        first = part * _PART_ENTRIES
        entries = [log_entry(first + number, "short") for number in range(_PART_ENTRIES)]
        is_last = part == _PARTS - 1
        message = pb.UploadLogSnapshotInPartsRequest(entries=entries, last=is_last)
        parts.append(message.SerializeToString())
    return parts


@cache
def _append_of_empty_entries() -> bytes:
    """Return an AgentMessage of 4 MB. It is written by hand, as making it would take seconds."""
    entry = bytes([pb.LogAppend.ENTRIES_FIELD_NUMBER << 3 | 2, 0])
    append = entry * _EMPTY_ENTRIES
    field = bytes([pb.AgentMessage.APPEND_FIELD_NUMBER << 3 | 2])
    return field + _varint(len(append)) + append


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    out.append(value)
    return bytes(out)
