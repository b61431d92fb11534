"""Callers take turns, and none of them takes all places."""

from __future__ import annotations

import asyncio

import pytest

from tasklogs_server.concurrency.fair_turns import FairTurns
from tests.support.fixtures.conditions import DEADLINE_SECONDS


async def all_wait(turns: FairTurns, callers: str, order: list[str]) -> list[asyncio.Task[None]]:
    """Let each of these callers wait once, in this order. `order` gets those whose turn came."""

    async def wait(caller: str) -> None:
        await turns.take(caller)
        order.append(caller)

    waiting = [asyncio.create_task(wait(caller)) for caller in callers]
    await asyncio.sleep(0)
    return waiting


async def give_back(turns: FairTurns, caller: str) -> None:
    turns.give_back(caller)
    await asyncio.sleep(0)


async def test_callers_take_turns_however_many_calls_each_has_in_line() -> None:
    turns, order = FairTurns(1, of_one=1), list[str]()
    assert turns.take_at_once("x")
    waiting = await all_wait(turns, "aaaabbc", order)
    assert (turns.waiting, turns.waiting_of("a")) == (7, 4)

    await give_back(turns, "x")
    while len(order) < len(waiting):
        await give_back(turns, order[-1])

    assert "".join(order) == "abcabaa"
    assert turns.waiting == 0
    await asyncio.gather(*waiting)


async def test_a_caller_leaves_places_to_others() -> None:
    turns, order = FairTurns(4, of_one=2), list[str]()
    waiting = await all_wait(turns, "aaaab", order)
    assert "".join(order) == "aab"
    assert not turns.take_at_once("a")
    assert turns.take_at_once("c")

    await give_back(turns, "b")  # a place is free that `a` may not have
    assert "".join(order) == "aab"
    await give_back(turns, "a")
    await give_back(turns, "a")
    assert "".join(order) == "aabaa"
    await asyncio.gather(*waiting)


async def test_what_the_server_does_by_itself_may_take_all_places() -> None:
    turns = FairTurns(2, of_one=1)
    assert turns.take_at_once(None)
    assert turns.take_at_once(None)
    assert not turns.take_at_once(None)


async def test_a_turn_that_is_cancelled_goes_to_the_next_caller() -> None:
    turns, order = FairTurns(1, of_one=1), list[str]()
    assert turns.take_at_once("x")
    waiting = await all_wait(turns, "aabc", order)
    # The first has noticed, the others have not when the place becomes free.
    waiting[0].cancel()
    await asyncio.wait([waiting[0]])
    waiting[1].cancel()
    waiting[2].cancel()
    await give_back(turns, "x")
    assert order == ["c"]
    assert turns.waiting == 0
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_call_that_is_cancelled_as_its_turn_comes_holds_no_place() -> None:
    turns, order = FairTurns(1, of_one=1), list[str]()
    assert turns.take_at_once("x")
    waiting = await all_wait(turns, "a", order)
    turns.give_back("x")
    waiting[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting[0]
    await asyncio.wait_for(turns.take("b"), DEADLINE_SECONDS)
