"""Checks of tasks' states: the states of all waiting reads are read in one statement.

This is not a cache. A caller joins only a statement that begins after its call, so it never gets a
stale state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextvars import Context

from tasklogs_server.domain.names import TaskRef
from tasklogs_server.store.errors import concerns_one_task
from tasklogs_server.store.task_states import AskedState, Found, TaskState, TaskStates

# If a check had so many callers, the next one begins no earlier than this after it. A statement
# costs as much as a dozen of the tasks that it asks for, so a busy server asks for many at once.
# With fewer callers nobody waits.
_BUSY_CALLERS = 8
_INTERVAL_SECONDS = 0.004

_Waiting = tuple[TaskState | None, list[asyncio.Future[TaskState]]]


class StateChecks:
    """Reads the states of tasks, with at most one statement under way."""

    def __init__(self, states: TaskStates) -> None:
        self._states = states
        self._waiting: dict[TaskRef, _Waiting] = {}
        self._run: asyncio.Task[None] | None = None
        self._callers = 0
        """How many the last statement had."""
        self._not_before = 0.0

    async def state(self, ref: TaskRef, known: TaskState | None = None) -> TaskState:
        """Return the state of a task, by a statement that begins after this call.

        `known`: the last state that the caller found; it is returned again if nothing has changed.
        Raises TaskNotFound, StoreUnavailable, LogCorrupt.
        """
        loop = asyncio.get_running_loop()
        found: asyncio.Future[TaskState] = loop.create_future()
        waiting = self._waiting.get(ref)
        if waiting is None:
            self._waiting[ref] = (known, [found])
            if self._run is None:
                # In an empty context: the statement is part of no call, and counts for no caller.
                self._run = loop.create_task(self._check(), context=Context())
        else:
            waiting[1].append(found)
        return await found

    async def _check(self) -> None:
        """Read states as long as somebody waits for one."""
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                if self._callers >= _BUSY_CALLERS:
                    await asyncio.sleep(self._not_before - loop.time())
                await self._read_all()
                self._not_before = loop.time() + _INTERVAL_SECONDS
        finally:
            self._run = None

    def _take(self) -> dict[TaskRef, _Waiting]:
        taken, self._waiting = self._waiting, {}
        return taken

    async def _read_all(self) -> None:
        taken: dict[TaskRef, _Waiting] = {}

        def take() -> Sequence[AskedState]:
            taken.update(self._take())
            return [AskedState(ref, known) for ref, (known, _) in taken.items()]

        try:
            found = await self._states.read(take)
        except BaseException as error:
            taken = taken or self._take()
            if not isinstance(error, Exception):
                _cancel(taken)  # the server stops
                raise
            if len(taken) == 1 or not concerns_one_task(error):
                _fail(taken, error)
                return
            # One task's rows are bad. Each is read alone, so that the others are answered.
            found = [await self._read_one(ref, known) for ref, (known, _) in taken.items()]
        self._callers = 0
        for one, (_, futures) in zip(found, taken.values(), strict=True):
            self._callers += len(futures)
            _settle(futures, one)

    async def _read_one(self, ref: TaskRef, known: TaskState | None) -> Found:
        try:
            [found] = await self._states.read(lambda: [AskedState(ref, known)])
        except Exception as error:
            return error
        return found


def _settle(futures: Sequence[asyncio.Future[TaskState]], found: Found) -> None:
    for future in futures:
        if future.done():
            continue  # the caller has left
        if isinstance(found, Exception):
            future.set_exception(found)
        else:
            future.set_result(found)


def _fail(taken: Mapping[TaskRef, _Waiting], error: Exception) -> None:
    for _, futures in taken.values():
        _settle(futures, error)


def _cancel(taken: Mapping[TaskRef, _Waiting]) -> None:
    for _, futures in taken.values():
        for future in futures:
            future.cancel()
