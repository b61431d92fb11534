"""What a program can set for all calls of a client, or for one: time-out, metadata, a page."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest

from tasklogs import Page, TaskLogsClient, errors
from tasklogs.v1 import tasks_pb2
from tests.cli.samples import page, task
from tests.support.fakes.log_server import ACTIVE, HOLD, LogServer, entry, log_server, status


@pytest.fixture
async def server() -> AsyncIterator[LogServer]:
    async with log_server() as server:
        yield server


@pytest.fixture
async def client(server: LogServer) -> AsyncIterator[TaskLogsClient]:
    async with TaskLogsClient(server.address) as client:
        yield client


METHODS = {
    name: method
    for name, method in inspect.getmembers(TaskLogsClient, inspect.isfunction)
    if not name.startswith("_") and name not in ("close", "connect")
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_metadata_and_a_time_out(name: str) -> None:
    parameters = inspect.signature(METHODS[name]).parameters

    assert "metadata" in parameters
    assert ("connect_timeout" if name == "follow" else "timeout") in parameters


async def test_a_time_out_of_a_call_replaces_that_of_the_client(server: LogServer) -> None:
    server.answers = [HOLD]
    async with TaskLogsClient(server.address, timeout=None) as client:
        with pytest.raises(errors.DeadlineExceeded):
            await client.get_task("a/b", timeout=timedelta(milliseconds=50))


@pytest.mark.parametrize("timeout", [timedelta.max, timedelta(days=365 * 200)])
async def test_a_huge_time_out_is_not_one_that_has_passed(
    server: LogServer, client: TaskLogsClient, timeout: timedelta
) -> None:
    server.answers = [task()]

    assert (await client.get_task("a/b", timeout=timeout)).name == "demo"


async def test_a_time_out_in_seconds_is_refused_with_what_to_write(client: TaskLogsClient) -> None:
    seconds: Any = 5.0
    with pytest.raises(TypeError, match=r"timedelta\(seconds=5\)"):
        await client.get_task("a/b", timeout=seconds)
    with pytest.raises(TypeError, match=r"timedelta\(seconds=5\)"):
        TaskLogsClient("127.0.0.1:9", timeout=seconds)


async def test_metadata_goes_with_every_call_and_that_of_a_call_replaces_it(
    server: LogServer,
) -> None:
    server.answers = [task(), task(), task()]
    server.streams = [[status("c0", ACTIVE), HOLD]]
    ours: dict[str, str | bytes] = {"X-Tenant": "a", "x-trace-bin": b"\0"}
    async with TaskLogsClient(server.address, token="mine", metadata=ours) as client:
        await client.get_task("a/b")
        await client.get_task("a/b", metadata={"x-tenant": "b", "x-more": "c"})
        await client.get_task("a/b", metadata={"authorization": "Bearer theirs"})
        await anext(client.follow("a/b", metadata={"x-tenant": "d"}))

    assert server.tokens == ["Bearer mine", "Bearer mine", "Bearer theirs", "Bearer mine"]
    sent = [{key: one[key] for key in one if key.startswith("x-")} for one in server.metadata]
    assert sent == [
        {"x-tenant": "a", "x-trace-bin": b"\0"},
        {"x-tenant": "b", "x-trace-bin": b"\0", "x-more": "c"},
        {"x-tenant": "a", "x-trace-bin": b"\0"},
        {"x-tenant": "d", "x-trace-bin": b"\0"},
    ]


@pytest.mark.parametrize(
    "metadata",
    [
        {"x y": "secret"},
        {"é": "secret"},
        {":path": "secret"},
        {"x": "secr\u00e9t"},
        {"x": "secret\n"},
        {"x": b"secret"},
        {"x-bin": "secret"},
    ],
    ids=["space", "accent", "colon", "value", "line", "bytes", "text"],
)
def test_metadata_that_no_call_can_send_is_a_value_error_without_the_value(
    metadata: dict[str, str | bytes],
) -> None:
    with pytest.raises(ValueError, match="metadata") as caught:
        TaskLogsClient("127.0.0.1:9", metadata=metadata)

    assert "secr" not in str(caught.value)


@pytest.mark.parametrize("size", [0, -1])
async def test_a_page_size_below_one_is_refused(client: TaskLogsClient, size: int) -> None:
    with pytest.raises(ValueError, match="page_size"):
        await client.get("a/b", page_size=size)
    with pytest.raises(ValueError, match="page_size"):
        client.list_tasks(page_size=size)


async def test_another_process_goes_on_with_the_token_of_a_page(
    server: LogServer, client: TaskLogsClient
) -> None:
    server.answers = [
        page(entry(0, "a", 1), next_page_token="2"),
        page(entry(1, "b", 2)),
        tasks_pb2.ListTasksResponse(tasks=[task("a")], next_page_token="2"),
        tasks_pb2.ListTasksResponse(tasks=[task("b")]),
    ]

    log = await client.get("a/b", page_size=1)
    first = await anext(log.pages())
    assert [one.content for one in first] == ["a"]
    assert log.next_page_token == first.next_page_token == "2"
    last = await anext((await client.get("a/b", page_size=1, page_token="2")).pages())
    assert ([one.content for one in last], last.next_page_token) == (["b"], None)

    tasks = await anext(client.list_tasks(page_size=1).pages())
    assert ([one.name for one in tasks], tasks.next_page_token) == (["a"], "2")
    more = await anext(client.list_tasks(page_size=1, page_token="2").pages())
    assert ([one.name for one in more], more.next_page_token) == (["b"], None)

    asked = [getattr(request, "page_token") for request in server.requests]  # noqa: B009
    assert asked == ["", "2", "", "2"]


@pytest.mark.parametrize("make", [copy.copy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_page_is_a_tuple_that_can_be_copied(make: Callable[[Page[int]], Page[int]]) -> None:
    made = make(Page([1, 2], "next"))

    assert made.next_page_token == "next"
    assert made == (1, 2)
