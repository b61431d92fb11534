"""Who may call what: a rule for every method, and another's task looks as if there were none."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, cast

import asyncpg
import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message

from tasklogs.v1 import task_logs_pb2 as logs_pb
from tasklogs.v1 import tasks_pb2 as pb
from tasklogs_server.middleware import authentication as access
from tasklogs_server.middleware.authentication import RULES, Access, Rule
from tasklogs_server.services.task_agents import TaskAgentsService
from tasklogs_server.services.task_logs import TaskLogsService
from tasklogs_server.services.tasks import TasksService
from tasklogs_server.tasks.retention import Retention
from tasklogs_server.transport.registration import register
from tests.support.fixtures.authenticated import ADMIN, Guarded, Metadata, guarded
from tests.support.fixtures.refusals import Refusal, refused
from tests.support.fixtures.reports import HEALTHY, START, SUCCEEDED
from tests.support.fixtures.server import MakeServer, Server

CODE = grpc.StatusCode
NOBODY = "6b1f5a3e-8a53-4c1b-9df3-0123456789ab"


class Recorded:
    """Stands in for a server and notes what is registered on it."""

    def __init__(self) -> None:
        self.methods: set[str] = set()

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        for handler in handlers:
            self.methods |= set(handler._method_handlers)

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        self.methods |= {f"/{service}/{name}" for name in handlers}


def test_every_method_of_every_service_has_a_rule_and_no_rule_is_idle() -> None:
    nothing: Any = None
    recorded = Recorded()
    register(
        cast("grpc.aio.Server", recorded),
        task_logs=TaskLogsService(nothing, nothing),
        tasks=TasksService(nothing),
        task_agents=TaskAgentsService(nothing, nothing, nothing),
        channelz=True,
    )
    assert len(recorded.methods) > 12
    assert recorded.methods == set(RULES)


async def test_a_method_without_a_rule_is_closed_to_everyone(
    make_server: MakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ruled = {name: rule for name, rule in RULES.items() if not name.endswith("/ListTasks")}
    monkeypatch.setattr(access, "RULES", ruled)
    async with guarded(make_server, tmp_path) as guard:
        for metadata in ((), guard.as_("alice", scope=ADMIN)):
            said = await refused(
                guard.server.tasks.ListTasks(pb.ListTasksRequest(), metadata=metadata)
            )
            assert said.code is CODE.PERMISSION_DENIED


def test_rules_are_asked_for_once_per_method_and_by_its_whole_name() -> None:
    nothing: Any = None
    admission = Access(nothing, nothing, nothing).admission
    closed = admission("/tasklogs.v1.Tasks/Unheard")
    assert admission("/tasklogs.v1.Tasks/getTask") is closed
    assert admission("/other.Tasks/GetTask") is closed
    assert admission("/tasklogs.v1.Tasks/GetTask") is not closed


@pytest.fixture
async def guard(
    make_server: MakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Guarded]:
    async def rest(_: Retention) -> None:
        await asyncio.Event().wait()

    # Its statements, at any moment, are nobody's call.
    monkeypatch.setattr(Retention, "run", rest)
    async with guarded(make_server, tmp_path) as guard:
        yield guard


Request = Callable[[str], Message]
OWN_TASK: dict[str, Request] = {
    "/tasklogs.v1.TaskLogs/GetTaskLogs": lambda task: logs_pb.GetTaskLogsRequest(task=task),
    "/tasklogs.v1.TaskLogs/FollowTaskLogs": lambda task: logs_pb.FollowTaskLogsRequest(task=task),
    "/tasklogs.v1.Tasks/GetTask": lambda task: pb.GetTaskRequest(task=task),
    "/tasklogs.v1.Tasks/DeleteTask": lambda task: pb.DeleteTaskRequest(task=task),
    "/tasklogs.v1.Tasks/ReportBuild": lambda task: pb.ReportBuildRequest(
        task=task, build_number=1, transition=START, job_status=SUCCEEDED
    ),
    "/tasklogs.v1.Tasks/ReportAgent": lambda task: pb.ReportAgentRequest(
        task=task, build_number=1, app_health=HEALTHY
    ),
    "/tasklogs.v1.Tasks/RotateAgentToken": lambda task: pb.RotateAgentTokenRequest(task=task),
}


def test_every_method_on_a_task_is_tried_here() -> None:
    assert set(OWN_TASK) == {name for name, rule in RULES.items() if rule is Rule.OWN_TASK}


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
    """Every statement that this process sends to Postgres, by its first words."""
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
    # What the server does by itself, at any moment.
    own = re.compile(r"heartbeat|processes|deleted_at IS NOT NULL|SELECT 1$")
    return [one for one in statements if not own.search(one)]


@pytest.mark.parametrize("method", OWN_TASK)
async def test_anothers_task_is_not_found_alike_in_every_way(
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


@pytest.mark.parametrize("method", OWN_TASK)
async def test_an_admin_reaches_everyones_task_and_an_owner_their_own(
    guard: Guarded, method: str
) -> None:
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
        # There is no build yet to report on.
        assert await call.code() in (CODE.OK, CODE.FAILED_PRECONDITION)


async def test_pages_and_cursors_of_anothers_log_open_nothing(guard: Guarded) -> None:
    made = await guard.create("alice")
    read = await guard.server.logs.GetTaskLogs(
        logs_pb.GetTaskLogsRequest(task=made.task.id), metadata=guard.as_("alice")
    )
    call = guard.server.logs.FollowTaskLogs(
        logs_pb.FollowTaskLogsRequest(task=made.task.id, cursor=read.cursor),
        metadata=guard.as_("bob"),
    )
    assert (await refused(call.read())).reason == "TASK_NOT_FOUND"


async def test_what_was_read_for_one_is_not_shared_with_another(guard: Guarded) -> None:
    made = await guard.create("alice")
    request = logs_pb.GetTaskLogsRequest(task=made.task.id)
    for _ in range(3):
        await guard.server.logs.GetTaskLogs(request, metadata=guard.as_("alice"))
        await guard.server.logs.GetTaskLogs(request, metadata=guard.as_("root", scope=ADMIN))
        said = await refused(guard.server.logs.GetTaskLogs(request, metadata=guard.as_("bob")))
        assert said.reason == "TASK_NOT_FOUND"


async def test_only_an_admin_creates_for_another(guard: Guarded) -> None:
    async def create(metadata: Metadata, owner: str) -> pb.CreateTaskResponse:
        return await guard.server.tasks.CreateTask(
            pb.CreateTaskRequest(name="demo", owner=owner), metadata=metadata
        )

    assert (await refused(create(guard.as_("bob"), "alice"))).code is CODE.PERMISSION_DENIED
    assert (await create(guard.as_("alice"), "alice")).task.owner == "alice"
    root = guard.as_("root", scope=ADMIN)
    assert (await create(root, "carol")).task.owner == "carol"
    assert (await create(root, "")).task.owner == "root"


async def test_a_name_that_another_has_is_free(guard: Guarded) -> None:
    await guard.create("alice")
    await guard.create("bob")


async def test_only_an_admin_lists_anothers_tasks(guard: Guarded) -> None:
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


async def test_a_page_of_anothers_list_shows_ones_own(guard: Guarded) -> None:
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


async def test_without_authentication_everyone_is_local_and_may_all(server: Server) -> None:
    made = await server.create_task()
    other = await server.create_task("other", owner="alice")
    assert (made.task.owner, other.task.owner) == ("local", "alice")
    listed = await server.tasks.ListTasks(pb.ListTasksRequest())
    assert len(listed.tasks) == 2
    assert (await server.tasks.GetTask(pb.GetTaskRequest(task=other.task.id))).owner == "alice"
