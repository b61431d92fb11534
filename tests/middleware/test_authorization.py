"""Who may call what: every method has a rule, and another user's task looks like no task."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message

from tasklogs.v1 import task_logs_pb2 as logs_pb
from tasklogs.v1 import tasks_pb2 as pb
from tasklogs_server.middleware.methods import METHODS, Rule
from tasklogs_server.tasks.retention import Retention
from tests.support.fixtures.authenticated import ADMIN, Guarded, Metadata, bearing, guarded
from tests.support.fixtures.refusals import Refusal, refused
from tests.support.fixtures.reports import HEALTHY, START, SUCCEEDED
from tests.support.fixtures.server import MakeServer, Server

CODE = grpc.StatusCode
NOBODY = "6b1f5a3e-8a53-4c1b-9df3-0123456789ab"


@pytest.fixture
async def guard(
    make_server: MakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Guarded]:
    async def rest(_: Retention) -> None:
        await asyncio.Event().wait()

    # Its statements come at any time and belong to no call.
    monkeypatch.setattr(Retention, "run", rest)
    async with guarded(make_server, tmp_path) as guard:
        yield guard


Request = Callable[[str], Message]
OWN_TASK: dict[str, Request] = {
    "/tasklogs.v1.TaskLogs/GetTaskLogs": lambda task: logs_pb.GetTaskLogsRequest(task=task),
    "/tasklogs.v1.TaskLogs/FollowTaskLogs": lambda task: logs_pb.FollowTaskLogsRequest(task=task),
    "/tasklogs.v1.Tasks/GetTask": lambda task: pb.GetTaskRequest(task=task),
    "/tasklogs.v1.Tasks/UpdateTask": lambda task: pb.UpdateTaskRequest(
        task=task, display_name="mine", etag="any"
    ),
    "/tasklogs.v1.Tasks/DeleteTask": lambda task: pb.DeleteTaskRequest(task=task),
    "/tasklogs.v1.Tasks/ReportBuild": lambda task: pb.ReportBuildRequest(
        task=task, build_number=1, transition=START, job_status=SUCCEEDED
    ),
    "/tasklogs.v1.Tasks/ReportAgent": lambda task: pb.ReportAgentRequest(
        task=task, build_number=1, app_health=HEALTHY
    ),
    "/tasklogs.v1.Tasks/RotateAgentToken": lambda task: pb.RotateAgentTokenRequest(task=task),
}


def test_this_file_tries_every_method_of_a_task() -> None:
    assert set(OWN_TASK) == {name for name, row in METHODS.items() if row.rule is Rule.OWN_TASK}


async def tried(server: Server, method: str, request: Message, metadata: Metadata) -> Refusal:
    raw: Any = server.channel
    path = raw.unary_stream if method.endswith("FollowTaskLogs") else raw.unary_unary
    call = path(method)(request.SerializeToString(), metadata=metadata)
    return await refused(call.read() if method.endswith("FollowTaskLogs") else call)


def without(said: Refusal, task: str) -> tuple[object, ...]:
    details = [str(detail).replace(task, "TASK") for detail in said.details]
    return said.code, said.reason, said.message.replace(task, "TASK"), details


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every statement that this process sends to Postgres."""
    sent: list[str] = []
    for name in ("execute", "fetch", "fetchrow", "fetchval", "executemany"):
        original = getattr(asyncpg.Connection, name)

        async def noted(
            self: Any, statement: str, *arguments: Any, _original: Any = original, **more: Any
        ) -> Any:
            sent.append(statement)
            return await _original(self, statement, *arguments, **more)

        monkeypatch.setattr(asyncpg.Connection, name, noted)
    return sent


def of_calls(statements: list[str]) -> list[str]:
    # The server sends these by itself, at any time: the monitor, the purge, a new connection.
    own = re.compile(
        r"heartbeat|processes|deleted_at IS NOT NULL|deleted_at >= |pg_is_in_recovery|SELECT 1$"
        r"|\ASET "
    )
    return [one for one in statements if not own.search(one)]


@pytest.mark.parametrize("method", OWN_TASK)
async def test_another_users_task_looks_exactly_like_no_task(
    guard: Guarded, statements: list[str], method: str
) -> None:
    made = await guard.create("alice")
    bob = guard.as_("bob")
    pairs = ((made.task.id, NOBODY), ("alice/demo", "alice/absent"))
    for theirs, nobodys in pairs:
        statements.clear()
        on_theirs = await tried(guard.server, method, OWN_TASK[method](theirs), bob)
        sent_for_theirs = of_calls(statements)
        statements.clear()
        on_nobodys = await tried(guard.server, method, OWN_TASK[method](nobodys), bob)
        assert (on_theirs.code, on_theirs.reason) == (CODE.NOT_FOUND, "TASK_NOT_FOUND")
        assert without(on_theirs, theirs) == without(on_nobodys, nobodys)
        assert sent_for_theirs == of_calls(statements)
        assert "alice" not in on_theirs.message.replace(theirs, "")
    still = await guard.server.tasks.GetTask(
        pb.GetTaskRequest(task="alice/demo"), metadata=guard.as_("alice")
    )
    assert still == made.task


