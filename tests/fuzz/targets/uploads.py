"""Complete conversations that agents upload."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct

from tasklogs.log.entry import Entry
from tasklogs.log.truncation import MAX_CONTENT_BYTES
from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs_server.concurrency.loop_share import LoopShare
from tasklogs_server.domain.errors import TaskLogsError
from tasklogs_server.services import upload_codec as codec
from tests.fuzz.loop import Loop
from tests.fuzz.target import Target
from tests.fuzz.targets.ingest_server import AGENT, IngestServer, check_refusal

_BETWEEN = b"\x1e"  # JSON never contains it
_RAW = b"\x01"
_MOST_UPLOADS = 5
_HANGS_AFTER_SECONDS = 20


class Uploads(Target):
    """Uploads one after another: JSON as AgentAPI writes it, or a raw request after a 1.

    An upload is refused with a documented error, or the current epoch begins with it. The same
    upload again changes nothing.
    """

    name: ClassVar[str] = "uploads"
    max_bytes: ClassVar[int] = 2048
    tokens: ClassVar[Sequence[bytes]] = (
        *(
            b'"messages":[',
            b'"id":',
            b'"role":"user"',
            b'"role":"agent"',
            b'"content":',
            b'"time":',
        ),
        *(b'"2026-01-02T03:04:05Z"', b'"0001-01-01T00:00:00+23:59"', b'"9999-12-31T23:59:60.9Z"'),
        *(b"2147483647", b"2147483648", b"-0.0", b"1.5", b"NaN", b"\\ud800", b"\\u0000", _BETWEEN),
        *(b".123456789", b"+23:59", b"-00:00", b"T24:00:00Z", b'"Infinity"'),
    )

    def __init__(self) -> None:
        self._loop = Loop()

    def close(self) -> None:
        self._loop.close()

    def seeds(self) -> Iterable[bytes]:
        one = _message(0, "user", "hello", "2026-01-02T03:04:05.123456789Z")
        two = _message(7, "agent", "\0 hi \U0001f600", "2026-01-02T05:04:05+02:00")
        grown = two | {"content": "\0 hi \U0001f600, and more", "time": "2026-01-02T03:04:06Z"}
        other = _message(0, "user", "hello", "2026-01-03T00:00:00Z")
        lists: list[list[dict[str, Any]]] = [
            [],
            [one],
            [one, two],
            [one, grown],
            [other],
            [two, one],
            [one | {"id": 2**31 - 1}],
            [one | {"id": 0.5}, two | {"role": "system"}, {}],
        ]
        bodies = [json.dumps({"messages": listed}).encode() for listed in lists]
        yield from bodies
        yield _BETWEEN.join(bodies[1:4])
        yield _BETWEEN.join([bodies[2], bodies[1], bodies[4], bodies[2]])
        for listed in lists[:4]:
            data = Struct()
            data.update({"messages": listed})
            request = pb.UploadLogSnapshotRequest(format=pb.SNAPSHOT_FORMAT_AGENTAPI, data=data)
            yield _RAW + request.SerializeToString()
        yield b'{"messages":7}'
        yield b'{"messages":[' + b"[" * 90 + b"]" * 90 + b"]}"

    def run(self, data: bytes) -> None:
        requests = [_request(one) for one in data.split(_BETWEEN, _MOST_UPLOADS)]
        self._loop.run(_upload([one for one in requests if one is not None]))


def _message(id_: int, role: str, content: str, time: str) -> dict[str, Any]:
    return {"id": id_, "role": role, "content": content, "time": time}


def _request(data: bytes) -> pb.UploadLogSnapshotRequest | None:
    """Return a request as the wire can carry it. None: grpc would not deliver it."""
    try:
        if data[:1] == _RAW:
            return pb.UploadLogSnapshotRequest.FromString(data[1:])
        body = json_format.Parse(data, Struct())
    except (DecodeError, json_format.ParseError, UnicodeDecodeError, RecursionError):
        return None
    request = pb.UploadLogSnapshotRequest(format=pb.SNAPSHOT_FORMAT_AGENTAPI, data=body)
    return pb.UploadLogSnapshotRequest.FromString(request.SerializeToString())


async def _upload(requests: Sequence[pb.UploadLogSnapshotRequest]) -> None:
    async with asyncio.timeout(_HANGS_AFTER_SECONDS), IngestServer.open(standalone=False) as server:
        context: Any = None  # the handler does not use it
        for request in requests:
            encoded = request.SerializeToString()
            try:
                stored = await server.service.upload_log_snapshot(encoded, context, AGENT)
            except TaskLogsError as error:
                check_refusal(error)
                continue
            _check_stored(server, await codec.snapshot_entries(encoded, LoopShare()))
            again = await server.service.upload_log_snapshot(encoded, context, AGENT)
            assert again.revision == stored.revision == server.store.head.revision


def _check_stored(server: IngestServer, entries: Sequence[Entry]) -> None:
    epochs = server.store.states[-1].epochs
    if not entries:
        return
    held = epochs[-1][: len(entries)]
    assert all(len(entry.content) <= MAX_CONTENT_BYTES for entry in held)
    assert held[:-1] == tuple(entries[:-1])
    # The last one may be an earlier state of the stored tail.
    last, kept = entries[-1], held[-1]
    assert (kept.id, kept.type) == (last.id, last.type)
    assert kept.time >= last.time
    assert kept.content.startswith(last.content)
