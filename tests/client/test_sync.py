"""The client without asyncio, used from threads, against a scripted server."""

from __future__ import annotations

import asyncio
import inspect
import pydoc
import threading
from collections.abc import AsyncIterator, Callable

import grpc
import pytest

from tasklogs import EntriesChanged, FollowEvent, SyncTaskLogsClient, TaskLogsClient, errors
from tests.cli.samples import page, task
from tests.client.test_follow import DRAINING, refusal
from tests.support.fakes.log_server import (
    ACTIVE,
    HOLD,
    LogServer,
    entries,
    entry,
    log_server,
    status,
)
from tests.support.fakes.log_server import caught_up as caught_up_at


@pytest.fixture
async def server() -> AsyncIterator[LogServer]:
    async with log_server() as server:
        yield server


def client_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "tasklogs client"]


async def test_reads_and_operations_wait_for_their_answers(server: LogServer) -> None:
    server.answers = [
        page(entry(0, "a", 1), next_page_token="2"),
        page(entry(1, "b", 2)),
        task("demo"),
    ]

    def use() -> tuple[list[str], str]:
        with SyncTaskLogsClient(server.address) as client:
            log = client.get("local/demo")
            return [each.content for each in log.entries()], client.get_task("local/demo").name

    assert await asyncio.to_thread(use) == (["a", "b"], "demo")
    assert client_threads() == []


async def test_a_follow_is_a_plain_loop_that_reconnects(server: LogServer) -> None:
    server.streams = [
        [status("c0", ACTIVE), entries("c1", entry(0, "a", 1)), DRAINING],
        [status("c1", ACTIVE), entries("c2", entry(1, "b", 2)), caught_up_at("c2"), HOLD],
    ]

    def use() -> list[str]:
        seen = []
        with SyncTaskLogsClient(server.address) as client, client.follow("local/demo") as follow:
            for event in follow:
                if isinstance(event, EntriesChanged):
                    seen += [each.content for each in event.entries]
                if follow.cursor == "c2" and len(seen) == 2:
                    break
        return seen

    assert await asyncio.to_thread(use) == ["a", "b"]
    await server.left.wait()


async def test_errors_are_raised_in_the_thread_that_asked(server: LogServer) -> None:
    server.streams = [[refusal(grpc.StatusCode.NOT_FOUND, "TASK_NOT_FOUND")]]

    def use() -> None:
        with SyncTaskLogsClient(server.address) as client:
            next(client.follow("local/demo"))

    with pytest.raises(errors.TaskNotFound):
        await asyncio.to_thread(use)
    assert client_threads() == []


async def test_closing_ends_a_follow_that_another_thread_waits_for(server: LogServer) -> None:
    server.streams = [[status("c0", ACTIVE), HOLD]]
    client = await asyncio.to_thread(SyncTaskLogsClient(server.address).__enter__)
    loop, begun = asyncio.get_running_loop(), asyncio.Event()

    def read() -> int:
        seen = []
        for event in client.follow("local/demo"):
            seen.append(event)
            loop.call_soon_threadsafe(begun.set)
        return len(seen)

    reading = asyncio.create_task(asyncio.to_thread(read))
    await begun.wait()

    await asyncio.to_thread(client.close)

    assert await reading == 1
    assert client_threads() == []


async def test_closing_ends_a_call_that_another_thread_waits_for(server: LogServer) -> None:
    server.answers = [HOLD]
    client = await asyncio.to_thread(SyncTaskLogsClient(server.address).__enter__)
    calling = asyncio.create_task(asyncio.to_thread(client.get_task, "local/demo"))
    await server.called.wait()

    await asyncio.to_thread(client.close)

    with pytest.raises(RuntimeError, match="not open"):
        await calling


async def test_closing_ends_even_a_call_that_waits_for_its_token(server: LogServer) -> None:
    loop, asked = asyncio.get_running_loop(), asyncio.Event()

    async def never() -> str:
        loop.call_soon_threadsafe(asked.set)
        return await asyncio.Future()

    client = await asyncio.to_thread(SyncTaskLogsClient(server.address, token=never).__enter__)
    calling = asyncio.create_task(asyncio.to_thread(client.get_task, "local/demo"))
    await asked.wait()

    await asyncio.to_thread(client.close)

    with pytest.raises(RuntimeError, match="not open"):
        await calling


async def test_a_follow_of_a_closed_client_has_ended(server: LogServer) -> None:
    def use() -> list[FollowEvent]:
        with SyncTaskLogsClient(server.address) as client:
            follow = client.follow("local/demo")
        return list(follow)

    assert await asyncio.to_thread(use) == []


async def test_a_follow_that_is_dropped_leaves_the_server(server: LogServer) -> None:
    server.streams = [[status("c0", ACTIVE), HOLD]]

    def use(client: SyncTaskLogsClient) -> None:
        next(client.follow("local/demo"))

    client = await asyncio.to_thread(SyncTaskLogsClient(server.address).__enter__)
    await asyncio.to_thread(use, client)

    await server.left.wait()
    await asyncio.to_thread(client.close)


def test_a_client_needs_its_block() -> None:
    client = SyncTaskLogsClient("127.0.0.1:9")

    with pytest.raises(RuntimeError, match="inside `with`"):
        client.get_task("local/demo")
    client.close()


def methods_of(client: type) -> dict[str, Callable[..., object]]:
    return {
        name: member
        for name, member in vars(client).items()
        if inspect.isfunction(member) and not name.startswith("_")
    }


def test_it_has_each_method_of_the_asynchronous_client_with_the_same_parameters() -> None:
    asynchronous, synchronous = methods_of(TaskLogsClient), methods_of(SyncTaskLogsClient)

    assert synchronous.keys() == asynchronous.keys()
    for name, method in synchronous.items():
        signature = inspect.signature(method)
        assert signature.parameters == inspect.signature(asynchronous[name]).parameters
        assert "Async" not in str(signature.return_annotation)
        assert not inspect.iscoroutinefunction(method)


def test_help_shows_signatures_and_docstrings_without_asyncio() -> None:
    shown = pydoc.plain(pydoc.render_doc(SyncTaskLogsClient))

    # From 3.13 on pydoc writes a long signature in lines, one parameter each.
    one_line = " ".join(line.lstrip(" |") for line in shown.splitlines()).replace("( ", "(")
    assert "get(self, task: 'str', *, source: 'LogSource | None' = None" in one_line
    assert "-> 'SyncTaskLog'" in shown
    assert "Raises TaskNotFound; TaskStateConflict" in shown
    for word in ("async with", "await", "asyncio.run"):
        assert word not in shown.replace("without `await`", "")
