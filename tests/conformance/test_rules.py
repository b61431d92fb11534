"""What a follow does with each kind of stream, in every language."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2

from tasklogs.v1 import task_logs_pb2, types_pb2
from tests.client.scripted_server import Refusal
from tests.conformance.drivers import Driver
from tests.support.fakes.log_server import (
    ACTIVE,
    END,
    ERROR,
    HOLD,
    PAUSED,
    LogServer,
    Step,
    caught_up,
    compressed,
    delta,
    entries,
    entry,
    epoch_started,
    log_server,
    progress,
    status,
    withdrawn,
)
from tests.support.fixtures.conditions import DEADLINE_SECONDS

CODE = grpc.StatusCode
Line = dict[str, Any]


def refusal(code: grpc.StatusCode, reason: str = "", *details: Message, **metadata: str) -> Refusal:
    info = error_details_pb2.ErrorInfo(reason=reason, domain="tasklogs.v1", metadata=metadata)
    return Refusal(code, "no", [info, *details] if reason else list(details))


def wait(length: timedelta) -> error_details_pb2.RetryInfo:
    delay = Duration()
    delay.FromTimedelta(length)
    return error_details_pb2.RetryInfo(retry_delay=delay)


CONFLICT = refusal(CODE.FAILED_PRECONDITION, "TASK_STATE_CONFLICT", status="TASK_STATUS_ERROR")
DRAINING = refusal(CODE.UNAVAILABLE, "DRAINING")


@pytest.fixture
async def server() -> AsyncIterator[LogServer]:
    async with asyncio.timeout(DEADLINE_SECONDS), log_server() as server:
        yield server


def names(lines: Sequence[Line]) -> list[str]:
    return [line["event"] for line in lines]


def contents(lines: Sequence[Line]) -> list[tuple[int, str]]:
    return [
        (change["id"], change["content"]) for line in lines for change in line.get("changes", ())
    ]


async def test_every_event_has_its_type_and_cursor(server: LogServer, driver: Driver) -> None:
    server.streams = [
        [
            status("c0", ACTIVE),
            entries("c1", entry(0, "hello", 2), entry(1, "hi", 3)),
            caught_up("c1"),
            withdrawn("c4", 1, 4),
            epoch_started("c5", 2, 5),
            progress("c6"),
            HOLD,
        ]
    ]

    lines = await driver.follow(server.address, tail=5, progress=True, until_events=6)

    assert names(lines) == [
        *("status", "entries", "caught_up", "withdrawn", "epoch", "progress", "left")
    ]
    assert [line.get("cursor") for line in lines[:-1]] == ["c0", "c1", "c1", "c4", "c5", "c6"]
    assert contents(lines) == [(0, "hello"), (1, "hi")]
    first = lines[1]["changes"][0]
    assert (first["type"], first["time_ns"]) == (1, 1_795_000_000_123_456_789)
    assert server.follows == [
        task_logs_pb2.FollowTaskLogsRequest(task="local/demo", tail=5, deltas=True, compressed=True)
    ]


async def test_growth_comes_whole_and_with_the_appended_text(
    server: LogServer, driver: Driver
) -> None:
    server.streams = [
        [
            status("c0", ACTIVE),
            entries("c1", entry(0, "漢", 1)),
            delta("c2", 0, 1, 2, keep=3, text="字"),
            delta("c3", 0, 2, 3, keep=3, text="a"),
            entries("c4", entry(0, "漢ab", 4)),
            HOLD,
        ]
    ]

    lines = await driver.follow(server.address, until_events=5)

    changes = [change for line in lines for change in line.get("changes", ())]
    assert [
        (one["content"], one["appended"], one["kept_bytes"], one["replaces"]) for one in changes
    ] == [("漢", "漢", 0, 0), ("漢字", "字", 3, 1), ("漢a", None, 3, 2), ("漢ab", "b", 4, 3)]


async def test_an_entry_that_lost_its_front_still_says_what_was_appended(
    server: LogServer, driver: Driver
) -> None:
    server.streams = [
        [
            status("c0", ACTIVE),
            entries("c1", entry(0, "0123456789", 1)),
            entries("c2", entry(0, "456789ab", 2, dropped_bytes=4)),
            HOLD,
        ]
    ]

    lines = await driver.follow(server.address, until_events=3)

    (change,) = lines[2]["changes"]
    assert (change["appended"], change["kept_bytes"], change["dropped_bytes"]) == ("ab", 0, 4)


async def test_compressed_messages_and_ends_of_cursors_are_what_they_stand_for(
    server: LogServer, driver: Driver
) -> None:
    grown = delta("", 1, 1, 2, keep=1, text="b", crc32=zlib.crc32(b"ab"))
    grown.cursor_end = "c2"
    server.streams = [
        [
            status("task-c0", ACTIVE),
            compressed(entries("", entry(1, "a", 1)), cursor_end="c1"),
            grown,
            compressed(withdrawn("", 1, 3), cursor_end="ask-c3"),
            HOLD,
        ]
    ]

    lines = await driver.follow(server.address, until_events=4)

    assert [line["cursor"] for line in lines[:-1]] == ["task-c0", "task-c1", "task-c2", "task-c3"]
    assert contents(lines) == [(1, "a"), (1, "ab")]


def _bad(**fields: bytes | int) -> task_logs_pb2.FollowTaskLogsResponse:
    message = task_logs_pb2.FollowTaskLogsResponse(cursor="c1")
    message.compressed.MergeFrom(types_pb2.CompressedMessage(**fields))  # type: ignore[arg-type]
    return message


@pytest.mark.parametrize(
    "bad",
    [
        _bad(zlib=zlib.compress(b"\x3a\x00"), size_bytes=3),
        _bad(zlib=zlib.compress(b"\x3a\x00") + b"x", size_bytes=2),
        _bad(zlib=b"?", size_bytes=1),
        _bad(zlib=zlib.compress(bytes(1 << 25)), size_bytes=1 << 18),
        _bad(zlib=zlib.compress(b"\x3a\xff"), size_bytes=2),
        compressed(_bad(zlib=zlib.compress(b"\x3a\x00"), size_bytes=2)),
        task_logs_pb2.FollowTaskLogsResponse(cursor_end="longer than the cursor"),
        delta("c1", 1, 1, 2, keep=0, text="?"),
    ],
    ids=[
        "too short",
        "more behind it",
        "not zlib",
        "a bomb",
        "no message",
        "compressed twice",
        "an end alone",
        "a delta without a base",
    ],
)
async def test_what_cannot_be_used_is_read_again_whole(
    server: LogServer, driver: Driver, bad: Step
) -> None:
    server.streams = [
        [status("c0", ACTIVE), bad, HOLD],
        [status("c0", ACTIVE), entries("c1", entry(1, "a", 1)), HOLD],
    ]

    lines = await driver.follow(server.address, until_events=2)

    assert contents(lines) == [(1, "a")]
    assert [(one.compressed, one.deltas) for one in server.follows] == [
        (True, True),
        (False, False),
    ]
    assert [one.cursor for one in server.follows] == ["", "c0"]


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (refusal(CODE.NOT_FOUND, "TASK_NOT_FOUND"), "TASK_NOT_FOUND"),
        (refusal(CODE.INVALID_ARGUMENT, "INVALID_FIELDS"), "INVALID_FIELDS"),
        (refusal(CODE.OUT_OF_RANGE, "CURSOR_EXPIRED", oldest_cursor="c7"), "CURSOR_EXPIRED"),
        (refusal(CODE.UNAUTHENTICATED, "TOKEN_EXPIRED"), "TOKEN_EXPIRED"),
        (refusal(CODE.PERMISSION_DENIED, "PERMISSION_DENIED"), "PERMISSION_DENIED"),
        (refusal(CODE.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED"), "LIMIT_EXCEEDED"),
        (refusal(CODE.DATA_LOSS, "LOG_CORRUPT"), "LOG_CORRUPT"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("begun", [False, True], ids=["first", "running"])
async def test_a_permanent_error_ends_a_follow(
    server: LogServer, driver: Driver, refused: Refusal, reason: str, *, begun: bool
) -> None:
    server.streams = [[status("c0", ACTIVE), refused] if begun else [refused]]

    lines = await driver.follow(server.address)

    assert names(lines) == (["status", "error"] if begun else ["error"])
    assert (lines[-1]["code"], lines[-1]["reason"]) == (refused.code.value[0], reason)
    assert lines[-1]["oldest_cursor"] == ("c7" if reason == "CURSOR_EXPIRED" else "")


@pytest.mark.parametrize(
    "code", [CODE.UNAUTHENTICATED, CODE.PERMISSION_DENIED, CODE.NOT_FOUND, CODE.UNIMPLEMENTED]
)
async def test_what_a_proxy_says_ends_a_new_follow_and_no_running_one(
    server: LogServer, driver: Driver, code: grpc.StatusCode
) -> None:
    said = refusal(code)
    server.streams = [[said], [status("c0", ACTIVE), said], [said], [said], [progress("c1"), HOLD]]

    assert names(await driver.follow(server.address)) == ["error"]
    lines = await driver.follow(server.address, progress=True, until_events=2)

    assert names(lines)[0] == "status"
    assert names(lines)[-2:] == ["progress", "left"]
    assert len(server.follows) == 5


@pytest.mark.parametrize(
    "broken",
    [
        DRAINING,
        END,
        *map(refusal, (CODE.UNAVAILABLE, CODE.ABORTED, CODE.INTERNAL, CODE.UNKNOWN)),
        *map(refusal, (CODE.CANCELLED, CODE.DEADLINE_EXCEEDED)),
    ],
    ids=lambda value: value.code.name if isinstance(value, Refusal) else value.name,
)
async def test_a_running_follow_survives_what_passes(
    server: LogServer, driver: Driver, broken: Step
) -> None:
    server.streams = [
        [status("c0", ACTIVE), entries("c1", entry(0, "a", 1)), broken],
        [status("c1", ACTIVE), entries("c2", entry(1, "b", 2)), HOLD],
    ]

    lines = await driver.follow(server.address, until_events=3)

    assert contents(lines) == [(0, "a"), (1, "b")]
    assert names(lines) == [
        *("status", "entries", "reconnecting", "reconnected", "entries", "left")
    ]
    assert [one.cursor for one in server.follows] == ["", "c1"]


async def test_a_status_that_refuses_reads_does_not_end_a_follow_that_reconnects(
    server: LogServer, driver: Driver
) -> None:
    server.streams = [
        [status("c0", ACTIVE), DRAINING],
        [CONFLICT],
        [status("c0", ERROR), DRAINING],
        [status("c0", PAUSED), HOLD],
    ]

    lines = await driver.follow(server.address, until_status="PAUSED")

    assert [line["status"] for line in lines if line["event"] == "status"] == [
        *("ACTIVE", "ERROR", "PAUSED")
    ]
    assert [one.source for one in server.follows] == [
        task_logs_pb2.LOG_SOURCE_UNSPECIFIED,
        task_logs_pb2.LOG_SOURCE_UNSPECIFIED,
        task_logs_pb2.LOG_SOURCE_SNAPSHOT,
        task_logs_pb2.LOG_SOURCE_UNSPECIFIED,
    ]


async def test_a_first_call_is_retried_if_it_is_unavailable(
    server: LogServer, driver: Driver
) -> None:
    server.streams = [[DRAINING], [DRAINING], [status("c0", ACTIVE), HOLD], [refusal(CODE.ABORTED)]]

    lines = await driver.follow(server.address, tail=3, until_events=1)
    refused = await driver.follow(server.address)

    assert names(lines) == [*("reconnecting", "reconnecting", "reconnected", "status", "left")]
    assert [one.tail for one in server.follows[:3]] == [3, 3, 3]
    assert names(refused) == ["error"]


async def test_a_server_can_set_the_wait(server: LogServer, driver: Driver) -> None:
    busy = refusal(CODE.RESOURCE_EXHAUSTED, "TOO_MANY_REQUESTS", wait(timedelta(milliseconds=300)))
    server.streams = [[status("c0", ACTIVE), busy], [status("c1", PAUSED), HOLD]]

    lines = await driver.follow(server.address, until_status="PAUSED")

    told = next(line for line in lines if line["event"] == "reconnecting")
    assert 300 <= told["delay_ms"] <= 450


async def test_waits_grow_until_a_stream_continues(server: LogServer, driver: Driver) -> None:
    server.streams = [
        [status("c0", ACTIVE), DRAINING],
        *[[DRAINING]] * 3,
        [status("c0", ACTIVE), progress("c1"), DRAINING],
        [status("c1", PAUSED), HOLD],
    ]

    lines = await driver.follow(
        server.address, until_status="PAUSED", first_wait_ms=4, most_wait_ms=20
    )

    told = [line for line in lines if line["event"] == "reconnecting"]
    assert [line["attempt"] for line in told] == [1, 2, 3, 4, 1]
    for line, most in zip(told, (4, 8, 16, 20, 4), strict=True):
        assert most // 2 <= line["delay_ms"] <= most


async def test_a_token_that_is_refused_is_asked_for_once_more(
    server: LogServer, driver: Driver
) -> None:
    expired = refusal(CODE.UNAUTHENTICATED, "TOKEN_EXPIRED")
    server.streams = [[expired], [status("c0", ACTIVE), HOLD], [expired], [expired]]

    lines = await driver.follow(server.address, tokens=["old", "new"], until_events=1)
    refused = await driver.follow(server.address, tokens=["old", "older"])

    assert names(lines)[-2:] == ["status", "left"]
    assert names(refused)[-1] == "error"
    assert server.tokens == ["Bearer old", "Bearer new", "Bearer old", "Bearer older"]


async def test_an_event_of_a_newer_server_is_skipped_but_its_cursor_is_used(
    server: LogServer, driver: Driver
) -> None:
    case = b"\x9a\x06\x03new"  # field 99, three bytes
    newer = case + task_logs_pb2.FollowTaskLogsResponse(cursor="c5").SerializeToString()
    server.streams = [[status("c0", ACTIVE), newer, DRAINING], [status("c5", PAUSED), HOLD]]

    await driver.follow(server.address, until_status="PAUSED")

    assert server.follows[1].cursor == "c5"