async def test_a_request_that_is_known_from_one_caller_is_decided_anew_for_each_other(
    guard: Guarded,
) -> None:
    made = await guard.create("alice")
    request = logs_pb.GetTaskLogsRequest(task=made.task.id, source=logs_pb.LOG_SOURCE_SNAPSHOT)
    alice, bob, root = (guard.as_(one) for one in ("alice", "bob", "root"))
    admin = guard.as_("root", scope=ADMIN)
    for _ in range(2):
        for metadata in (admin, alice):
            await guard.server.logs.GetTaskLogs(request, metadata=metadata)
        for metadata in (bob, root):
            refusal = await refused(guard.server.logs.GetTaskLogs(request, metadata=metadata))
            assert (refusal.code, refusal.reason) == (CODE.NOT_FOUND, "TASK_NOT_FOUND")


@pytest.mark.parametrize("method", OWN_TASK)
async def test_admins_may_use_every_task_and_owners_their_own(guard: Guarded, method: str) -> None:
    made = await guard.create("alice")
    raw: Any = guard.server.channel
    request = OWN_TASK[method](made.task.id).SerializeToString()
    for metadata in (guard.as_("alice"), guard.as_("root", scope=ADMIN)):
        if method.endswith("DeleteTask"):
            made = await guard.create("alice", "another")
            request = OWN_TASK[method](made.task.id).SerializeToString()
        if method.endswith("FollowTaskLogs"):
            call = raw.unary_stream(method)(request, metadata=metadata)
            assert await call.read() is not grpc.aio.EOF
            call.cancel()
            continue
        call = raw.unary_unary(method)(request, metadata=metadata)
        # The task has no build yet, so a report is refused. It has another etag.
        assert await call.code() in (CODE.OK, CODE.FAILED_PRECONDITION, CODE.ABORTED)


async def test_deleting_another_users_task_with_allow_missing_looks_like_deleting_no_task(
    guard: Guarded, statements: list[str]
) -> None:
    made = await guard.create("alice")
    for theirs, nobodys in ((made.task.id, NOBODY), ("alice/demo", "alice/absent")):
        sent = []
        for task in (theirs, nobodys):
            statements.clear()
            await guard.server.tasks.DeleteTask(
                pb.DeleteTaskRequest(task=task, allow_missing=True), metadata=guard.as_("bob")
            )
            sent.append(of_calls(statements))
        assert sent[0] == sent[1]
    still = await guard.server.tasks.GetTask(
        pb.GetTaskRequest(task="alice/demo"), metadata=guard.as_("alice")
    )
    assert still == made.task


async def test_a_request_id_gives_no_access_to_another_owners_task(guard: Guarded) -> None:
    made = await guard.create("alice", request_id=NOBODY)

    assert (await guard.create("bob", request_id=NOBODY)).task.owner == "bob"
    said = await refused(guard.create("bob", owner="alice", request_id=NOBODY))
    assert said.code is CODE.PERMISSION_DENIED
    root = guard.as_("root", scope=ADMIN)
    again = await guard.server.tasks.CreateTask(
        pb.CreateTaskRequest(name="demo", owner="alice", request_id=NOBODY), metadata=root
    )
    assert again.task == made.task


async def test_labels_select_only_the_callers_tasks(guard: Guarded) -> None:
    await guard.create("alice", labels={"env": "prod"})
    request = pb.ListTasksRequest(labels=["env=prod"])
    for subject, found in (("alice", 1), ("bob", 0)):
        listed = await guard.server.tasks.ListTasks(request, metadata=guard.as_(subject))
        assert len(listed.tasks) == found


async def test_a_cursor_of_another_users_log_gives_no_access(guard: Guarded) -> None:
    made = await guard.create("alice")
    read = await guard.server.logs.GetTaskLogs(
        logs_pb.GetTaskLogsRequest(task=made.task.id), metadata=guard.as_("alice")
    )
    call = guard.server.logs.FollowTaskLogs(
        logs_pb.FollowTaskLogsRequest(task=made.task.id, cursor=read.cursor),
        metadata=guard.as_("bob"),
    )
    assert (await refused(call.read())).reason == "TASK_NOT_FOUND"


