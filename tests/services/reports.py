"""Shorthands for what an orchestrator reports of `local/demo`."""

from __future__ import annotations

from tasklogs.v1 import tasks_pb2 as pb
from tasklogs.v1 import types_pb2 as types
from tests.fixtures.server import Server

TASK = "local/demo"
START = types.BUILD_TRANSITION_START
STOP = types.BUILD_TRANSITION_STOP
SUCCEEDED = types.JOB_STATUS_SUCCEEDED
READY = types.AGENT_LIFECYCLE_READY
HEALTHY = types.APP_HEALTH_HEALTHY


async def report_build(
    server: Server,
    number: int = 1,
    transition: types.BuildTransition.ValueType = START,
    job_status: types.JobStatus.ValueType = SUCCEEDED,
    *,
    task: str = TASK,
) -> pb.Task:
    return await server.tasks.ReportBuild(
        pb.ReportBuildRequest(
            task=task, build_number=number, transition=transition, job_status=job_status
        )
    )


async def report_agent(
    server: Server,
    lifecycle: types.AgentLifecycle.ValueType = READY,
    app_health: types.AppHealth.ValueType = HEALTHY,
    *,
    number: int = 1,
    task: str = TASK,
) -> pb.Task:
    return await server.tasks.ReportAgent(
        pb.ReportAgentRequest(
            task=task, build_number=number, lifecycle=lifecycle, app_health=app_health
        )
    )


async def make_active(server: Server, *, task: str = TASK) -> None:
    await report_build(server, task=task)
    await report_agent(server, task=task)


async def get_task(server: Server, task: str = TASK) -> pb.Task:
    return await server.tasks.GetTask(pb.GetTaskRequest(task=task))
