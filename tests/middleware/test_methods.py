"""Every registered method has one row, and a method without a row is closed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import pytest

from tasklogs.v1 import tasks_pb2 as pb
from tasklogs_server.domain.errors import PermissionDenied
from tasklogs_server.limits.admission import Kind
from tasklogs_server.middleware import methods
from tasklogs_server.middleware.authentication import Authentication, local
from tasklogs_server.middleware.methods import CLOSED, METHODS, method_of
from tasklogs_server.process.lifecycle import StartupError
from tasklogs_server.services.task_agents import TaskAgentsService
from tasklogs_server.services.task_logs import TaskLogsService
from tasklogs_server.services.tasks import TasksService
from tasklogs_server.transport.registration import register
from tests.support.fixtures.authenticated import ADMIN, guarded
from tests.support.fixtures.refusals import refused
from tests.support.fixtures.server import MakeServer, Server


class Recorded:
    """Takes the place of a server, and records the methods that are registered on it."""

    def __init__(self) -> None:
        self.methods: set[str] = set()

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        for handler in handlers:
            self.methods |= set(handler._method_handlers)

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        self.methods |= {f"/{service}/{name}" for name in handlers}


def registered_methods() -> set[str]:
    nothing: Any = None
    recorded = Recorded()
    register(
        cast("grpc.aio.Server", recorded),
        task_logs=TaskLogsService(nothing, nothing, nothing, nothing, page_bytes=0),
        tasks=TasksService(nothing),
        task_agents=TaskAgentsService(nothing, nothing, nothing),
        channelz=True,
    )
    return recorded.methods


def without_list_tasks() -> dict[str, methods.Method]:
    return {name: row for name, row in METHODS.items() if not name.endswith("/ListTasks")}


def test_every_method_of_every_service_has_a_row_and_no_row_is_unused() -> None:
    names = registered_methods()
    assert len(names) > 12
    assert names == set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_a_registered_method_without_a_row_is_named_when_services_are_registered(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    rows = {other: row for other, row in METHODS.items() if other != name}
    monkeypatch.setattr(methods, "METHODS", rows)
    with pytest.raises(StartupError) as raised:
        registered_methods()
    assert str(raised.value) == (
        f"{name} is registered and has no row in tasklogs_server/middleware/methods.py:"
        " add one that says who may call it"
    )


async def test_a_server_does_not_start_if_a_method_has_no_row(
    make_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods, "METHODS", without_list_tasks())
    with pytest.raises(StartupError, match=r"^/tasklogs\.v1\.Tasks/ListTasks is registered and"):
        async with make_server():
            pass


async def test_a_method_without_a_row_is_closed_to_everyone(
    make_server: MakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with guarded(make_server, tmp_path) as guard:
        # Rows are looked up at the first call of a method.
        monkeypatch.setattr(methods, "METHODS", without_list_tasks())
        for metadata in ((), guard.as_("alice", scope=ADMIN)):
            said = await refused(
                guard.server.tasks.ListTasks(pb.ListTasksRequest(), metadata=metadata)
            )
            assert said.code is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("is_stream", [False, True])
async def test_rows_are_found_by_the_whole_name_and_all_other_names_are_closed(
    is_stream: bool,
) -> None:
    nothing: Any = None
    for name in (
        "/tasklogs.v1.Tasks/Unheard",
        "/tasklogs.v1.Tasks/getTask",
        "/other.Tasks/GetTask",
    ):
        assert method_of(name) is CLOSED
    assert method_of("/tasklogs.v1.Tasks/GetTask") is not CLOSED
    for users in (nothing, local):
        closed = Authentication(users, nothing, nothing).of(CLOSED.rule, is_stream=is_stream)
        with pytest.raises(PermissionDenied):
            await closed(nothing)


def test_only_methods_outside_the_api_are_free_of_the_limits_on_calls() -> None:
    free = {name for name, row in METHODS.items() if row.kind is Kind.OPERATIONS}
    assert free == {name for name in METHODS if not name.startswith("/tasklogs.")}


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in METHODS
        if name.startswith(("/tasklogs.v1.TaskLogs/", "/tasklogs.v1.Tasks/"))
    ],
)
async def test_no_request_of_a_user_takes_long_to_decode(server: Server, name: str) -> None:
    """A request of 4 MiB takes up to three seconds, and nothing else happens meanwhile."""
    raw: Any = server.channel
    limit = METHODS[name].request_bytes
    assert limit is not None
    kind = raw.unary_stream if name.endswith("/FollowTaskLogs") else raw.unary_unary
    call = kind(name)(b"\x0a" * (limit + 1))  # no message: it would not be decoded in any case
    refusal = await refused(call.read() if name.endswith("/FollowTaskLogs") else call)
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert f"request: must have at most {limit} bytes" in refusal.message
