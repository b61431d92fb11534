"""Cursors and page tokens of a task that was deleted, when another task has its name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
import pytest

from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs.v1 import tasks_pb2
from tasklogs_server.reads.tokens import Cursor
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry
from tests.support.fixtures.authenticated import ADMIN, guarded
from tests.support.fixtures.refusals import Refusal, refused
from tests.support.fixtures.reports import TASK
from tests.support.fixtures.server import MakeServer, Server

CODE = grpc.StatusCode
NOBODY = "6b1f5a3e-8a53-4c1b-9df3-0123456789ab"


async def page(server: Server, **fields: Any) -> pb.GetTaskLogsResponse:
    return await server.logs.GetTaskLogs(pb.GetTaskLogsRequest(task=TASK, page_size=1, **fields))


async def first_page(server: Server) -> pb.GetTaskLogsResponse:
    """Make the task with three entries, and read the first of them."""
    token = (await server.create_task()).agent_token
    async with ScriptedAgent.connect(server, token) as agent:
        await agent.append(open_epoch=True, entries=[log_entry(n, str(n)) for n in range(3)])
        await agent.acked()
    return await page(server)


async def follow(server: Server, task: str, cursor: str, metadata: Any = None) -> object:
    request = pb.FollowTaskLogsRequest(task=task, cursor=cursor)
    return await server.logs.FollowTaskLogs(request, metadata=metadata).read()


async def replace(server: Server) -> None:
    """Delete the task, and make another one of its name, with as many entries."""
    await server.tasks.DeleteTask(tasks_pb2.DeleteTaskRequest(task=TASK))
    await first_page(server)


Continue = Callable[[Server, pb.GetTaskLogsResponse], Awaitable[object]]
CONTINUATIONS: dict[str, Continue] = {
    "cursor": lambda server, read: follow(server, TASK, read.cursor),
    "page token": lambda server, read: page(server, page_token=read.next_page_token),
}


@pytest.mark.parametrize("what", CONTINUATIONS)
async def test_what_continues_a_deleted_task_does_not_continue_the_next_of_its_name(
    server: Server, what: str
) -> None:
    read = await first_page(server)
    task = Cursor.decode(read.cursor).task_id
    await replace(server)

    refusal = await refused(CONTINUATIONS[what](server, read))

    assert (refusal.code, refusal.reason) == (CODE.NOT_FOUND, "TASK_NOT_FOUND")
    assert refusal.message == f'task "{task}" was not found'


@pytest.mark.parametrize("what", CONTINUATIONS)
async def test_what_continues_a_deleted_task_is_refused_alike_without_a_next_one(
    server: Server, what: str
) -> None:
    read = await first_page(server)
    await server.tasks.DeleteTask(tasks_pb2.DeleteTaskRequest(task=TASK))

    refusal = await refused(CONTINUATIONS[what](server, read))

    assert (refusal.code, refusal.reason) == (CODE.NOT_FOUND, "TASK_NOT_FOUND")


async def test_a_cursor_of_another_task_that_exists_is_an_invalid_field(server: Server) -> None:
    read = await first_page(server)
    other = await server.create_task("other")

    refusal = await refused(follow(server, other.task.id, read.cursor))

    assert (refusal.code, refusal.reason) == (CODE.INVALID_ARGUMENT, "INVALID_FIELDS")
    assert refusal.fields == ["cursor"]


async def test_a_cursor_does_not_tell_whether_another_owners_task_exists(
    make_server: MakeServer, tmp_path: Path
) -> None:
    async with guarded(make_server, tmp_path) as guard:
        theirs = (await guard.create("alice")).task.id
        own = (await guard.create("bob", "mine")).task.id

        async def with_cursor_of(task: str, metadata: Any) -> Refusal:
            cursor = Cursor(task_id=UUID(task), revision=0).encode()
            return await refused(follow(guard.server, own, cursor, metadata))

        of_theirs = await with_cursor_of(theirs, guard.as_("bob"))
        of_nobodys = await with_cursor_of(NOBODY, guard.as_("bob"))
        for_an_admin = await with_cursor_of(theirs, guard.as_("root", scope=ADMIN))

    assert of_theirs.message.replace(theirs, NOBODY) == of_nobodys.message
    assert (of_theirs.code, of_theirs.details) == (of_nobodys.code, of_nobodys.details)
    assert of_theirs.reason == "TASK_NOT_FOUND"
    assert for_an_admin.reason == "INVALID_FIELDS"
