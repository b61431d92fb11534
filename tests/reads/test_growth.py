"""The growth of the tail that a feed holds, and the reads that this saves."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasklogs.log.delta import diff, joined, patch
from tests.reads.followed import World
from tests.reads.written_log import entry

CONTENTS = st.lists(st.text("aä𝄞", max_size=8), min_size=2, max_size=6)


@given(contents=CONTENTS)
def test_joined_deltas_have_the_effect_of_the_single_ones(contents: list[str]) -> None:
    states = [content.encode() for content in contents]
    steps = [diff(before, after) for before, after in pairwise(states)]

    patched = bytearray(states[0])
    patch(patched, joined(steps))

    assert patched == states[-1]


@pytest.mark.parametrize("deltas", [True, False])
async def test_a_follower_a_few_changes_behind_gets_their_joined_growth(
    world: World, deltas: bool
) -> None:
    await world.log.entries(entry(0, "."), open_epoch=True)
    async with world.following(deltas=deltas) as slow, world.following() as other:
        for one in (slow, other):
            await one.heard("caught_up")
        await world.log.grow(0, "x" * 1000, keep_bytes=1)  # from here on the feed holds the tail
        for one in (slow, other):
            await one.reached(world.log.revision)
        # One message is on its way when the reader stops. The reader lags by the later changes.
        slow.reads_on.clear()
        reads, received = world.changes.of_followers, len(slow.messages)
        for index in range(10):
            await world.log.grow(0, f"{index}", keep_bytes=1001 + index)
            await other.reached(world.log.revision)
        slow.reads_on.set()
        await slow.reached(world.log.revision)

        assert slow.events[received:] == ["delta" if deltas else "entries"] * (
            len(slow.messages) - received
        )
        assert len(slow.messages) - received <= 3
        assert world.changes.of_followers == reads
        assert slow.view.entries == other.view.entries


async def test_a_follower_more_than_one_entry_behind_reads_the_store(world: World) -> None:
    await world.log.entries(entry(0, "."), open_epoch=True)
    async with world.following(deltas=True) as slow, world.following() as other:
        for one in (slow, other):
            await one.heard("caught_up")
        slow.reads_on.clear()
        await world.log.grow(0, "x", keep_bytes=1)
        await world.log.entries(entry(1, "next"))
        await world.log.grow(1, "!", keep_bytes=4)
        await other.reached(world.log.revision)
        slow.reads_on.set()
        await slow.reached(world.log.revision)
        assert slow.view.entries == other.view.entries
