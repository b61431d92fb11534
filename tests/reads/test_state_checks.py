"""Checks of tasks' states: who shares a statement, when it begins, and what fails whom."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from typing import Any, cast

import pytest

from tasklogs_server.domain.errors import LogCorrupt, StoreUnavailable, TaskNotFound
from tasklogs_server.domain.names import TaskId, TaskRef
from tasklogs_server.reads.state_checks import Pace, StateChecks
from tasklogs_server.store.task_states import AskedState, Found, TaskState, TaskStates
from tasklogs_server.telemetry.calls import Call, current
from tests.support.fixtures.conditions import DEADLINE_SECONDS

REFS = [TaskId(uuid.UUID(int=number)) for number in range(1, 40)]


def state_of(ref: TaskRef, number: int) -> TaskState:
    """A state that tells which statement found it, in its place of the fence."""
    assert isinstance(ref, TaskId)
    return TaskState(ref.id, cast("Any", None), number, None, cast("Any", None))


@dataclass
class ScriptedStates:
    """Statements that end when the test says so."""

    asked: list[Sequence[TaskRef]] = field(default_factory=list)
    begins: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    fails: Callable[[Sequence[TaskRef]], Exception | None] = lambda refs: None
    calls: list[Call | None] = field(default_factory=list)

    async def read(self, take: Callable[[], Sequence[AskedState]]) -> Sequence[Found]:
        refs = [one.ref for one in take()]
        self.asked.append(refs)
        self.calls.append(current())
        self.begins.set()
        number = len(self.asked)
        await self.go_on.wait()
        error = self.fails(refs)
        if error is not None:
            raise error
        return [state_of(ref, number) for ref in refs]


def fence_of(state: TaskState | None) -> int:
    assert state is not None
    return state.fence


def checks_over(states: ScriptedStates) -> StateChecks:
    return StateChecks(cast("TaskStates", states))


async def test_a_caller_joins_only_a_statement_that_begins_after_its_call() -> None:
    states = ScriptedStates()
    checks = checks_over(states)
    first = asyncio.create_task(checks.state(REFS[0]))
    await states.begins.wait()
    later = [asyncio.create_task(checks.state(ref)) for ref in REFS[:5]]
    await asyncio.sleep(0)
    states.go_on.set()
    assert fence_of(await first) == 1
    assert fence_of(await later[0]) == 2
    assert [fence_of(await one) for one in later] == [2] * 5
    assert states.asked == [REFS[:1], REFS[:5]]


async def test_many_callers_for_one_task_ask_for_it_once() -> None:
    states = ScriptedStates()
    checks = checks_over(states)
    states.go_on.set()
    found = await asyncio.gather(*(checks.state(REFS[n % 2]) for n in range(20)))
    assert states.asked == [REFS[:2]]
    assert set(map(fence_of, found)) == {1}


async def test_a_statement_is_part_of_no_call() -> None:
    states = ScriptedStates()
    checks = checks_over(states)
    states.go_on.set()
    Call("/a/method", ()).make_current()
    await checks.state(REFS[0])
    assert states.calls == [None]


async def test_if_the_store_is_away_all_callers_are_told() -> None:
    states = ScriptedStates(fails=lambda _: StoreUnavailable(timedelta(seconds=1)))
    checks = checks_over(states)
    states.go_on.set()
    answers = await asyncio.gather(*map(checks.state, REFS[:3]), return_exceptions=True)
    assert [type(one) for one in answers] == [StoreUnavailable] * 3
    assert len(states.asked) == 1


async def test_a_task_whose_rows_are_corrupt_fails_no_reader_of_another() -> None:
    states = ScriptedStates(fails=lambda refs: LogCorrupt() if REFS[1] in refs else None)
    checks = checks_over(states)
    states.go_on.set()
    # Each reads its own task.
    assert await asyncio.gather(*map(checks.state, REFS[:3])) == [None] * 3


async def test_callers_do_not_wait_for_a_statement_that_takes_long() -> None:
    states = ScriptedStates()
    checks = checks_over(states)
    async with asyncio.timeout(DEADLINE_SECONDS):
        assert await asyncio.gather(*map(checks.state, REFS[:3])) == [None] * 3
        states.go_on.set()
        assert await checks.state(REFS[0]) is not None


async def test_an_error_of_one_row_is_its_readers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    states = ScriptedStates()

    async def read(take: Callable[[], Sequence[AskedState]]) -> Sequence[Found]:
        good, bad = (one.ref for one in take())
        return [state_of(good, 1), TaskNotFound(str(bad))]

    monkeypatch.setattr(states, "read", read)
    checks = checks_over(states)
    good, bad = await asyncio.gather(*map(checks.state, REFS[:2]), return_exceptions=True)
    assert isinstance(good, TaskState)
    assert isinstance(bad, TaskNotFound)


async def test_a_caller_that_leaves_ends_no_check_of_others() -> None:
    states = ScriptedStates()
    checks = checks_over(states)
    leaving, staying = (asyncio.create_task(checks.state(REFS[0])) for _ in range(2))
    await states.begins.wait()
    leaving.cancel()
    await asyncio.wait([leaving])
    states.go_on.set()
    assert fence_of(await staying) == 1
    assert fence_of(await checks.state(REFS[0])) == 2


async def test_if_the_check_is_cancelled_nobody_keeps_waiting() -> None:
    states = ScriptedStates()
    checks = checks_over(states)
    waiting = asyncio.create_task(checks.state(REFS[0]))
    await states.begins.wait()
    run = checks._run
    assert run is not None
    run.cancel()
    async with asyncio.timeout(10):
        await asyncio.wait([waiting, run])
    assert waiting.cancelled()


def checked(pace: Pace, callers: int, waiting: int, times: int = 1) -> None:
    for _ in range(times):
        pace.checked(callers, waiting)


def test_a_lone_caller_never_waits() -> None:
    pace = Pace()
    for _ in range(10_000):
        assert not pace.waits(1)
        pace.checked(1, 0)


def test_after_a_check_for_many_the_next_one_waits_for_as_many() -> None:
    pace = Pace()
    pace.checked(20, 0)
    assert pace.waits(1)
    assert pace.waits(19)
    assert not pace.waits(20)
    pace.checked(9, 0)
    assert pace.waits(18)
    assert not pace.waits(19)


def test_when_a_wait_gathered_nobody_the_next_check_begins_at_once() -> None:
    pace = Pace()
    pace.checked(20, 0)
    pace.checked(1, 0)
    assert not pace.waits(1)


def test_among_many_a_wait_or_two_for_few_change_nothing() -> None:
    pace = Pace()
    checked(pace, callers=20, waiting=0, times=3)
    for _ in range(100):  # calls come by chance: a wait gathers few of them now and then
        checked(pace, callers=1, waiting=1, times=2)
        assert pace.waits(1)
        checked(pace, callers=5, waiting=1, times=2)


def test_after_some_waits_for_few_checks_begin_at_once_however_many_came_before() -> None:
    pace = Pace()
    checked(pace, callers=20, waiting=0, times=1000)
    checked(pace, callers=1, waiting=0, times=4)
    assert not pace.waits(1)


def test_two_callers_wait_once_in_a_while_and_more_and_more_seldom() -> None:
    pace, waited = Pace(), []
    for number in range(5000):
        if pace.waits(1):
            waited.append(number)
        pace.checked(1, 1)
    gaps = [after - before for before, after in pairwise(waited)]
    assert 5 <= len(waited) <= 12
    assert gaps == sorted(gaps)


def test_callers_of_which_few_are_seen_at_a_time_are_found_by_a_wait() -> None:
    pace = Pace()
    checked(pace, 1, 1, times=16)
    assert pace.waits(1)
    pace.checked(12, 3)  # so many came while it waited
    assert pace.waits(1)
