"""The growth of the tail that a feed holds, and the reads that this saves."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasklogs import delta_codec
from tasklogs.log.delta import Delta, Piece, apply
from tasklogs.log.entry import EntryType, Time
from tasklogs_server.reads.follow_events import TailSent
from tasklogs_server.reads.growth import Growth
from tasklogs_server.store.records import TailHead
from tests.reads.followed import World
from tests.reads.written_log import entry
from tests.support.fixtures.content_deltas import (
    CUTS,
    PREFIXES,
    TEXT,
    Cuts,
    cut,
    result_of,
)

HEAD = TailHead(0, EntryType.OUTPUT, Time(0, 0), revision=9, dropped_bytes=0, part_bytes=3)


@given(base=TEXT, changes=st.lists(CUTS | PREFIXES, min_size=1, max_size=6), data=st.data())
def test_a_follower_behind_gets_one_delta_with_the_effect_of_all(
    base: str, changes: list[Cuts], data: st.DataObject
) -> None:
    growth, states = Growth(), [base.encode()]
    for revision, cuts in enumerate(changes):
        delta = cut(states[-1], cuts)
        states.append(result_of(states[-1], delta))
        growth.note(revision, [TailSent(1, HEAD, states[-1], revision, delta)])
    behind = data.draw(st.integers(0, len(changes) - 1))
    joined = growth.since(behind, states[-1])
    assert joined is not None
    assert apply(states[behind], joined) == states[-1]


def test_pieces_count_against_what_is_held() -> None:
    """A delta without text has a size, too."""
    growth = Growth()
    pieces = Delta((Piece(0, 1),) * 1000)
    for revision in range(6):
        growth.note(revision, [TailSent(1, HEAD, b"x" * 1000, revision, pieces)])
    assert growth.since(0, b"x" * 1000) is None
    assert growth.since(3, b"x" * 1000) is not None


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


async def test_a_follower_that_keeps_up_gets_pieces_as_they_came(world: World) -> None:
    content = "a" * 100 + "1" + "b" * 100
    await world.log.entries(entry(0, content), open_epoch=True)
    async with world.following(deltas=True) as one, world.following() as whole:
        for each in (one, whole):
            await each.heard("caught_up")
        pieces = Delta((Piece(0, 100, b"2"), Piece(101, 100)))
        # From the first of these changes on, the feed holds the tail.
        for change in (Delta.keeping(201, b""), pieces):
            await world.log.change(0, change)
            for each in (one, whole):
                await each.reached(world.log.revision)
        [delta] = [each.delta for each in one.messages if each.HasField("delta")]
        assert delta_codec.decode(delta.content) == pieces
        assert delta.content.crc32 == zlib.crc32(b"a" * 100 + b"2" + b"b" * 100)
        assert whole.view.entries == one.view.entries


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
