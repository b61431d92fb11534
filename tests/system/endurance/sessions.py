"""Sessions of agents: short agent streams that send one entry."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from tasklogs.publish.stream_status import StreamCall
from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs.v1 import tasks_pb2
from tests.support.fixtures.agent_stream import log_entry
from tests.system.endurance.callers import CALL_SECONDS, OK, Callers, Who, bearing
from tests.system.endurance.calls import AGENTS, TASKS, report_agent, report_build

_PER_TOKEN = 3
_PER_TASK = 6


@dataclass
class Workspace:
    """A task with one agent at a time. Sometimes its token is rotated, and its task replaced."""

    number: int
    sessions: int = 0
    token: str = ""

    @property
    def task(self) -> str:
        return f"owner/session-{self.number}-{self.sessions // _PER_TASK}"

    @property
    def is_there(self) -> bool:
        """Whether the task exists now."""
        return self.sessions % _PER_TASK != 0

    async def session(self, callers: Callers) -> str:
        """Run one session. Return its status, or that of a call that it needed."""
        if self.sessions % _PER_TASK == 0:
            await self._replace(callers)
        elif self.sessions % _PER_TOKEN == 0:
            await self._rotate(callers)
        try:
            async with asyncio.timeout(CALL_SECONDS):
                return await self._connect(callers)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        except TimeoutError:
            return "took too long"
        finally:
            self.sessions += 1

    async def _connect(self, callers: Callers) -> str:
        method: Any = callers.channel.stream_stream(
            AGENTS + "Connect",
            request_serializer=pb.AgentMessage.SerializeToString,
            response_deserializer=pb.ServerMessage.FromString,
        )
        call = StreamCall(method(metadata=bearing(self.token)))
        try:
            await call.write(pb.AgentMessage(hello=pb.Hello(agent_version="0", task_app="none")))
            welcome = (await call.read()).welcome
            append = pb.LogAppend(
                sequence=1,
                open_epoch=welcome.epoch == 0,
                entries=[log_entry(welcome.entries, "an entry of a short session")],
            )
            await call.write(pb.AgentMessage(append=append))
            while not (await call.read()).HasField("ack"):
                pass
            if self.sessions % 2:
                return OK  # it leaves without a goodbye
            goodbye = pb.Goodbye(reason=pb.Goodbye.REASON_STOPPING)
            await call.write(pb.AgentMessage(goodbye=goodbye))
            return (await call.status()).code().name
        finally:
            call.cancel()

    async def _replace(self, callers: Callers) -> None:
        if self.sessions:
            former = f"owner/session-{self.number}-{self.sessions // _PER_TASK - 1}"
            await _ok(callers, "DeleteTask", tasks_pb2.DeleteTaskRequest(task=former))
        name = self.task.removeprefix("owner/")
        created = await _ok(callers, "CreateTask", tasks_pb2.CreateTaskRequest(name=name))
        self.token = tasks_pb2.CreateTaskResponse.FromString(created).agent_token
        await _ok(callers, "ReportBuild", report_build(self.task))
        await _ok(callers, "ReportAgent", report_agent(self.task))

    async def _rotate(self, callers: Callers) -> None:
        request = tasks_pb2.RotateAgentTokenRequest(task=self.task)
        rotated = await _ok(callers, "RotateAgentToken", request)
        self.token = tasks_pb2.RotateAgentTokenResponse.FromString(rotated).agent_token


async def _ok(callers: Callers, name: str, request: Any) -> bytes:
    status, answer = await callers.unary(TASKS + name, request, Who.OWNER)
    assert status == OK, f"{name}: {status}"
    return answer
