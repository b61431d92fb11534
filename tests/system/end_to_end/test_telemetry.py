"""Server and agent as processes with all telemetry on: what it must contain, and must not contain.

A live read goes through the server, the agent's stream and the task app, and so does its trace.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs.v1 import task_logs_pb2_grpc, tasks_pb2, tasks_pb2_grpc
from tests.support.fakes.task_app import FakeTaskApp
from tests.support.fixtures.conditions import until
from tests.support.fixtures.ports import lasting_port
from tests.system.end_to_end.programs import Program, agent_command, program, serve_command
from tests.telemetry.collector import Collector, collecting

CONTENT = "xyzzy-what-a-person-wrote"
PROMPT = "xyzzy-what-was-asked-of-it"
NAME_SHOWN = "xyzzy-a-name-to-be-shown"
_NOT_YET = (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNAVAILABLE)
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
GET = "tasklogs.v1.TaskLogs/GetTaskLogs"


@dataclass
class Deployed:
    """A server and an agent, both with traces on, and a task app that has said something."""

    address: str
    metrics: str
    server: Program
    agent: Program
    collector: Collector
    task: tasks_pb2.CreateTaskResponse

    async def read(self, *metadata: tuple[str, str], task: str = "local/demo") -> Any:
        async with grpc.aio.insecure_channel(self.address) as channel:
            request = pb.GetTaskLogsRequest(task=task, source=pb.LOG_SOURCE_LIVE)
            stub = task_logs_pb2_grpc.TaskLogsStub(channel)
            return await stub.GetTaskLogs(request, metadata=metadata, timeout=20)

    async def end(self) -> None:
        """Stop both gracefully. All traces are exported by then."""
        assert await self.agent.end() == 0, self.agent.said
        assert await self.server.end() == 0, self.server.said


@pytest.fixture
async def deployed(database: str, tmp_path: Path) -> AsyncIterator[Deployed]:
    port, metrics_port = lasting_port(), lasting_port()
    address, metrics = f"127.0.0.1:{port}", f"127.0.0.1:{metrics_port}"
    async with collecting() as collector, FakeTaskApp() as app:
        traced = {
            "TASKLOGS_TRACES": "true",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "NO_PROXY": "127.0.0.1",
        }
        server = program(
            tmp_path / "server.log",
            *serve_command(port, database),
            TASKLOGS_METRICS_LISTEN=metrics,
            TASKLOGS_LOG_CALLS="all",
            TASKLOGS_LOG_FORMAT="json",
            TASKLOGS_LOG_LEVEL="debug",
            TASKLOGS_CHANNELZ="true",
            **traced,
        )
        async with server as serving:
            task = await _created(address)
            app.become_ready()
            app.say("user", CONTENT)
            app.say("agent", f"{CONTENT} too")
            agent = program(
                tmp_path / "agent.log",
                *agent_command(address, app.url),
                TASKLOGS_AGENT_TOKEN=task.agent_token,
                **traced,
            )
            async with agent as running:
                yield Deployed(address, metrics, serving, running, collector, task)


async def _created(address: str) -> tasks_pb2.CreateTaskResponse:
    async with grpc.aio.insecure_channel(address) as channel:
        return await tasks_pb2_grpc.TasksStub(channel).CreateTask(
            tasks_pb2.CreateTaskRequest(
                name="demo", standalone=True, prompt=PROMPT, display_name=NAME_SHOWN
            ),
            wait_for_ready=True,
            timeout=30,
        )


async def _read_live(deployed: Deployed, *metadata: tuple[str, str]) -> Any:
    """Read as soon as the agent has reported that its task app is healthy."""
    answers: list[Any] = []

    async def look() -> bool:
        try:
            answers.append(await deployed.read(*metadata))
        except grpc.aio.AioRpcError as error:
            if error.code() not in _NOT_YET:
                raise
            return False
        return True

    await until(look)
    return answers[-1]


async def test_a_traced_read_is_one_trace_through_server_agent_and_back(
    deployed: Deployed,
) -> None:
    await _read_live(deployed)  # only sampled by chance
    traceparent = f"00-{TRACE_ID}-{CALLER}-01"
    answer = await deployed.read(("traceparent", traceparent), ("x-request-id", "read-1"))
    assert any(CONTENT in entry.content for entry in answer.logs)
    await deployed.end()

    spans = [span for span in deployed.collector.spans if span.trace_id == TRACE_ID]
    rpc, sync, fetch = (_only(spans, name) for name in (GET, "sync", "fetch"))
    assert rpc.parent_id == CALLER
    assert sync.parent_id == rpc.span_id
    assert fetch.parent_id == sync.span_id
    assert (rpc.service, fetch.service) == ("tasklogs-server", "tasklogs-agent")
    assert rpc.attributes["tasklogs.request_id"] == "read-1"
    assert rpc.attributes["tasklogs.task_id"] == deployed.task.task.id
    assert rpc.attributes["tasklogs.code"] == "OK"
    [session] = deployed.collector.named("session")
    [connect] = deployed.collector.named("tasklogs.v1.TaskAgents/Connect")
    assert connect.parent_id == session.span_id


async def test_no_user_text_and_no_token_is_in_logs_metrics_or_traces(
    deployed: Deployed,
) -> None:
    await _read_live(deployed)
    for number in range(20):
        await deployed.read(("x-request-id", f"busy-{number}"))
    with pytest.raises(grpc.aio.AioRpcError):
        await deployed.read(("x-request-id", f"{CONTENT} in an id"), task="local/none")
    async with httpx.AsyncClient(trust_env=False) as client:
        metrics = (await client.get(f"http://{deployed.metrics}/metrics")).text
    await deployed.end()

    told = {
        "server": deployed.server.said,
        "agent": deployed.agent.said,
        "metrics": metrics,
        "traces": deployed.collector.raw.decode(errors="replace"),
    }
    assert all(told.values())
    token = deployed.task.agent_token
    for where, text in told.items():
        assert "xyzzy" not in text, where
        assert token not in text, where
        assert token[-20:] not in text, where


async def test_each_call_is_logged_with_its_id_task_code_and_duration(deployed: Deployed) -> None:
    await _read_live(deployed, ("x-request-id", "first"))
    with pytest.raises(grpc.aio.AioRpcError):
        await deployed.read(("x-request-id", "refused"), task="local/none")
    with pytest.raises(grpc.aio.AioRpcError):
        await deployed.read(("x-request-id", "not sane, so another is made"), task="local/none")
    await deployed.end()

    lines = [json.loads(line) for line in deployed.server.said.splitlines() if line[:1] == "{"]
    calls = [line for line in lines if line["event"] == "rpc.ended"]
    read = [call for call in calls if call["request_id"] == "first" and call["code"] == "OK"][-1]
    assert read["method"] == f"/{GET}"
    assert read["task"] == deployed.task.task.id
    assert read["duration_ms"] > 0
    assert set(read) == {
        *("event", "level", "timestamp", "request_id", "method", "task", "code", "duration_ms"),
    }
    [refused] = [call for call in calls if call["request_id"] == "refused"]
    assert (refused["code"], refused["task"]) == ("NOT_FOUND", None)
    ids = {call["request_id"] for call in calls}
    assert not {one for one in ids if "sane" in one}
    assert any(len(one) == 16 and int(one, 16) >= 0 for one in ids - {"first", "refused"})


def _only(spans: list[Any], name: str) -> Any:
    found = [span for span in spans if span.name == name]
    assert len(found) == 1, (name, spans)
    return found[0]
