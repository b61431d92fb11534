"""A server of tomorrow at our client library: nothing is lost, unknown values keep their number."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, TypeVar

import grpc
import pytest
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2

from tasklogs import (
    CaughtUp,
    EntriesChanged,
    Reconnected,
    Reconnecting,
    StatusChanged,
    TaskLogsClient,
    errors,
)
from tasklogs.client.events import FollowEvent
from tasklogs.v1 import task_logs_pb2, tasks_pb2, types_pb2
from tests.client.scripted_server import Refusal
from tests.compat import tomorrow
from tests.support.fakes.log_server import (
    ACTIVE,
    END,
    HOLD,
    LogServer,
    Response,
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

M = TypeVar("M", bound=Message)
NEW = tomorrow.NEW_NUMBER
FOREIGN = "errors.proxy.example"


@pytest.fixture
async def server() -> AsyncIterator[LogServer]:
    async with log_server() as server:
        yield server


@pytest.fixture
async def client(server: LogServer) -> AsyncIterator[TaskLogsClient]:
    async with TaskLogsClient(server.address, retry=None) as client:
        yield client


def grown(message: M) -> M:
    """Return `message` with the new field in each of its messages."""
    return tomorrow.as_today(tomorrow.grown(message), type(message))


def pinned(cursor: str) -> bytes:
    """Return a follow event that no client of today knows."""
    message = tomorrow.make("FollowTaskLogsResponse", cursor=cursor, pinned={"text": "new"})
    encoded: bytes = message.SerializeToString()
    return encoded


def unknown_form(cursor: str, entry_id: int, base: int, revision: int) -> bytes:
    """Return a change of the tail in a form that no client of today knows."""
    message = tomorrow.make(
        "FollowTaskLogsResponse",
        cursor=cursor,
        delta={
            "epoch": 1,
            "id": entry_id,
            "base_revision": base,
            "revision": revision,
            "lines": {"text": "new"},
        },
    )
    encoded: bytes = message.SerializeToString()
    return encoded


async def followed(
    client: TaskLogsClient, told: list[Reconnecting | Reconnected] | None = None
) -> list[FollowEvent]:
    """Return all events of a follow up to CaughtUp."""
    seen: list[FollowEvent] = []
    on_reconnect = None if told is None else told.append
    async with client.follow("local/demo", on_reconnect=on_reconnect) as follow:
        async for event in follow:
            seen.append(event)
            if isinstance(event, CaughtUp):
                return seen
    raise AssertionError("the follow ended")


def contents(events: list[FollowEvent]) -> dict[int, str]:
    """Return the last content of each entry."""
    return {
        one.id: one.content
        for event in events
        if isinstance(event, EntriesChanged)
        for one in event.entries
    }


async def test_the_cursor_of_an_unknown_event_is_taken_and_the_follow_goes_on(
    server: LogServer, client: TaskLogsClient
) -> None:
    server.streams = [
        [status("a", ACTIVE), entries("b", entry(0, "one", 1)), pinned("c"), END],
        [status("c", ACTIVE), pinned("d"), entries("e", entry(1, "two", 3)), caught_up("f"), HOLD],
    ]
    seen = await followed(client)

    assert contents(seen) == {0: "one", 1: "two"}
    assert [request.cursor for request in server.follows] == ["", "c"]
    assert len(server.follows) == 2


async def test_the_cursor_of_an_unknown_event_is_taken_also_if_it_is_compressed(
    server: LogServer, client: TaskLogsClient
) -> None:
    server.streams = [
        [status("a1", ACTIVE), compressed(pinned(""), cursor_end="2"), END],
        [status("a2", ACTIVE), compressed(entries("", entry(0, "one", 3)), cursor="a3"), END],
        [status("a3", ACTIVE), caught_up("a4"), HOLD],
    ]
    seen = await followed(client)

    assert contents(seen) == {0: "one"}
    assert [request.cursor for request in server.follows] == ["", "a2", "a3"]


async def test_a_follow_goes_on_at_an_older_server_that_compresses_nothing(
    server: LogServer, client: TaskLogsClient
) -> None:
    """An update that is taken back: the older server ignores `compressed`."""
    newer: list[Step] = [
        status("task-1", ACTIVE),
        compressed(entries("", entry(0, "one", 2)), cursor_end="2"),
        END,
    ]
    older: list[Step] = [
        status("task-2", ACTIVE),
        entries("task-3", entry(1, "two", 3)),
        delta("task-4", 1, 3, 4, 3, "!", crc32=zlib.crc32(b"two!")),
        END,
    ]
    newer_again: list[Step] = [
        status("task-4", ACTIVE),
        compressed(entries("", entry(2, "three", 5)), cursor_end="5"),
        compressed(caught_up(""), cursor_end="5"),
        HOLD,
    ]
    server.streams = [newer, older, newer_again]
    seen = await followed(client)

    assert contents(seen) == {0: "one", 1: "two!", 2: "three"}
    assert [request.cursor for request in server.follows] == ["", "task-2", "task-4"]
    assert all(request.compressed for request in server.follows)


async def test_the_cursor_after_an_unknown_event_is_the_events(
    server: LogServer, client: TaskLogsClient
) -> None:
    server.streams = [[status("a", ACTIVE), pinned("b"), caught_up(""), HOLD]]
    async with client.follow("local/demo") as follow:
        async for event in follow:
            if isinstance(event, CaughtUp):
                break
        assert follow.cursor == "b"


async def test_a_delta_of_an_unknown_form_makes_the_follow_start_again_and_loses_nothing(
    server: LogServer, client: TaskLogsClient
) -> None:
    told: list[Reconnecting | Reconnected] = []
    server.streams = [
        [
            status("a", ACTIVE),
            entries("b", entry(0, "one", 1)),
            unknown_form("c", 0, 1, 2),
            caught_up("d"),
            HOLD,
        ],
        [status("b", ACTIVE), entries("c", entry(0, "one two", 2)), caught_up("d"), HOLD],
    ]
    seen = await followed(client, told)

    assert contents(seen) == {0: "one two"}
    first, second = server.follows
    assert (first.deltas, second.deltas) == (True, False)
    assert second.cursor == "b"
    assert isinstance(told[0], Reconnecting)
    assert isinstance(told[0].error, errors.StreamInconsistent)


async def test_a_delta_with_no_form_at_all_makes_the_follow_start_again(
    server: LogServer, client: TaskLogsClient
) -> None:
    empty = delta("c", 0, 1, 2, 0, "")
    empty.delta.ClearField("content")
    server.streams = [
        [status("a", ACTIVE), entries("b", entry(0, "one", 1)), empty, caught_up("d"), HOLD],
        [status("b", ACTIVE), entries("c", entry(0, "one two", 2)), caught_up("d"), HOLD],
    ]
    seen = await followed(client)

    assert contents(seen) == {0: "one two"}
    assert server.follows[1].cursor == "b"


async def test_unknown_fields_in_every_event_change_nothing(
    server: LogServer, client: TaskLogsClient
) -> None:
    grows = delta("c", 0, 1, 2, 3, " two", crc32=0xCD07892F)
    plain: list[Step] = [
        status("a", ACTIVE),
        entries("b", entry(0, "one", 1)),
        grows,
        progress("d"),
        entries("e", entry(1, "gone", 3)),
        withdrawn("f", 1, 4),
        epoch_started("g", 2, 5),
        entries("h", entry(0, "other", 6), epoch=2),
        caught_up("i"),
        HOLD,
    ]
    of_tomorrow = [grown(step) if isinstance(step, Response) else step for step in plain]
    server.streams = [
        plain,
        of_tomorrow,
        [
            grown(compressed(step, cursor=step.cursor)) if isinstance(step, Response) else step
            for step in of_tomorrow
        ],
    ]
    first = await followed(client)
    assert await followed(client) == first
    assert await followed(client) == first
    assert len(server.follows) == 3


async def test_unknown_enum_values_of_a_follow_keep_their_numbers(
    server: LogServer, client: TaskLogsClient
) -> None:
    for_status = tomorrow.make(
        "FollowTaskLogsResponse",
        cursor="a",
        status={
            "status": NEW,
            "status_detail": {
                "build": {"number": 1, "transition": NEW, "job_status": NEW, "computed": NEW},
                "agent": {"lifecycle": NEW, "computed": NEW},
                "app": {"health": NEW, "computed": NEW},
            },
        },
    )
    server.streams = [
        [for_status.SerializeToString(), entries("b", of_type(7), of_type(NEW, 1)), caught_up("c")]
    ]
    seen = await followed(client)

    [changed] = [event for event in seen if isinstance(event, StatusChanged)]
    detail = changed.detail
    numbers = [
        changed.status,
        *(detail.build.transition, detail.build.job_status, detail.build.computed),
        *(detail.agent.lifecycle, detail.agent.computed, detail.app.health, detail.app.computed),
    ]
    assert [int(number) for number in numbers] == [NEW] * 8
    assert changed.status.name == f"UNRECOGNIZED_{NEW}"
    types = [
        one.type for event in seen if isinstance(event, EntriesChanged) for one in event.entries
    ]
    assert [(int(type_), type_.name) for type_ in types] == [
        (7, "UNRECOGNIZED_7"),
        (NEW, f"UNRECOGNIZED_{NEW}"),
    ]
    assert contents(seen) == {0: "of type 7", 1: f"of type {NEW}"}


def of_type(number: int, entry_id: int = 0) -> types_pb2.TaskLogEntry:
    """Return an entry of an unknown type."""
    message = entry(entry_id, f"of type {number}", entry_id + 1)
    message.type = types_pb2.TaskLogType.ValueType(number)
    return message


async def test_a_status_of_tomorrow_that_changes_to_another_one_is_told(
    server: LogServer, client: TaskLogsClient
) -> None:
    first, second = (
        status(cursor, types_pb2.TaskStatus.ValueType(number))
        for cursor, number in (("a", 98), ("b", NEW))
    )
    server.streams = [[first, second, caught_up("c"), HOLD]]
    seen = await followed(client)
    assert [int(one.status) for one in seen if isinstance(one, StatusChanged)] == [98, NEW]


async def test_a_read_of_tomorrow_is_whole(server: LogServer, client: TaskLogsClient) -> None:
    first = task_logs_pb2.GetTaskLogsResponse(
        logs=[entry(0, "one", 1), of_type(7, 1)],
        status=types_pb2.TaskStatus.ValueType(NEW),
        epoch=1,
        cursor="c",
        next_page_token="next",
    )
    second = task_logs_pb2.GetTaskLogsResponse(logs=[of_type(NEW, 2)], epoch=1)
    server.answers = [grown(first), grown(second)]
    log = await client.get("local/demo")
    read = await log.all()

    assert [(one.id, int(one.type), one.content) for one in read] == [
        (0, types_pb2.TASK_LOG_TYPE_INPUT, "one"),
        (1, 7, "of type 7"),
        (2, NEW, f"of type {NEW}"),
    ]
    assert (int(log.status), log.cursor) == (NEW, "c")
    assert [request.page_token for request in requests(server)] == ["", "next"]


def requests(server: LogServer) -> list[Any]:
    return list(server.requests)


async def test_a_task_of_tomorrow_is_read(server: LogServer, client: TaskLogsClient) -> None:
    task = tasks_pb2.Task(
        id="1", owner="local", name="demo", status=types_pb2.TaskStatus.ValueType(NEW)
    )
    task.created_at.GetCurrentTime()
    task.status_detail.build.job_status = types_pb2.JobStatus.ValueType(NEW)
    server.answers = [grown(task), tasks_pb2.ListTasksResponse(tasks=[grown(task)])]

    got = await client.get_task("local/demo")
    [listed] = [one async for one in client.list_tasks()]

    assert replace(got, prompt=None) == listed
    assert (int(got.status), int(got.status_detail.build.job_status)) == (NEW, NEW)
    assert got.full_name == "local/demo"


CODES = [
    (grpc.StatusCode.INVALID_ARGUMENT, errors.InvalidArgument),
    (grpc.StatusCode.FAILED_PRECONDITION, errors.FailedPrecondition),
    (grpc.StatusCode.UNAUTHENTICATED, errors.Unauthenticated),
    (grpc.StatusCode.PERMISSION_DENIED, errors.PermissionDenied),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, errors.LimitExceeded),
    (grpc.StatusCode.DEADLINE_EXCEEDED, errors.DeadlineExceeded),
    (grpc.StatusCode.UNAVAILABLE, errors.Unavailable),
    (grpc.StatusCode.NOT_FOUND, errors.TaskLogsRpcError),
    (grpc.StatusCode.ALREADY_EXISTS, errors.TaskLogsRpcError),
    (grpc.StatusCode.ABORTED, errors.TaskLogsRpcError),
    (grpc.StatusCode.OUT_OF_RANGE, errors.TaskLogsRpcError),
    (grpc.StatusCode.DATA_LOSS, errors.TaskLogsRpcError),
    (grpc.StatusCode.INTERNAL, errors.TaskLogsRpcError),
]


@pytest.mark.parametrize(("code", "kind"), CODES, ids=lambda one: getattr(one, "name", ""))
async def test_an_unknown_reason_with_a_known_code_raises_the_class_of_the_code(
    server: LogServer,
    client: TaskLogsClient,
    code: grpc.StatusCode,
    kind: type[errors.TaskLogsRpcError],
) -> None:
    info = error_details_pb2.ErrorInfo(
        reason="REASON_OF_TOMORROW", domain="tasklogs.v1", metadata={"new": "1"}
    )
    server.answers = [Refusal(code, "new", [info, *UNKNOWN_DETAILS])]
    with pytest.raises(errors.TaskLogsRpcError) as raised:
        await client.get_task("local/demo")
    error = raised.value
    # Exactly this class: a subclass would say more than the server did.
    assert type(error) is kind
    assert (error.code, error.reason, error.metadata) == (code, "REASON_OF_TOMORROW", {"new": "1"})


UNKNOWN_DETAILS: list[Message] = [
    tomorrow.make("ThingOfTomorrow", text="a detail that no client of today knows"),
    error_details_pb2.DebugInfo(detail="a detail that this client does not use"),
    any_pb2.Any(type_url="type.googleapis.com/no.such.Type", value=b"\xff\xff"),
]


@pytest.mark.parametrize("foreign_first", [True, False])
async def test_a_reason_of_another_domain_is_not_taken_for_ours(
    server: LogServer, client: TaskLogsClient, foreign_first: bool
) -> None:
    foreign = error_details_pb2.ErrorInfo(reason="TASK_NOT_FOUND", domain=FOREIGN)
    ours = error_details_pb2.ErrorInfo(reason="DRAINING", domain="tasklogs.v1")
    both = [foreign, ours] if foreign_first else [ours, foreign]
    server.answers = [
        Refusal(grpc.StatusCode.NOT_FOUND, "a proxy's", [foreign]),
        Refusal(grpc.StatusCode.UNAVAILABLE, "both", both),
    ]
    with pytest.raises(errors.TaskLogsRpcError) as raised:
        await client.get_task("local/demo")
    assert (type(raised.value), raised.value.reason) == (errors.TaskLogsRpcError, None)

    with pytest.raises(errors.ServerDraining) as drained:
        await client.get_task("local/demo")
    assert drained.value.reason == "DRAINING"


async def test_a_refused_read_names_a_status_of_tomorrow(
    server: LogServer, client: TaskLogsClient
) -> None:
    info = error_details_pb2.ErrorInfo(
        reason="TASK_STATE_CONFLICT",
        domain="tasklogs.v1",
        metadata={"status": "TASK_STATUS_HIBERNATED"},
    )
    server.answers = [Refusal(grpc.StatusCode.FAILED_PRECONDITION, "new", [info])]
    with pytest.raises(errors.TaskStateConflict) as raised:
        await client.get("local/demo")
    assert int(raised.value.status) == 0
    assert raised.value.metadata["status"] == "TASK_STATUS_HIBERNATED"


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED])
async def test_a_running_follow_goes_on_after_an_unknown_reason_with_a_passing_code(
    server: LogServer, client: TaskLogsClient, code: grpc.StatusCode
) -> None:
    info = error_details_pb2.ErrorInfo(reason="REASON_OF_TOMORROW", domain="tasklogs.v1")
    server.streams = [
        [status("a", ACTIVE), entries("b", entry(0, "one", 1)), Refusal(code, "new", [info])],
        [status("b", ACTIVE), entries("c", entry(1, "two", 2)), caught_up("d"), HOLD],
    ]
    assert contents(await followed(client)) == {0: "one", 1: "two"}
    assert server.follows[1].cursor == "b"