async def test_a_shared_read_is_not_shared_with_another_user(guard: Guarded) -> None:
    made = await guard.create("alice")
    request = logs_pb.GetTaskLogsRequest(task=made.task.id)
    for _ in range(3):
        await guard.server.logs.GetTaskLogs(request, metadata=guard.as_("alice"))
        await guard.server.logs.GetTaskLogs(request, metadata=guard.as_("root", scope=ADMIN))
        said = await refused(guard.server.logs.GetTaskLogs(request, metadata=guard.as_("bob")))
        assert said.reason == "TASK_NOT_FOUND"


async def test_creating_a_task_for_another_owner_requires_the_admin_scope(guard: Guarded) -> None:
    async def create(metadata: Metadata, owner: str) -> pb.CreateTaskResponse:
        return await guard.server.tasks.CreateTask(
            pb.CreateTaskRequest(name="demo", owner=owner), metadata=metadata
        )

    assert (await refused(create(guard.as_("bob"), "alice"))).code is CODE.PERMISSION_DENIED
    assert (await create(guard.as_("alice"), "alice")).task.owner == "alice"
    root = guard.as_("root", scope=ADMIN)
    assert (await create(root, "carol")).task.owner == "carol"
    assert (await create(root, "")).task.owner == "root"


async def test_two_owners_may_use_the_same_task_name(guard: Guarded) -> None:
    await guard.create("alice")
    await guard.create("bob")


async def test_listing_another_owners_tasks_requires_the_admin_scope(guard: Guarded) -> None:
    await guard.create("alice")
    await guard.create("bob")

    async def owners(metadata: Metadata, owner: str = "") -> list[str]:
        listed = await guard.server.tasks.ListTasks(
            pb.ListTasksRequest(owner=owner), metadata=metadata
        )
        return [task.owner for task in listed.tasks]

    assert await owners(guard.as_("alice")) == ["alice"]
    assert await owners(guard.as_("alice"), "alice") == ["alice"]
    assert await owners(guard.as_("carol")) == []
    assert (await refused(owners(guard.as_("bob"), "alice"))).code is CODE.PERMISSION_DENIED
    root = guard.as_("root", scope=ADMIN)
    assert sorted(await owners(root)) == ["alice", "bob"]
    assert await owners(root, "bob") == ["bob"]


async def test_another_users_page_token_lists_only_the_callers_tasks(guard: Guarded) -> None:
    for name in ("one", "two", "three"):
        await guard.create("alice", name)
    await guard.create("bob", "mine")
    page = await guard.server.tasks.ListTasks(
        pb.ListTasksRequest(page_size=1), metadata=guard.as_("alice")
    )
    stolen = await guard.server.tasks.ListTasks(
        pb.ListTasksRequest(page_size=1, page_token=page.next_page_token),
        metadata=guard.as_("bob"),
    )
    assert {task.owner for task in stolen.tasks} <= {"bob"}


async def test_without_authentication_every_caller_is_local_with_admin_rights(
    server: Server,
) -> None:
    made = await server.create_task()
    other = await server.create_task("other", owner="alice")
    assert (made.task.owner, other.task.owner) == ("local", "alice")
    listed = await server.tasks.ListTasks(pb.ListTasksRequest())
    assert len(listed.tasks) == 2
    assert (await server.tasks.GetTask(pb.GetTaskRequest(task=other.task.id))).owner == "alice"


AGENT_ONLY = sorted(name for name, row in METHODS.items() if row.rule is Rule.AGENT)


@pytest.mark.parametrize("method", AGENT_ONLY)
async def test_a_method_of_agents_refuses_users_before_it_reads_a_message(
    guard: Guarded, method: str
) -> None:
    created = await guard.create("alice")
    raw: Any = guard.server.channel
    multi = {
        "Connect": raw.stream_stream,
        "UploadLogSnapshot": raw.unary_unary,
        "UploadLogSnapshotInParts": raw.stream_unary,
    }[method.rpartition("/")[2]]
    expected = (
        ((), CODE.UNAUTHENTICATED),
        (bearing("tla_" + "z" * 32 + "_x"), CODE.UNAUTHENTICATED),
        (bearing(created.agent_token[:-4] + "AAAA"), CODE.UNAUTHENTICATED),
        (guard.as_("alice"), CODE.PERMISSION_DENIED),
        (guard.as_("root", scope=ADMIN), CODE.PERMISSION_DENIED),
    )
    for metadata, code in expected:
        if method.endswith("UploadLogSnapshot"):
            refusal = await refused(multi(method)(b"", metadata=metadata))
        elif method.endswith("InParts"):
            refusal = await refused(multi(method)(metadata=metadata))
        else:
            refusal = await refused(multi(method)(metadata=metadata).read())
        assert refusal.code is code
