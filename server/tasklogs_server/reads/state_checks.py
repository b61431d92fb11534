"""Checks of tasks' states: the states of all waiting reads are read in one statement.

This is not a cache. A caller joins only a statement that begins after its call, so it never gets a
stale state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from contextvars import Context

from tasklogs_server.domain.names import TaskRef
from tasklogs_server.store.errors import concerns_one_task
from tasklogs_server.store.task_states import AskedState, Found, TaskState, TaskStates

# A statement costs as much as a dozen of the tasks that it asks for. So when many callers come at
# once, a check waits for them: until as many wait as came together lately, but no longer than this
# after the first of them. It is worth it for so many callers.
_WAIT_SECONDS = 0.004
_MANY = 4
# With fewer callers no check waits. But whether there are more shows only after a wait: their calls
# may be anywhere in the process. So one of so many checks waits, if callers came during the check
# before it; fewer and fewer while that gathers nobody.
_FIRST_TRIAL, _LAST_TRIAL = 16, 1024
# Callers come by chance. After each check for many of them, one more wait may gather few, up to so
# many: otherwise the checks would mostly be for one caller each until the next trial.
_MOST_CREDIT = 4

# A statement that takes longer is given up: the rows of one of its tasks may be slow.
_STATEMENT_SECONDS = 0.5

_Waiting = tuple[TaskState | None, list[asyncio.Future[TaskState | None]]]


class Pace:
    """When the next check begins."""

    def __init__(self) -> None:
        self.target = 1
        """So many callers at once are enough to begin."""
        self._credit = 0
        """So many waits may gather few callers before checks begin at once again."""
        self._pause = _FIRST_TRIAL
        self._until_trial = _FIRST_TRIAL

    def waits(self, callers: int) -> bool:
        """Whether a check for so many callers waits for more."""
        return self._credit > 0 and callers < self.target

    def checked(self, callers: int, waiting: int) -> None:
        """A check for so many callers is over, and so many came meanwhile."""
        self.target = max(callers, self.target - 1, _MANY)
        if callers >= _MANY:
            self._credit = min(self._credit + 1, _MOST_CREDIT)
            self._pause = _FIRST_TRIAL
        elif self._credit > 1:
            self._credit -= 1
        elif self._credit:
            self._credit = 0
            self._until_trial = self._pause
            self._pause = min(2 * self._pause, _LAST_TRIAL)
        elif waiting:
            self._until_trial -= 1
            self._credit = 1 if self._until_trial <= 0 else 0


class StateChecks:
    """Reads the states of tasks, with at most one statement under way."""

    def __init__(self, states: TaskStates) -> None:
        self._states = states
        self._waiting: dict[TaskRef, _Waiting] = {}
        self._callers = 0
        """How many wait."""
        self._first_came = 0.0
        """When the first of them came, by the loop's clock."""
        self._enough = asyncio.Event()
        self._pace = Pace()
        self._run: asyncio.Task[None] | None = None

    async def state(self, ref: TaskRef, known: TaskState | None = None) -> TaskState | None:
        """Return the state of a task, by a statement that begins after this call.

        `known`: the last state that the caller found; it is returned again if nothing has changed.
        None: the rows of one task of the statement are bad or slow. It is unknown which, so each
        caller reads its own task. Raises TaskNotFound, StoreUnavailable.
        """
        loop = asyncio.get_running_loop()
        found: asyncio.Future[TaskState | None] = loop.create_future()
        waiting = self._waiting.get(ref)
        if waiting is None:
            self._waiting[ref] = (known, [found])
        else:
            waiting[1].append(found)
        if not self._callers:
            self._first_came = loop.time()
        self._callers += 1
        if self._run is None:
            # In an empty context: the statement is part of no call, and counts for no caller.
            self._run = loop.create_task(self._check(), context=Context())
        elif self._callers >= self._pace.target:
            self._enough.set()
        return await found

    async def _check(self) -> None:
        """Read states as long as somebody waits for one."""
        try:
            while self._waiting:
                if self._pace.waits(self._callers):
                    self._enough.clear()
                    with suppress(TimeoutError):
                        async with asyncio.timeout_at(self._first_came + _WAIT_SECONDS):
                            await self._enough.wait()
                callers = await self._read_all()
                self._pace.checked(callers, self._callers)
        finally:
            self._run = None

    def _take(self) -> dict[TaskRef, _Waiting]:
        taken, self._waiting, self._callers = self._waiting, {}, 0
        return taken

    async def _read_all(self) -> int:
        """Read the states that are asked for, and return how many callers asked."""
        taken: dict[TaskRef, _Waiting] = {}
        limit = asyncio.timeout(None)

        def take() -> Sequence[AskedState]:
            limit.reschedule(asyncio.get_running_loop().time() + _STATEMENT_SECONDS)
            taken.update(self._take())
            return [AskedState(ref, known) for ref, (known, _) in taken.items()]

        found: Sequence[Found | None]
        try:
            async with limit:
                found = await self._states.read(take)
        except BaseException as error:
            taken = taken or self._take()
            if not isinstance(error, Exception):
                _cancel(taken)  # the server stops
                raise
            is_of_one = isinstance(error, TimeoutError) or concerns_one_task(error)
            found = [None if is_of_one else error] * len(taken)
        callers = 0
        for one, (_, futures) in zip(found, taken.values(), strict=True):
            callers += len(futures)
            _settle(futures, one)
        return callers


def _settle(futures: Sequence[asyncio.Future[TaskState | None]], found: Found | None) -> None:
    for future in futures:
        if future.done():
            continue  # the caller has left
        if isinstance(found, Exception):
            future.set_exception(found)
        else:
            future.set_result(found)


def _cancel(taken: Mapping[TaskRef, _Waiting]) -> None:
    for _, futures in taken.values():
        for future in futures:
            future.cancel()
