"""ListTasks: order, pages, filters, tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import grpc
import pytest

from tasklogs.v1 import task_logs_pb2 as logs_pb
from tasklogs.v1 import tasks_pb2 as pb
from tasklogs.v1 import types_pb2 as types
from tasklogs_server.concurrency.loop_share import LoopShare
from tasklogs_server.services import tasks
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry
from tests.support.fixtures.refusals import refused
from tests.support.fixtures.reports import report_build
from tests.support.fixtures.server import Server

# gRPC clients refuse larger messages by default.
CLIENT_BYTES = 4 * 1024 * 1024


async def pages(
    server: Server, request: pb.ListTasksRequest
) -> AsyncIterator[pb.ListTasksResponse]:
    """Follow the pages to the last one."""
    for _ in range(1000):
        page = await server.tasks.ListTasks(request)
        yield page
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token
    raise AssertionError("the pages do not end")


async def names(server: Server, **fields: object) -> list[str]:
    request = pb.ListTasksRequest(**fields)  # type: ignore[arg-type]
    return [task.name async for page in pages(server, request) for task in page.tasks]


async def test_the_newest_task_is_the_first(server: Server) -> None:
    for name in ("a", "b", "c"):
        await server.create_task(name)

    assert await names(server) == ["c", "b", "a"]


async def test_pages_hold_every_task_once(server: Server) -> None:
    created = [f"task-{number}" for number in range(7)]
    for name in created:
        await server.create_task(name)

    listed = [
        [task.name for task in page.tasks]
        async for page in pages(server, pb.ListTasksRequest(page_size=3))
    ]

    assert [len(page) for page in listed] == [3, 3, 1]
    assert [name for page in listed for name in page] == created[::-1]


async def test_a_task_created_or_deleted_between_pages_does_not_move_others(
    server: Server,
) -> None:
    for name in ("a", "b", "c", "d"):
        await server.create_task(name)
    first = await server.tasks.ListTasks(pb.ListTasksRequest(page_size=2))

    await server.create_task("e")
    await server.tasks.DeleteTask(pb.DeleteTaskRequest(task="local/c"))
    second = await server.tasks.ListTasks(
        pb.ListTasksRequest(page_size=2, page_token=first.next_page_token)
    )

    assert [task.name for task in (*first.tasks, *second.tasks)] == ["d", "c", "b", "a"]


async def test_tasks_are_filtered_by_owner_and_by_current_status(server: Server) -> None:
    for name in ("a", "b", "c"):
        await server.create_task(name)
    await server.create_task("d", owner="other")
    await report_build(server, transition=types.BUILD_TRANSITION_STOP, task="local/b")

    assert await names(server, owner="other") == ["d"]
    assert await names(server, owner="nobody") == []
    assert await names(server, status=types.TASK_STATUS_PAUSED) == ["b"]
    assert await names(server, status=types.TASK_STATUS_PAUSED, page_size=1) == ["b"]
    assert await names(server, status=types.TASK_STATUS_PAUSED, owner="other") == []
    assert await names(server, status=types.TASK_STATUS_PENDING, owner="local") == ["c", "a"]


async def test_a_page_size_beyond_the_maximum_means_the_maximum(server: Server) -> None:
    await server.create_task()

    page = await server.tasks.ListTasks(pb.ListTasksRequest(page_size=2**31 - 1))

    assert len(page.tasks) == 1


async def test_a_page_of_long_prompts_stays_below_the_clients_message_limit(server: Server) -> None:
    created = [f"task-{number}" for number in range(70)]
    for name in created:
        await server.create_task(name, prompt="x" * 65_536)

    request = pb.ListTasksRequest(page_size=1000, view=pb.TASK_VIEW_FULL)
    listed = [page async for page in pages(server, request)]

    assert max(page.ByteSize() for page in listed) < CLIENT_BYTES
    assert [task.name for page in listed for task in page.tasks] == created[::-1]
    assert {task.prompt for page in listed for task in page.tasks} == {"x" * 65_536}


async def test_prompts_are_listed_only_in_the_full_view_and_otherwise_do_not_count(
    server: Server,
) -> None:
    for number in range(42):
        await server.create_task(f"task-{number}", prompt="x" * 65_536)

    for view in (pb.TASK_VIEW_UNSPECIFIED, pb.TASK_VIEW_BASIC):
        page = await server.tasks.ListTasks(pb.ListTasksRequest(view=view))
        assert len(page.tasks) == 42
        assert page.next_page_token == ""
        assert page.ByteSize() < 42 * 200
        assert {task.prompt for task in page.tasks} == {""}


async def test_a_page_of_large_labels_stays_below_the_clients_message_limit(server: Server) -> None:
    labels = {f"label-{number}": "\U0001f600" * 255 for number in range(64)}
    created = [f"task-{number}" for number in range(50)]
    for name in created:
        await server.create_task(name, labels=labels)

    listed = [page async for page in pages(server, pb.ListTasksRequest(page_size=1000))]

    assert max(page.ByteSize() for page in listed) < CLIENT_BYTES / 2
    assert [task.name for page in listed for task in page.tasks] == created[::-1]
    assert all(dict(task.labels) == labels for page in listed for task in page.tasks)


@pytest.mark.parametrize(
    ("selectors", "found"),
    [
        ([], "edcba"),
        (["env"], "dba"),
        (["env=prod"], "ba"),
        (["env="], "d"),
        (["env", "team"], "ba"),
        (["env=prod", "team=x=y"], "a"),
        (["team=x=y", "env=prod", "env"], "a"),
        (["env=prod", "env=dev"], ""),
        (["nothing"], ""),
        (["env=Prod"], ""),
        (["env=pro"], ""),
        (["quoted=\"'\\%_{}[]\U0001f600"], "c"),
        (["env=prod"] * 16, "ba"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("owner", ["", "local"])
async def test_tasks_are_selected_by_all_given_labels(
    server: Server, selectors: list[str], found: str, owner: str
) -> None:
    labels: dict[str, dict[str, str]] = {
        "a": {"env": "prod", "team": "x=y"},
        "b": {"env": "prod", "team": "z"},
        "c": {"quoted": "\"'\\%_{}[]\U0001f600"},
        "d": {"env": ""},
        "e": {},
    }
    for name, given in labels.items():
        await server.create_task(name, labels=given)

    for page_size in (1, 2, 100):
        fields = {"owner": owner, "labels": selectors, "page_size": page_size}
        assert await names(server, **fields) == list(found)


async def test_one_task_of_many_is_found_by_its_label_in_one_call(server: Server) -> None:
    await server.create_task("wanted", labels={"env": "prod"})
    for number in range(30):
        await server.create_task(f"task-{number}", labels={"env": "dev"})

    page = await server.tasks.ListTasks(pb.ListTasksRequest(page_size=2, labels=["env=prod"]))

    assert [task.name for task in page.tasks] == ["wanted"]
    assert dict(page.tasks[0].labels) == {"env": "prod"}
    assert page.next_page_token == ""


async def test_one_task_of_many_is_found_by_its_status_in_one_call(server: Server) -> None:
    await server.create_task("wanted")
    await report_build(server, transition=types.BUILD_TRANSITION_STOP, task="local/wanted")
    for number in range(30):
        await server.create_task(f"task-{number}", owner=f"owner-{number % 2}")

    for owner in ("", "local"):
        page = await server.tasks.ListTasks(
            pb.ListTasksRequest(page_size=2, status=types.TASK_STATUS_PAUSED, owner=owner)
        )
        assert [task.name for task in page.tasks] == ["wanted"]
        assert page.tasks[0].status == types.TASK_STATUS_PAUSED
        assert page.next_page_token == ""


async def test_only_the_prompts_of_listed_tasks_count_against_the_page(server: Server) -> None:
    await server.create_task("wanted", prompt="do it")
    await report_build(server, transition=types.BUILD_TRANSITION_STOP, task="local/wanted")
    labels = {f"label-{number}": "\U0001f600" * 255 for number in range(64)}
    for number in range(20):
        await server.create_task(f"task-{number}", prompt="x" * 65_536, labels=labels)

    for view in (pb.TASK_VIEW_BASIC, pb.TASK_VIEW_FULL):
        page = await server.tasks.ListTasks(
            pb.ListTasksRequest(view=view, status=types.TASK_STATUS_PAUSED)
        )
        assert [task.name for task in page.tasks] == ["wanted"]
        assert page.next_page_token == ""


async def test_labels_and_status_select_together(server: Server) -> None:
    for name in ("a", "b", "c"):
        await server.create_task(name, labels={"env": "prod"} if name != "c" else {})
    for name in ("b", "c"):
        await report_build(server, transition=types.BUILD_TRANSITION_STOP, task=f"local/{name}")

    paused = types.TASK_STATUS_PAUSED
    assert await names(server, labels=["env=prod"], status=paused, page_size=1) == ["b"]


@pytest.mark.parametrize(
    "changed",
    [
        {"owner": "local"},
        {"status": types.TASK_STATUS_PENDING},
        {"labels": ["env"]},
        {"view": pb.TASK_VIEW_FULL},
    ],
    ids=["owner", "status", "labels", "view"],
)
async def test_a_page_token_is_valid_only_with_the_same_arguments(
    server: Server, changed: dict[str, object]
) -> None:
    token = await _token(server)

    refusal = await refused(
        server.tasks.ListTasks(
            pb.ListTasksRequest(page_token=token, **changed)  # type: ignore[arg-type]
        )
    )

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.fields == ["page_token"]


async def test_the_page_size_may_change_between_pages(server: Server) -> None:
    token = await _token(server)

    page = await server.tasks.ListTasks(pb.ListTasksRequest(page_token=token, page_size=50))

    assert [task.name for task in page.tasks] == ["a"]


async def test_a_malformed_page_token_is_refused(server: Server) -> None:
    token = await _token(server)

    for broken in (token[:-1], token[1:], token + "A", token[::-1], "=", "A" * 10_000, "\u00e9"):
        refusal = await refused(server.tasks.ListTasks(pb.ListTasksRequest(page_token=broken)))
        assert refusal.fields == ["page_token"], broken[:40]


async def test_page_tokens_of_lists_and_of_logs_are_not_interchangeable(server: Server) -> None:
    of_list = await _token(server)
    async with ScriptedAgent.connect(server, (await server.create_task()).agent_token) as agent:
        await agent.append(open_epoch=True, entries=[log_entry(0, "a"), log_entry(1, "b")])
        await agent.acked()
    read = await server.logs.GetTaskLogs(logs_pb.GetTaskLogsRequest(task="local/demo", page_size=1))
    assert read.next_page_token

    for token in (read.next_page_token, read.cursor):
        refusal = await refused(server.tasks.ListTasks(pb.ListTasksRequest(page_token=token)))
        assert refusal.fields == ["page_token"]
    for token in (of_list, read.cursor):
        refusal = await refused(
            server.logs.GetTaskLogs(
                logs_pb.GetTaskLogsRequest(task="local/demo", page_size=1, page_token=token)
            )
        )
        assert refusal.fields == ["page_token"]


async def _token(server: Server) -> str:
    for name in ("a", "b"):
        await server.create_task(name)
    page = await server.tasks.ListTasks(pb.ListTasksRequest(page_size=1))
    assert page.next_page_token
    return page.next_page_token


async def test_other_calls_have_turns_while_a_long_list_is_encoded(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        labels = {f"label-{one}": f"{number}" for one in range(64)}
        await server.tasks.CreateTask(pb.CreateTaskRequest(name=f"t{number}", labels=labels))
    pieces = 0
    run = LoopShare.run

    async def counted(share: LoopShare, piece: Callable[[], object]) -> object:
        nonlocal pieces
        pieces += 1
        return await run(share, piece)

    monkeypatch.setattr(LoopShare, "run", counted)
    # Each piece ends after one task, as on a slow machine.
    monkeypatch.setattr(tasks, "_PIECE_SECONDS", 1e-9)
    listed = await server.tasks.ListTasks(pb.ListTasksRequest())
    assert [task.name for task in listed.tasks] == [f"t{29 - number}" for number in range(30)]
    assert all(len(task.labels) == 64 for task in listed.tasks)
    assert pieces >= 30
