"""Readers with asyncio."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from tasklogs import ClientClosed, Follow, FollowEvent, ReconnectWaits, TaskLogsClient, errors
from tests.support.fixtures.conditions import DEADLINE_SECONDS
from tests.system.readers.growing_log import TASK, GrowingLog, Seen

WAITS = ReconnectWaits(first=timedelta(milliseconds=2), cap=timedelta(milliseconds=100))


class Broken(Exception):
    """What the body of a loop raises."""


class AsyncReader:
    """Reads the log with one client after another, in every way that a program may."""

    def __init__(self, log: GrowingLog, seed: int) -> None:
        self.seen = Seen()
        self._log = log
        self._rng = random.Random(seed)
        self._client = TaskLogsClient(log.address, token=self._token, reconnect_waits=WAITS)
        self._follow: Follow | None = None
        self._ways: list[Callable[[Follow], Awaitable[None]]] = [
            self._time_out,
            self._wait_for,
            self._cancel,
            self._break,
            self._raise,
            self._close_follow,
            self._close_client,
            self._drop,
            self._call_and_close,
            self._delete_another,
        ]

    async def read(self, until_set: asyncio.Event) -> None:
        """Read in random ways until then."""
        await self._client.connect()
        while not until_set.is_set():
            way = self._rng.choice(self._ways)
            self.seen.did(way.__name__.strip("_"))
            await way(self._current())

    async def catch_up(self, entries: int) -> None:
        """Read the rest of the log, which has so many entries."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not self.seen.has_all(entries):
                self._take(await anext(self._current()))

    async def sees_the_end(self) -> None:
        """Read until the task is deleted."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            try:
                async for event in self._current():
                    self._take(event)
            except errors.TaskNotFound:
                self.seen.did("deleted")
                return
        raise AssertionError("the follow of a deleted task ended without an error")

    async def close(self) -> None:
        await self._client.close()

    def _current(self) -> Follow:
        if self._follow is None:
            self._follow = self._client.follow(
                TASK,
                cursor=self.seen.cursor,
                deltas=self._rng.random() < 0.8,
                connect_timeout=None,
                on_reconnect=lambda what: self.seen.did(type(what).__name__),
            )
        return self._follow

    def _take(self, event: FollowEvent) -> None:
        self.seen.take(event)

    async def _token(self) -> str:
        if self._rng.random() < 0.5:
            await asyncio.sleep(self._some())
        return "token"

    def _some(self) -> float:
        return self._rng.random() ** 3 * 0.05

    async def _time_out(self, follow: Follow) -> None:
        for _ in range(self._rng.randrange(1, 20)):
            try:
                async with asyncio.timeout(self._some()):
                    event = await anext(follow)
            except TimeoutError:
                self.seen.did("timed out")
            else:
                self._take(event)

    async def _wait_for(self, follow: Follow) -> None:
        for _ in range(self._rng.randrange(1, 20)):
            try:
                self._take(await asyncio.wait_for(anext(follow), self._some()))
            except TimeoutError:
                self.seen.did("timed out")

    async def _cancel(self, follow: Follow) -> None:
        async def one() -> None:
            self._take(await anext(follow))

        for _ in range(self._rng.randrange(1, 20)):
            reading = asyncio.create_task(one())
            await asyncio.sleep(self._some())
            reading.cancel()
            await asyncio.wait({reading})
            if not reading.cancelled():
                reading.result()

    async def _break(self, follow: Follow) -> None:
        most = self._rng.randrange(1, 10)
        async for event in follow:
            self._take(event)
            most -= 1
            if most == 0:
                break

    async def _raise(self, follow: Follow) -> None:
        self._follow = None
        try:
            async with follow:
                async for event in follow:
                    self._take(event)
                    if self._rng.random() < 0.3:
                        raise Broken
        except Broken:
            assert follow.cursor == self.seen.cursor

    async def _close_follow(self, follow: Follow) -> None:
        reading = asyncio.create_task(self._all_of(follow))
        await asyncio.sleep(self._some())
        self._follow = None
        await follow.aclose()
        await reading

    async def _close_client(self, follow: Follow) -> None:
        reading = asyncio.create_task(self._all_of(follow))
        calling = asyncio.create_task(self._client.get_task(TASK))
        await asyncio.sleep(self._some())
        self._follow = None
        await self._client.close()
        await reading
        await asyncio.wait({calling})
        error = calling.exception()
        assert error is None or isinstance(error, ClientClosed | errors.Unavailable), repr(error)
        await self._client.connect()

    async def _drop(self, follow: Follow) -> None:
        with_a_read = self._rng.random() < 0.5
        if with_a_read:
            try:
                async with asyncio.timeout(self._some()):
                    self._take(await anext(follow))
            except TimeoutError:
                pass
        self._follow = None

    async def _call_and_close(self, _: Follow) -> None:
        other = await TaskLogsClient(self._log.address, token=self._token).connect()
        calls: list[asyncio.Task[Any]] = [
            asyncio.create_task(other.get_task(TASK)),
            asyncio.create_task(_whole(other)),
            asyncio.create_task(_listed(other)),
        ]
        await asyncio.sleep(self._some())
        await other.close()
        await asyncio.wait(calls)
        for call in calls:
            error = call.exception()
            assert error is None or isinstance(error, ClientClosed | errors.Unavailable), error

    async def _delete_another(self, _: Follow) -> None:
        async with TaskLogsClient(self._log.server.address) as operator:
            made = await operator.create_task(f"t{self._rng.randrange(1 << 60):x}", standalone=True)
            follow = self._client.follow(made.task.id, connect_timeout=None)
            reading = asyncio.create_task(self._to_its_end(follow))
            await asyncio.sleep(self._some())
            await operator.delete_task(made.task.id)
        await reading

    async def _to_its_end(self, follow: Follow) -> None:
        try:
            async for _ in follow:
                pass
        except errors.TaskNotFound:
            return
        raise AssertionError("the follow of a deleted task ended without an error")

    async def _all_of(self, follow: Follow) -> None:
        async for event in follow:
            self._take(event)


async def _whole(client: TaskLogsClient) -> None:
    log = await client.get(TASK, tail=200, page_size=50)
    assert [one.id async for one in log.entries()]


async def _listed(client: TaskLogsClient) -> None:
    async for _ in client.list_tasks(page_size=1):
        pass


async def read_at_random(log: GrowingLog, seed: int, readers: int, seconds: float) -> list[Seen]:
    """Let so many readers read a growing log for so long, and then its rest and its end.

    Raises where a reader saw something wrong, if a task of the client is left, or if asyncio
    complained about one. No follow is open at the server in the end.
    """
    complaints: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(str(context)))
    all_of_them = [AsyncReader(log, seed * 1000 + n) for n in range(readers)]
    stop, full = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(log.grow(full))
        group.create_task(log.break_streams(stop))
        reading = [group.create_task(reader.read(stop)) for reader in all_of_them]
        await asyncio.sleep(seconds)
        stop.set()
        await asyncio.wait(reading)
        full.set()
    for reader in all_of_them:
        await reader.catch_up(log.entries)
    async with asyncio.TaskGroup() as group:
        for reader in all_of_them:
            group.create_task(reader.sees_the_end())
        await log.delete()
    for reader in all_of_them:
        await reader.close()
    await log.nobody_follows()
    gc.collect()
    left = [str(one) for one in asyncio.all_tasks() if "tasklogs/client" in str(one.get_coro())]
    assert left == []
    assert complaints == []
    return [reader.seen for reader in all_of_them]
