"""So many calls begin in one turn of the loop, and those that wait go on in turns by caller."""

from __future__ import annotations

import asyncio

from tasklogs_server.concurrency.fair_turns import LineFull
from tasklogs_server.concurrency.per_turn import PerTurn
from tests.support.fixtures.conditions import until


async def all_begin(per_turn: PerTurn, callers: str, begun: list[str]) -> list[asyncio.Task[None]]:
    """Let each of these callers begin one call, in this order. `begun` gets who has begun."""

    async def begin(caller: str) -> None:
        await per_turn.begin(caller)
        begun.append(caller)

    tasks = [asyncio.create_task(begin(caller)) for caller in callers]
    await asyncio.sleep(0)
    return tasks


async def begun_by_turn(per_turn: PerTurn, callers: str) -> list[str]:
    """Return who began in each turn of the loop, until all have."""
    begun = list[str]()
    tasks = await all_begin(per_turn, callers, begun)
    turns = ["".join(begun)]
    while len(begun) < len(callers):
        count = len(begun)
        await asyncio.sleep(0)
        turns.append("".join(begun[count:]))
    await asyncio.gather(*tasks)
    return [turn for turn in turns if turn]


async def test_so_many_begin_in_each_turn() -> None:
    turns = await begun_by_turn(PerTurn(3), "a" * 10)
    assert turns == ["aaa", "aaa", "aaa", "a"]


async def test_those_that_wait_go_on_in_turns_by_caller() -> None:
    turns = await begun_by_turn(PerTurn(2), "aaaaaabc")
    assert "".join(turns) == "aaabcaaa"


async def test_nobody_overtakes_those_that_wait() -> None:
    per_turn, begun = PerTurn(1), list[str]()
    waiting = await all_begin(per_turn, "aaa", begun)
    assert per_turn.waiting == 2
    assert not per_turn.begin_at_once()
    await asyncio.gather(*waiting)


async def test_each_later_turn_has_its_places_again() -> None:
    per_turn = PerTurn(2)
    for _ in range(3):
        assert [per_turn.begin_at_once() for _ in range(3)] == [True, True, False]
        await until(per_turn.begin_at_once)
        await asyncio.sleep(0)


async def test_a_call_that_leaves_while_it_waits_takes_no_place() -> None:
    per_turn, begun = PerTurn(1), list[str]()
    first, leaves, last = await all_begin(per_turn, "abc", begun)
    leaves.cancel()
    await asyncio.gather(first, last)
    assert begun == ["a", "c"]
    assert per_turn.waiting == 0


async def test_in_a_full_line_the_caller_with_the_most_calls_makes_room() -> None:
    per_turn, begun = PerTurn(1, waiting_at_most=3), list[str]()
    tasks = await all_begin(per_turn, "aaaab", begun)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert sorted(begun) == ["a", "a", "a", "b"]
    assert [type(one) for one in outcomes if one is not None] == [LineFull]
    assert outcomes[4] is None
