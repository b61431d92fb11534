"""Callers take turns, and the one with the most calls makes room in a full line."""

from __future__ import annotations

import asyncio

import pytest

from tasklogs_server.concurrency.fair_turns import FairTurns, LineFull
from tests.support.fixtures.conditions import DEADLINE_SECONDS


async def all_wait(turns: FairTurns, callers: str, order: list[str]) -> list[asyncio.Task[None]]:
    """Let each of these callers wait once, in this order. `order` gets those whose turn came."""

    async def wait(caller: str) -> None:
        await turns.take(caller)
        order.append(caller)

    waiting = [asyncio.create_task(wait(caller)) for caller in callers]
    await asyncio.sleep(0)
    return waiting


async def give_back(turns: FairTurns) -> None:
    turns.give_back()
    await asyncio.sleep(0)


async def test_callers_take_turns_however_many_calls_each_has_in_line() -> None:
    turns, order = FairTurns(1), list[str]()
    assert turns.take_at_once()
    waiting = await all_wait(turns, "aaaabbc", order)
    assert turns.waiting == 7

    for _ in waiting:
        await give_back(turns)

    assert "".join(order) == "abcabaa"
    assert turns.waiting == 0
    await asyncio.gather(*waiting)


async def test_there_are_as_many_places_as_were_given() -> None:
    turns, order = FairTurns(3), list[str]()
    waiting = await all_wait(turns, "aaaaa", order)
    assert "".join(order) == "aaa"
    assert not turns.take_at_once()
    for _ in range(5):
        await give_back(turns)
    await asyncio.gather(*waiting)
    assert [turns.take_at_once() for _ in range(4)] == [True, True, True, False]


async def test_in_a_full_line_the_caller_with_the_most_calls_makes_room() -> None:
    turns, order = FairTurns(1, waiting_at_most=4), list[str]()
    assert turns.take_at_once()
    waiting = await all_wait(turns, "aaaabbb", order)
    await asyncio.sleep(0)  # those that made room have noticed
    # `b` has as many places in the line as `a` then, so its third call finds none.
    refused = [task.done() for task in waiting]
    assert refused == [False, False, True, True, False, False, True]
    for _ in range(4):
        await give_back(turns)
    assert "".join(order) == "abab"
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [isinstance(outcome, LineFull) for outcome in outcomes] == refused


async def test_a_line_without_room_refuses_everyone() -> None:
    turns = FairTurns(1, waiting_at_most=0)
    await turns.take("a")
    with pytest.raises(LineFull):
        await turns.take("b")
    assert turns.waiting == 0


async def test_a_turn_that_is_cancelled_goes_to_the_next_caller() -> None:
    turns, order = FairTurns(1), list[str]()
    assert turns.take_at_once()
    waiting = await all_wait(turns, "aabc", order)
    # The first has noticed, the others have not when the place becomes free.
    waiting[0].cancel()
    await asyncio.wait([waiting[0]])
    waiting[1].cancel()
    waiting[2].cancel()
    await give_back(turns)
    assert order == ["c"]
    assert turns.waiting == 0
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_call_that_is_cancelled_as_its_turn_comes_holds_no_place() -> None:
    turns, order = FairTurns(1), list[str]()
    assert turns.take_at_once()
    waiting = await all_wait(turns, "a", order)
    turns.give_back()
    waiting[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting[0]
    await asyncio.wait_for(turns.take("b"), DEADLINE_SECONDS)


async def test_a_call_that_is_cancelled_as_it_makes_room_frees_no_place() -> None:
    turns, order = FairTurns(1, waiting_at_most=2), list[str]()
    assert turns.take_at_once()
    waiting = await all_wait(turns, "aa", order)
    other = asyncio.create_task(turns.take("b"))
    await asyncio.sleep(0)
    waiting[1].cancel()
    await asyncio.wait([waiting[1]])
    assert not turns.take_at_once()
    assert turns.waiting == 2
    await give_back(turns)
    await give_back(turns)
    await asyncio.gather(waiting[0], other)
