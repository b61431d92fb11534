"""The trailing metadata of a failed call, as a server may send it."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import ClassVar

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2 as details_pb
from google.rpc.status_pb2 import Status

from tasklogs.agent.settings import Settings
from tasklogs.cli.render.terminal_text import one_line
from tasklogs.cli.rpc_failure import describe
from tasklogs.client.backoff import Backoff as FollowBackoff
from tasklogs.client.backoff import ReconnectWaits
from tasklogs.enums import TaskStatus
from tasklogs.errors import CursorExpired, TaskLogsRpcError, TaskStateConflict
from tasklogs.publish.reconnect import Backoff, Fatal, StreamEnded
from tests.fuzz.target import Target

_CODES = list(grpc.StatusCode)
_CONTROL = frozenset(map(chr, (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)))
_LONGEST = timedelta(hours=1.5)


class ErrorDetails(Target):
    """It becomes an error of the library that people and programs can act on."""

    name: ClassVar[str] = "error_details"
    tokens: ClassVar[Sequence[bytes]] = (
        *(b"type.googleapis.com/google.rpc.ErrorInfo", b"type.googleapis.com/google.rpc.RetryInfo"),
        *(b"type.googleapis.com/google.rpc.BadRequest", b"tasklogs.v1", b"TASK_STATE_CONFLICT"),
        *(b"type.googleapis.com/google.rpc.QuotaFailure", b"SESSION_SUPERSEDED", b"STALE_REPORT"),
    )

    def seeds(self) -> Iterable[bytes]:
        info = details_pb.ErrorInfo(
            reason="TASK_STATE_CONFLICT", domain="tasklogs.v1", metadata={"status": "x\x1b\u202e"}
        )
        yield _status(9, "no", info)
        yield _status(
            11, "gone", details_pb.ErrorInfo(reason="CURSOR_EXPIRED", domain="tasklogs.v1")
        )
        for seconds in (5, -5, 2**63 - 1, -(2**63), 86_399_999_999_999):
            retry = details_pb.RetryInfo(retry_delay=Duration(seconds=seconds, nanos=-1))
            yield _status(14, "later", retry)
        bad = details_pb.BadRequest()
        bad.field_violations.add(field="\x1b]0;x\x07", description="\r\n\u2028" + "x" * 300)
        yield _status(3, "bad\x00", bad, details_pb.QuotaFailure(), info)
        garbage = Status(code=14, message="x")
        garbage.details.add(type_url="type.googleapis.com/google.rpc.RetryInfo", value=b"\xff\xff")
        yield garbage.SerializeToString()

    def run(self, data: bytes) -> None:
        code, message = _CODES[data[0] % len(_CODES) if data else 0], "said\x1b\n"
        try:
            said = Status.FromString(data)
        except DecodeError:
            pass
        else:
            # Details that contradict the status of gRPC are ignored completely.
            code = next((one for one in _CODES if one.value[0] == said.code), code)
            message = said.message
        trailing = grpc.aio.Metadata(("grpc-status-details-bin", data))
        raised = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, message)
        error = TaskLogsRpcError.from_rpc_error(raised)
        assert (error.code, error.message) == (code, message)
        _for_programs(error)
        shown = one_line(describe(error, "server:1", 5.0))
        assert shown
        assert (_CONTROL | {"\u202e", "\u2066"}).isdisjoint(shown)
        for was_welcome in (False, True):
            _for_the_agent(StreamEnded.of(raised, was_welcome=was_welcome))


def _status(code: int, message: str, *details: Message) -> bytes:
    status = Status(code=code, message=message)
    for detail in details:
        packed = Any()
        packed.Pack(detail)
        status.details.append(packed)
    encoded: bytes = status.SerializeToString()
    return encoded


def _for_programs(error: TaskLogsRpcError) -> None:
    assert str(error)
    assert all(isinstance(one, str) for pair in error.metadata.items() for one in pair)
    if isinstance(error, TaskStateConflict):
        assert isinstance(error.status, TaskStatus)
    if isinstance(error, CursorExpired):
        assert error.oldest_cursor is None or isinstance(error.oldest_cursor, str)
    wait = FollowBackoff(ReconnectWaits(), random.Random(1)).next_wait(error.retry_after)
    assert timedelta(0) <= wait <= _LONGEST


def _for_the_agent(ended: StreamEnded) -> None:
    assert _CONTROL.isdisjoint(ended.reason)
    try:
        seconds = Backoff(Settings(), random.Random(1)).wait_seconds(ended)
    except Fatal as fatal:
        assert _CONTROL.isdisjoint(str(fatal))
    else:
        assert 0 <= seconds <= _LONGEST.total_seconds()
