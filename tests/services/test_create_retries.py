"""CreateTask with a request id: a repeated call creates nothing and returns a fresh token."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from tasklogs.errors import TaskLogsRpcError
from tasklogs.v1 import tasks_pb2 as pb
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry
from tests.support.fixtures.refusals import refused
from tests.support.fixtures.reports import TASK, get_task
from tests.support.fixtures.server import MakeServer, Server

ID = "6b1f5a3e-8a53-4c1b-9df3-0123456789ab"
OTHER_ID = "6b1f5a3e-8a53-4c1b-9df3-0123456789ac"
ARGUMENTS: dict[str, Any] = {
    "name": "demo",
    "display_name": "A demo",
    "prompt": "do it\0",
    "standalone": True,
    "labels": {"a": "1", "b": "2"},
    "request_id": ID,
}
ROUNDS = 20


async def connects(server: Server, token: str) -> bool:
    try:
        async with ScriptedAgent.connect(server, token):
            return True
    except TaskLogsRpcError as error:
        if error.code is not grpc.StatusCode.UNAUTHENTICATED:
            raise
        return False


async def test_a_repeated_call_returns_the_same_task_and_a_fresh_token(server: Server) -> None:
    first = await server.create_task(**ARGUMENTS)
    again = await server.create_task(**ARGUMENTS | {"request_id": ID.upper(), "owner": "local"})

    assert again.task == first.task
    assert again.agent_token != first.agent_token
    assert not await connects(server, first.agent_token)
    assert await connects(server, again.agent_token)
    assert len((await server.tasks.ListTasks(pb.ListTasksRequest())).tasks) == 1


async def test_a_repeated_call_ends_the_stream_of_the_earlier_token(server: Server) -> None:
    first = await server.create_task(**ARGUMENTS)
    async with ScriptedAgent.connect(server, first.agent_token) as agent:
        await agent.append(open_epoch=True, entries=[log_entry(0, "kept")])
        await agent.acked()
        again = await server.create_task(**ARGUMENTS)
        ended = await agent.ended()

    assert ended.code is grpc.StatusCode.UNAUTHENTICATED
    assert again.task.log.entries == 1


async def test_a_repeated_call_returns_the_task_as_it_is_now(server: Server) -> None:
    await server.create_task(**ARGUMENTS)
    updated = await server.tasks.UpdateTask(
        pb.UpdateTaskRequest(task=TASK, display_name="Another", labels={"c": "3"})
    )

    assert (await server.create_task(**ARGUMENTS)).task == updated


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "other"},
        {"display_name": ""},
        {"prompt": "do it"},
        {"standalone": False},
        {"labels": {}},
        {"labels": {"a": "2", "b": "1"}},
        {"labels": {"a": "1", "b": "2", "c": ""}},
    ],
    ids=lambda changed: next(iter(changed)),
)
async def test_a_request_id_with_other_arguments_is_refused_and_changes_nothing(
    server: Server, changed: dict[str, Any]
) -> None:
    first = await server.create_task(**ARGUMENTS)

    refusal = await refused(server.create_task(**ARGUMENTS | changed))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.fields == ["request_id"]
    assert await connects(server, first.agent_token)
    [task] = (await server.tasks.ListTasks(pb.ListTasksRequest(view=pb.TASK_VIEW_FULL))).tasks
    assert (task.id, task.prompt) == (first.task.id, first.task.prompt)


async def test_a_name_that_is_taken_by_another_call_is_taken(server: Server) -> None:
    await server.create_task(**ARGUMENTS)
    without_id = {name: value for name, value in ARGUMENTS.items() if name != "request_id"}

    for arguments in (ARGUMENTS | {"request_id": OTHER_ID}, without_id):
        refusal = await refused(server.create_task(**arguments))
        assert refusal.reason == "TASK_NAME_TAKEN"


async def test_each_owner_has_request_ids_of_their_own(server: Server) -> None:
    mine = await server.create_task(**ARGUMENTS)
    theirs = await server.create_task(**ARGUMENTS | {"owner": "somebody", "prompt": "other"})

    assert mine.task.id != theirs.task.id
    assert await connects(server, mine.agent_token)


async def test_a_deleted_task_frees_its_request_id(server: Server) -> None:
    first = await server.create_task(**ARGUMENTS)
    await server.tasks.DeleteTask(pb.DeleteTaskRequest(task=TASK))

    second = await server.create_task(**ARGUMENTS | {"prompt": "something else"})

    assert second.task.id != first.task.id
    await server.tasks.DeleteTask(pb.DeleteTaskRequest(task=TASK))
    # Somebody else takes the name before the retry.
    await server.create_task()
    assert (await refused(server.create_task(**ARGUMENTS))).reason == "TASK_NAME_TAKEN"


async def test_equal_calls_at_once_create_one_task_on_one_server(server: Server) -> None:
    await _equal_calls_create_one_task([server, server])


async def test_equal_calls_at_once_create_one_task_on_two_servers(make_server: MakeServer) -> None:
    async with make_server() as one, make_server() as other:
        await _equal_calls_create_one_task([one, other])


async def _equal_calls_create_one_task(servers: list[Server]) -> None:
    for number in range(ROUNDS):
        arguments = ARGUMENTS | {
            "name": f"task-{number}",
            "request_id": f"{ID[:-12]}{number:012}",
        }
        answers = await asyncio.gather(
            *(server.create_task(**arguments) for server in servers for _ in range(2))
        )
        assert len({answer.task.id for answer in answers}) == 1
        tokens = {answer.agent_token for answer in answers}
        assert len(tokens) == len(answers)
        valid = [token for token in tokens if await connects(servers[0], token)]
        assert len(valid) == 1
    listed = await servers[0].tasks.ListTasks(pb.ListTasksRequest())
    assert len(listed.tasks) == ROUNDS


async def test_of_calls_at_once_with_one_id_and_different_names_one_creates_a_task(
    server: Server,
) -> None:
    for number in range(ROUNDS):
        request_id = f"{ID[:-12]}{number:012}"
        answers = await asyncio.gather(
            *(
                server.create_task(f"{name}-{number}", request_id=request_id)
                for name in ("a", "b", "c")
            ),
            return_exceptions=True,
        )
        codes = [answer.code() for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
        assert codes == [grpc.StatusCode.INVALID_ARGUMENT] * 2
    assert len((await server.tasks.ListTasks(pb.ListTasksRequest())).tasks) == ROUNDS


async def test_calls_and_deletions_at_once_never_refuse_ones_own_retry(server: Server) -> None:
    async def create() -> None:
        for _ in range(ROUNDS):
            assert (await server.create_task(**ARGUMENTS)).task.name == "demo"

    async def delete() -> None:
        for _ in range(2 * ROUNDS):
            await server.tasks.DeleteTask(pb.DeleteTaskRequest(task=TASK, allow_missing=True))

    await asyncio.gather(create(), create(), create(), delete())
    assert (await server.create_task(**ARGUMENTS)).task == await get_task(server)
