"""The server as a user of a shell sees it: the real grpcurl, without a proto file."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tasklogs.v1 import types_pb2 as types
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry
from tests.support.fixtures.conditions import DEADLINE_SECONDS
from tests.support.fixtures.reports import STOP, TASK, make_active, report_build
from tests.support.fixtures.server import Server

GRPCURL = Path(sys.executable).parent / "grpcurl"


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


async def grpcurl(server: Server, *verb: str, options: tuple[str, ...] = ()) -> Said:
    process = await asyncio.create_subprocess_exec(
        str(GRPCURL),
        *("-plaintext", *options, server.address, *verb),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Said(process.returncode, out.decode(), err.decode())


async def call(server: Server, method: str, request: Any, *, token: str | None = None) -> Said:
    options = ["-format-error", "-d", json.dumps(request)]
    if token is not None:
        options += ["-H", f"authorization: Bearer {token}"]
    return await grpcurl(server, f"tasklogs.v1.{method}", options=tuple(options))


@pytest.fixture
async def agent(server: Server) -> AsyncIterator[ScriptedAgent]:
    """The agent of an ACTIVE task that has two entries."""
    token = (await server.create_task()).agent_token
    await make_active(server)
    async with ScriptedAgent.connect(server, token) as connected:
        await connected.append(
            open_epoch=True, entries=[log_entry(0, "hello"), log_entry(2, "world")]
        )
        await connected.acked()
        connected.answer_syncs()
        yield connected


async def test_it_lists_the_services(server: Server) -> None:
    said = await grpcurl(server, "list")

    assert said.out.split() == [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "tasklogs.v1.TaskAgents",
        "tasklogs.v1.TaskLogs",
        "tasklogs.v1.Tasks",
    ]


async def test_it_lists_the_methods_of_each(server: Server) -> None:
    said = await grpcurl(server, "list", "tasklogs.v1.Tasks")

    assert "tasklogs.v1.Tasks.ReportBuild" in said.out.split()


async def test_it_describes_all_services_and_any_message(server: Server) -> None:
    everything = await grpcurl(server, "describe")
    assert everything.code == 0, everything
    assert "rpc GetTaskLogs (" in everything.out

    for symbol in (
        "tasklogs.v1.GetTaskLogsRequest",
        "tasklogs.v1.TaskStatus",
        "google.rpc.ErrorInfo",
        "grpc.reflection.v1.ServerReflectionRequest",
    ):
        said = await grpcurl(server, "describe", symbol)
        assert said.code == 0, said
        assert symbol in said.out


async def test_a_live_read_prints_false_and_0_and_json_names(
    server: Server, agent: ScriptedAgent
) -> None:
    read = (await call(server, "TaskLogs/GetTaskLogs", {"task": TASK})).json

    assert read["snapshot"] is False
    assert read["snapshotAt"].endswith("Z")
    assert read["firstId"] == 0
    assert read["status"] == "TASK_STATUS_ACTIVE"
    assert [(one["id"], one["type"], one["content"]) for one in read["logs"]] == [
        (0, "TASK_LOG_TYPE_OUTPUT", "hello"),
        (2, "TASK_LOG_TYPE_OUTPUT", "world"),
    ]
    assert read["revision"] == "3"
    assert agent.syncs


async def test_a_paused_task_prints_the_same_entries_as_a_snapshot(
    server: Server, agent: ScriptedAgent
) -> None:
    live = (await call(server, "TaskLogs/GetTaskLogs", {"task": TASK})).json
    await report_build(server, 2, STOP)

    stored = (await call(server, "TaskLogs/GetTaskLogs", {"task": TASK})).json

    assert stored["snapshot"] is True
    assert stored["snapshotAt"] == live["snapshotAt"]
    assert stored["logs"] == live["logs"]


async def test_a_refused_read_prints_its_details_decoded(server: Server) -> None:
    await server.create_task()
    await report_build(server, job_status=types.JOB_STATUS_FAILED)

    said = await call(server, "TaskLogs/GetTaskLogs", {"task": TASK})

    assert said.code != 0
    refusal = json.loads(said.err)
    info, failure, call_info = refusal["details"]
    assert refusal["code"] == 9
    assert info["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
    assert info["reason"] == "TASK_STATE_CONFLICT"
    assert info["metadata"]["status"] == "TASK_STATUS_ERROR"
    assert call_info["@type"] == "type.googleapis.com/google.rpc.RequestInfo"
    assert failure["violations"][0]["type"] == "TASK_STATUS"


async def test_a_bad_field_and_the_retry_delay_are_printed_with_json_names(
    server: Server,
) -> None:
    bad = json.loads((await call(server, "TaskLogs/GetTaskLogs", {"task": "x", "tail": -1})).err)
    assert [one["field"] for one in bad["details"][1]["fieldViolations"]] == ["task", "tail"]

    await server.create_task()
    await make_active(server)
    away = json.loads((await call(server, "TaskLogs/GetTaskLogs", {"task": TASK})).err)
    assert away["details"][1]["retryDelay"] == "1s"


async def test_a_task_is_created_listed_and_deleted(server: Server) -> None:
    created = (await call(server, "Tasks/CreateTask", {"name": "demo"})).json
    assert created["agentToken"].startswith("tla_")
    assert created["task"]["agentConnected"] is False
    assert created["task"]["statusDetail"]["build"]["computed"] == "TASK_STATUS_PENDING"

    listed = (await call(server, "Tasks/ListTasks", {"owner": "local"})).json
    assert [task["id"] for task in listed["tasks"]] == [created["task"]["id"]]

    assert (await call(server, "Tasks/DeleteTask", {"task": TASK})).code == 0
    gone = json.loads((await call(server, "Tasks/GetTask", {"task": TASK})).err)
    assert (gone["code"], gone["details"][0]["reason"]) == (5, "TASK_NOT_FOUND")


async def test_a_snapshot_is_uploaded_as_the_task_app_gave_it(server: Server) -> None:
    token = (await server.create_task()).agent_token
    messages = {
        "messages": [
            {"id": 0, "role": "user", "content": "hi", "time": "2026-01-02T03:04:05.6+01:00"}
        ]
    }

    uploaded = await call(
        server,
        "TaskAgents/UploadLogSnapshot",
        {"format": "SNAPSHOT_FORMAT_AGENTAPI", "data": messages},
        token=token,
    )

    assert "snapshotAt" in uploaded.json
    [only] = (await call(server, "TaskLogs/GetTaskLogs", {"task": TASK})).json["logs"]
    assert (only["content"], only["time"]) == ("hi", "2026-01-02T02:04:05.600Z")


async def test_health_can_be_checked_without_a_proto_file(server: Server) -> None:
    said = await grpcurl(server, "grpc.health.v1.Health/Check")

    assert said.json == {"status": "SERVING"}
