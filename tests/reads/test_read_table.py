"""Each cell of the read table (status x source), with stored entries and without."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import grpc
import pytest
from google.protobuf import json_format

from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs.v1 import types_pb2 as types
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry
from tests.support.fixtures.refusals import refused
from tests.support.fixtures.reports import STOP, TASK, make_active, report_agent, report_build
from tests.support.fixtures.server import Server

DEFAULT = pb.LOG_SOURCE_UNSPECIFIED
LIVE = pb.LOG_SOURCE_LIVE
SNAPSHOT = pb.LOG_SOURCE_SNAPSHOT

Answer = Literal["live", "snapshot", "refused"]


@dataclass(frozen=True)
class Row:
    status: types.TaskStatus.ValueType
    answers: tuple[Answer, Answer, Answer]
    """For the source unset, LIVE and SNAPSHOT."""


ROWS = {
    "active": Row(types.TASK_STATUS_ACTIVE, ("live", "live", "snapshot")),
    "paused": Row(types.TASK_STATUS_PAUSED, ("snapshot", "refused", "snapshot")),
    "pending": Row(types.TASK_STATUS_PENDING, ("snapshot", "refused", "snapshot")),
    "initializing": Row(types.TASK_STATUS_INITIALIZING, ("snapshot", "refused", "snapshot")),
    "error": Row(types.TASK_STATUS_ERROR, ("refused", "refused", "snapshot")),
    "unknown": Row(types.TASK_STATUS_UNKNOWN, ("refused", "refused", "snapshot")),
}
CELLS = [
    pytest.param(status, source, answer, id=f"{status}-{pb.LogSource.Name(source)}")
    for status, row in ROWS.items()
    for source, answer in zip((DEFAULT, LIVE, SNAPSHOT), row.answers, strict=True)
]


async def bring_about(server: Server, status: str) -> None:
    match status:
        case "active":
            await make_active(server)
        case "paused":
            await report_build(server, transition=STOP)
        case "initializing":
            await report_build(server, job_status=types.JOB_STATUS_RUNNING)
        case "error":
            await report_build(server, job_status=types.JOB_STATUS_FAILED)
        case "unknown":
            await report_build(server)
            await report_agent(server, types.AGENT_LIFECYCLE_OFF)


async def read(
    server: Server, source: pb.LogSource.ValueType, *, epoch: int | None = None
) -> pb.GetTaskLogsResponse:
    return await server.logs.GetTaskLogs(
        pb.GetTaskLogsRequest(task=TASK, source=source, epoch=epoch)
    )


@asynccontextmanager
async def agent_of(server: Server, *epochs: list[str]) -> AsyncIterator[ScriptedAgent]:
    """Create the task; its agent is connected, has stored `epochs` and answers syncs."""
    token = (await server.create_task()).agent_token
    async with ScriptedAgent.connect(server, token) as agent:
        for contents in epochs:
            entries = [log_entry(number, content) for number, content in enumerate(contents)]
            await agent.append(open_epoch=True, entries=entries)
            await agent.acked()
        agent.answer_syncs()
        yield agent


@pytest.mark.parametrize(("status", "source", "answer"), CELLS)
async def test_a_read_of_what_is_stored(
    server: Server, status: str, source: pb.LogSource.ValueType, answer: Answer
) -> None:
    async with agent_of(server, ["hello"]) as agent:
        await bring_about(server, status)
        began = datetime.now(UTC)

        if answer == "refused":
            await _is_refused(server, status, source)
            return
        response = await read(server, source)

        assert [one.content for one in response.logs] == ["hello"]
        assert response.HasField("snapshot")
        assert response.snapshot is (answer == "snapshot")
        assert len(agent.syncs) == (1 if answer == "live" else 0)
        snapshot_at = response.snapshot_at.ToDatetime(tzinfo=UTC)
        assert (snapshot_at >= began) is (answer == "live")
        assert snapshot_at <= datetime.now(UTC)
        assert response.status == ROWS[status].status
        assert (response.epoch, response.revision, response.first_id) == (1, 2, 0)
        assert response.HasField("first_id")
        assert response.logs[0].HasField("id")
        assert response.cursor
        assert not response.next_page_token


@pytest.mark.parametrize(("status", "source", "answer"), CELLS)
async def test_a_read_with_nothing_stored(
    server: Server, status: str, source: pb.LogSource.ValueType, answer: Answer
) -> None:
    async with agent_of(server):
        await bring_about(server, status)

        if answer == "refused":
            await _is_refused(server, status, source)
            return
        response = await read(server, source)

    assert list(response.logs) == []
    assert response.HasField("snapshot")
    assert response.snapshot is (answer == "snapshot")
    assert response.HasField("snapshot_at") is (answer == "live")
    assert (response.epoch, response.revision) == (0, 0)
    assert not response.HasField("first_id")
    assert response.status == ROWS[status].status
    assert response.cursor


@pytest.mark.parametrize(("status", "source", "answer"), CELLS)
async def test_an_earlier_epoch_is_read_from_the_store_if_the_table_allows_it(
    server: Server, status: str, source: pb.LogSource.ValueType, answer: Answer
) -> None:
    async with agent_of(server, ["first"], ["second", "again"]) as agent:
        await bring_about(server, status)

        if answer == "refused":
            refusal = await refused(read(server, source, epoch=1))
            assert refusal.reason == "TASK_STATE_CONFLICT"
            return
        response = await read(server, source, epoch=1)

        assert agent.syncs == []
        assert [one.content for one in response.logs] == ["first"]
        assert response.snapshot
        assert response.HasField("snapshot_at")
        assert (response.epoch, response.revision) == (1, 5)

        current = await read(server, source, epoch=2)
        assert [one.content for one in current.logs] == ["second", "again"]
        assert current.snapshot is (answer == "snapshot")


async def test_the_json_of_a_response_includes_false_and_0(server: Server) -> None:
    async with agent_of(server, [""]):
        await bring_about(server, "active")
        response = json_format.MessageToDict(await read(server, LIVE))

    assert response["snapshot"] is False
    assert response["firstId"] == 0
    assert response["logs"][0]["id"] == 0
    assert "snapshotAt" in response


async def test_a_snapshot_read_never_disturbs_the_agent(server: Server) -> None:
    async with agent_of(server, ["hello"]) as agent:
        await bring_about(server, "active")
        for _ in range(3):
            assert (await read(server, SNAPSHOT)).snapshot
        assert agent.syncs == []


async def test_snapshot_at_never_goes_back(server: Server) -> None:
    async with agent_of(server, ["hello"]) as agent:
        await bring_about(server, "active")
        live = await read(server, LIVE)
        assert (await read(server, SNAPSHOT)).snapshot_at == live.snapshot_at

        await agent.append(entries=[log_entry(1, "more")])
        await agent.acked()
        grown = await read(server, SNAPSHOT)
        assert grown.snapshot_at.ToNanoseconds() >= live.snapshot_at.ToNanoseconds()

        await agent.goodbye()
        left = await read(server, SNAPSHOT)
        assert left.snapshot_at == grown.snapshot_at


async def _is_refused(server: Server, status: str, source: pb.LogSource.ValueType) -> None:
    refusal = await refused(read(server, source))

    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
    assert refusal.reason == "TASK_STATE_CONFLICT"
    assert refusal.metadata["status"] == types.TaskStatus.Name(ROWS[status].status)
    assert set(refusal.metadata) == {"status", "build", "agent", "app"}
    assert refusal.kinds == ["ErrorInfo", "PreconditionFailure"]
    assert f'task status is "{status}"' in refusal.message
    assert "LOG_SOURCE_SNAPSHOT" in refusal.message
