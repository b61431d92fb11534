"""UpdateTask: the mask, the etag, and updates at once."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from tasklogs.v1 import tasks_pb2 as pb
from tests.support.fixtures.agent_stream import ScriptedAgent
from tests.support.fixtures.refusals import refused
from tests.support.fixtures.reports import TASK, get_task, report_build
from tests.support.fixtures.server import MakeServer, Server

OLD, NEW = {"env": "prod", "team": "x"}, {"env": "dev"}


@pytest.fixture
async def task(server: Server) -> pb.Task:
    created = await server.create_task(display_name="Old", labels=OLD, prompt="do it")
    return created.task


@pytest.mark.parametrize(
    ("paths", "display_name", "labels", "after"),
    [
        ([], "New", {}, ("New", OLD)),
        ([], "", NEW, ("Old", NEW)),
        ([], "New", NEW, ("New", NEW)),
        ([], "", {}, ("Old", OLD)),
        (["display_name"], "New", NEW, ("New", OLD)),
        (["display_name"], "", {}, ("", OLD)),
        (["labels"], "New", {}, ("Old", {})),
        (["labels", "display_name"], "", NEW, ("", NEW)),
        (["labels", "labels"], "", NEW, ("Old", NEW)),
        (["*"], "", {}, ("", {})),
        (["*", "labels"], "New", NEW, ("New", NEW)),
        # What is not to change is not checked either.
        (["labels"], "\0", NEW, ("Old", NEW)),
    ],
    ids=repr,
)
async def test_an_update_changes_what_its_mask_names_and_returns_the_whole_task(
    server: Server,
    task: pb.Task,
    paths: list[str],
    display_name: str,
    labels: dict[str, str],
    after: tuple[str, dict[str, str]],
) -> None:
    updated = await server.tasks.UpdateTask(
        pb.UpdateTaskRequest(
            task=TASK,
            display_name=display_name,
            labels=labels,
            update_mask=FieldMask(paths=paths),
        )
    )

    assert (updated.display_name, dict(updated.labels)) == after
    assert updated == await get_task(server)
    assert (updated.etag == task.etag) == (after == ("Old", OLD))
    for one in (updated, task):
        for field in ("display_name", "labels", "etag"):
            one.ClearField(field)
    assert updated == task


async def test_an_update_with_the_etag_that_was_read_succeeds_once(
    server: Server, task: pb.Task
) -> None:
    request = pb.UpdateTaskRequest(task=TASK, display_name="New", etag=task.etag)
    updated = await server.tasks.UpdateTask(request)

    for etag in (task.etag, "nonsense", "\0", "x" * 100_000):
        request.etag = etag
        refusal = await refused(server.tasks.UpdateTask(request))
        assert refusal.code is grpc.StatusCode.ABORTED
        assert refusal.reason == "ETAG_MISMATCH"
    request.etag = updated.etag
    assert await server.tasks.UpdateTask(request) == updated


async def test_an_etag_names_the_description_and_nothing_else(
    server: Server, task: pb.Task
) -> None:
    assert 8 <= len(task.etag) <= 32
    assert (await report_build(server)).etag == task.etag
    [listed] = (await server.tasks.ListTasks(pb.ListTasksRequest())).tasks
    assert listed.etag == task.etag
    await server.tasks.UpdateTask(pb.UpdateTaskRequest(task=TASK, display_name="New"))
    back = await server.tasks.UpdateTask(pb.UpdateTaskRequest(task=TASK, display_name="Old"))
    assert back.etag == task.etag


async def test_a_mismatch_is_refused_also_if_nothing_is_to_change(
    server: Server, task: pb.Task
) -> None:
    refusal = await refused(server.tasks.UpdateTask(pb.UpdateTaskRequest(task=TASK, etag="x")))

    assert refusal.reason == "ETAG_MISMATCH"


async def test_of_updates_at_once_with_one_etag_one_succeeds_on_any_server(
    make_server: MakeServer,
) -> None:
    async with make_server() as one, make_server() as other:
        await one.create_task()
        for round_ in range(10):
            etag = (await get_task(one)).etag
            answers = await asyncio.gather(
                *(
                    server.tasks.UpdateTask(
                        pb.UpdateTaskRequest(
                            task=TASK, labels={"by": f"{round_}-{number}"}, etag=etag
                        )
                    )
                    for number, server in enumerate([one, other, one, other])
                ),
                return_exceptions=True,
            )
            [winner] = [answer for answer in answers if isinstance(answer, pb.Task)]
            assert await get_task(other) == winner


async def test_updates_at_once_that_read_and_retry_lose_nothing(server: Server) -> None:
    await server.create_task()

    async def add(key: str) -> None:
        while True:
            task = await get_task(server)
            request = pb.UpdateTaskRequest(task=TASK, labels=task.labels, etag=task.etag)
            request.labels[key] = "here"
            try:
                await server.tasks.UpdateTask(request)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.ABORTED:
                    raise
            else:
                return

    keys = [f"label-{number}" for number in range(10)]
    await asyncio.gather(*map(add, keys))
    assert sorted((await get_task(server)).labels) == keys


async def test_an_update_leaves_the_agent_and_its_token_alone(server: Server) -> None:
    token = (await server.create_task()).agent_token
    async with ScriptedAgent.connect(server, token) as agent:
        updated = await server.tasks.UpdateTask(pb.UpdateTaskRequest(task=TASK, display_name="x"))
        assert updated.agent_connected
        await agent.append(open_epoch=True)
        await agent.acked()


async def test_a_request_with_more_than_a_mebibyte_is_not_decoded(server: Server) -> None:
    """To decode a map of 350,000 labels, which is within 4 MiB, takes three seconds."""
    many = {f"label-{number}": "" for number in range(80_000)}
    updating = server.tasks.UpdateTask(pb.UpdateTaskRequest(task=TASK, labels=many))
    creating = server.tasks.CreateTask(pb.CreateTaskRequest(name="demo", labels=many))
    for refusal in (await refused(updating), await refused(creating)):
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert refusal.reason == "INVALID_FIELDS"
        assert refusal.fields == ["request"]
        assert "must have at most 1048576 bytes" in refusal.message


async def test_a_request_with_more_than_a_thousand_labels_is_not_decoded(server: Server) -> None:
    many = {f"label-{number}": "" for number in range(2000)}
    updating = server.tasks.UpdateTask(pb.UpdateTaskRequest(task=TASK, labels=many))
    creating = server.tasks.CreateTask(pb.CreateTaskRequest(name="demo", labels=many))
    for refusal in (await refused(updating), await refused(creating)):
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert refusal.fields == ["request"]
        assert "must have at most 1000 fields" in refusal.message
