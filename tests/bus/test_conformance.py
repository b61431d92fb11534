"""What every bus does, whatever carries it: the service relies on this, and on nothing else."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime
from uuid import UUID

import pytest

from tasklogs_server.bus import shared
from tasklogs_server.bus.interface import PeerEvent
from tasklogs_server.bus.notes import (
    BuildReported,
    Deleted,
    Moved,
    Note,
    SessionBegan,
    SessionDoubted,
    SyncAnswered,
    SyncAsked,
)
from tasklogs_server.bus.outbox import MAX_MOVED
from tasklogs_server.bus.transport import Outgoing
from tasklogs_server.domain.synced import Synced
from tests.bus.processes import Process, World, met
from tests.support.fixtures.conditions import until

A, B = uuid.uuid4(), uuid.uuid4()
SYNCED = Synced(datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC), 7, 1 << 40, None)


async def test_a_note_reaches_all_other_processes_once(world: World) -> None:
    async with world.process() as one, world.process() as other, world.process() as third:
        await met(one, other, third)
        local: list[object] = []
        one.bus.listen(local.append)
        notes: list[Note] = [Deleted(A), SessionBegan(A, 3), SessionDoubted(B), BuildReported(B)]
        for note in notes:
            one.bus.publish(note)
        assert local == notes
        await other.hears(*notes)
        await third.hears(*notes)
        assert {sender for sender, _ in other.heard} == {one.id}
        assert one.heard == []


async def test_a_direct_note_reaches_one_process(world: World) -> None:
    async with world.process() as one, world.process() as other, world.process() as third:
        await met(one, other, third)
        notes: list[SyncAsked | SyncAnswered] = [
            SyncAsked(1, A, 1 << 33, None),
            SyncAsked(2, A, 4, 0.25),
            SyncAnswered(3, SYNCED),
            SyncAnswered(4, failure="it said: \u00fc\u0000\U0001f600 " * 40),
            SyncAnswered(5),
        ]
        for note in notes:
            one.bus.send(other.id, note)
        await other.hears(*notes)
        one.bus.publish(Deleted(B))
        await third.hears(Deleted(B))


async def test_many_notes_arrive_in_order(world: World) -> None:
    async with world.two() as (one, other):
        notes = [SessionBegan(uuid.uuid4(), fence) for fence in range(3_000)]
        for note in notes:
            one.bus.publish(note)
        await other.hears(*notes)
        assert (one.id, PeerEvent.GAP) not in other.events


async def test_what_a_process_follows_before_others_have_answered_it_is_told(world: World) -> None:
    async with world.process() as one, world.process() as other:
        other.bus.follow(A)
        await follows(one, other, A)
        one.bus.publish(Moved(A, revision=1))
        await other.hears(Moved(A, revision=1))


async def test_only_a_process_that_follows_a_task_hears_of_its_changes(world: World) -> None:
    async with world.two() as (one, other):
        other.bus.follow(A)
        await follows(one, other, A)
        one.bus.publish(Moved(B, revision=1))
        one.bus.publish(Moved(A, revision=1))
        await other.hears(Moved(A, revision=1))
        other.bus.unfollow(A)
        await until(lambda: other.id not in one.bus._interests.of(A))
        one.bus.publish(Moved(A, revision=2))
        one.bus.publish(Deleted(A))
        await other.hears(Moved(A, revision=1), Deleted(A))


async def test_changes_of_one_task_become_one_note_of_the_last(world: World) -> None:
    async with world.two() as (one, other):
        other.bus.follow(A)
        await follows(one, other, A)
        for revision in range(1, 100):
            one.bus.publish(Moved(A, revision=revision))
        await until(lambda: Moved(A, revision=99) in other.notes)
        assert len(other.heard) < 20
        one.bus.publish(Moved(A, revision=100))
        one.bus.publish(Moved(A))  # of its facts
        await until(lambda: Moved(A) in other.notes)


async def test_where_very_many_tasks_change_all_are_looked_at(world: World) -> None:
    async with world.two() as (one, other):
        tasks = [uuid.uuid4() for _ in range(MAX_MOVED + 1)]
        for task in tasks:
            other.bus.follow(task)
        await follows(one, other, tasks[-1])
        for task in tasks:
            one.bus.publish(Moved(task, revision=1))
        await other.sees(PeerEvent.MOVED, one)


async def test_a_process_that_follows_a_task_hears_of_a_change_just_before(world: World) -> None:
    async with world.two() as (one, other):
        one.bus.publish(Moved(A, revision=5))
        other.bus.follow(A)
        await other.hears(Moved(A, revision=5))


async def test_a_process_that_comes_later_follows_what_it_follows(world: World) -> None:
    async with world.process() as one:
        for _ in range(1_000):
            one.bus.follow(uuid.uuid4())
        one.bus.follow(A)
        async with world.process() as other:
            await met(one, other)
            other.bus.publish(Moved(B, revision=1))
            other.bus.publish(Moved(A, revision=1))
            await one.hears(Moved(A, revision=1))


async def test_a_process_that_joins_says_what_it_follows_to_all_and_not_to_each(
    world: World,
) -> None:
    """With 100 processes that follow 1,000 tasks each, each way takes 350 MB."""
    async with world.process() as one, world.process(waits=False) as other:
        # No beat comes before the answer: then they would say more, and look at the store.
        one.faults.loses = lambda message: message.to is None
        for _ in range(300):
            other.bus.follow(uuid.uuid4())
        other.bus.follow(A)
        await met(one, other)
        await other.sees(PeerEvent.JOINED, one)
        other.bus.publish(Deleted(B))
        await one.hears(Deleted(B))
        told = [message for message in other.faults.sent if "follows_all" in message.payload]
        assert [message.to for message in told if message.to is not None] == []
        assert told
        await follows(one, other, A)


async def test_what_a_process_did_before_it_joined_is_not_missed(world: World) -> None:
    async with world.process() as one:
        one.bus.follow(A)
        async with world.process(waits=False) as other:
            other.bus.publish(Moved(A, revision=1))
            other.bus.publish(Deleted(B))
            await one.sees(PeerEvent.GAP, other)
            await until(lambda: Moved(A, revision=1) in one.notes)


@pytest.mark.usefixtures("quick")
async def test_what_a_process_did_while_it_was_not_heard_is_not_missed(world: World) -> None:
    async with world.two() as (one, other):
        other.faults.loses = lambda _: True
        await until(lambda: not one.bus.reaches(other.id))
        await world.cut(other)
        other.bus.publish(Deleted(A))  # after the gap of the silence
        await until(lambda: len(one.bus._due_gaps) == 0)
        one.events.clear()
        other.faults.loses = lambda _: False
        await one.sees(PeerEvent.GAP, other)


async def test_a_process_that_ends_is_not_reached(world: World) -> None:
    async with world.process() as one:
        async with world.process() as other:
            await met(one, other)
            assert (other.id, PeerEvent.JOINED) in one.events
            other.bus.publish(Deleted(A))
        await one.sees(PeerEvent.LEFT, other)
        assert one.notes == [Deleted(A)]
        assert not one.bus.reaches(other.id)
        one.bus.send(other.id, SyncAsked(1, A, 1, None))  # nothing happens


async def test_a_cut_connection_is_a_gap_and_then_notes_arrive_again(world: World) -> None:
    async with world.two() as (one, other):
        one.bus.follow(A)
        one.events.clear()
        other.events.clear()
        await world.cut(one)
        await until(lambda: one.events.count((None, PeerEvent.GAP)) >= 1)
        one.bus.publish(Deleted(A))  # perhaps to nobody
        await other.sees(PeerEvent.GAP, one)
        await met(one, other)
        other.heard.clear()
        one.bus.publish(Deleted(B))
        await until(lambda: Deleted(B) in other.notes)
        other.bus.publish(Moved(A, revision=1))
        await until(lambda: Moved(A, revision=1) in one.notes)


async def test_notes_that_cannot_be_sent_delay_nobody(world: World) -> None:
    async with world.two() as (one, other):
        one.faults.is_frozen = True
        for number in range(30_000):
            one.bus.publish(SessionBegan(A, number))
        assert await memory_of(one) < 4_000_000
        assert other.heard == []


async def memory_of(process: Process) -> int:
    """Return about how many bytes wait to be sent."""
    await asyncio.sleep(0)
    return sum(map(len, process.bus._outbox._to_all.notes))


@pytest.mark.usefixtures("quick")
async def test_a_silent_process_is_not_reached_until_it_is_heard_again(world: World) -> None:
    async with world.two() as (one, other):
        other.events.clear()
        one.faults.loses = lambda _: True
        await other.sees(PeerEvent.GAP, one)
        await until(lambda: not other.bus.reaches(one.id))
        one.faults.loses = lambda _: False
        await met(one, other)
        one.bus.publish(Deleted(A))
        await other.hears(Deleted(A))


@pytest.mark.usefixtures("quick")
async def test_quiet_processes_go_on_reaching_each_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "LONELY_BEAT_SECONDS", 3600)
    async with world.process() as one:
        await until(lambda: any("beat" in sent.payload for sent in one.faults.sent))
        await asyncio.sleep(shared.SILENCE_SECONDS / 4)  # it beats alone, and will for an hour
        async with world.process() as other:
            await met(one, other)
            one.events.clear()
            other.events.clear()
            for process in (one, other):
                sent = len(process.faults.sent)
                # Beats, for three times the silence.
                await until(lambda: len(process.faults.sent) >= sent + 15)  # noqa: B023
            assert one.events == other.events == []


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("is_direct", [False, True], ids=["to all", "direct"])
async def test_a_lost_payload_is_a_gap_also_where_no_other_follows(
    world: World, is_direct: bool
) -> None:
    async with world.two() as (one, other):
        other.events.clear()
        lost: list[Outgoing] = []

        def loses(message: Outgoing) -> bool:
            if lost or "doubted" not in message.payload:
                return False
            lost.append(message)
            return True

        one.faults.loses = loses
        if is_direct:
            one.bus.send(other.id, SessionDoubted(A))
        else:
            one.bus.publish(SessionDoubted(A))
        await other.sees(PeerEvent.GAP, one)
        assert lost
        assert other.heard == []
        await met(one, other)


@pytest.mark.usefixtures("quick")
async def test_after_a_gap_a_process_is_told_of_all_tasks_until_it_says_what_it_follows(
    world: World,
) -> None:
    async with world.two() as (one, other):
        other.faults.loses = lambda message: "follows" in message.payload
        other.bus.follow(A)
        # Not the event of a gap: there may have been one when they met.
        await follows(one, other, A)
        one.bus.publish(Moved(A, revision=1))
        await other.hears(Moved(A, revision=1))
        other.faults.loses = lambda _: False
        await met(one, other)
        one.bus.publish(Moved(B, revision=2))
        one.bus.publish(Moved(A, revision=2))
        await until(lambda: Moved(A, revision=2) in other.notes)


async def test_a_payload_that_comes_twice_counts_once(world: World) -> None:
    async with world.two() as (one, other):
        one.faults.repeats = True
        notes = [SessionBegan(uuid.uuid4(), fence) for fence in range(300)]
        for note in notes:
            one.bus.publish(note)
        await other.hears(*notes)
        one.bus.publish(Deleted(A))
        await other.hears(*notes, Deleted(A))
        assert (one.id, PeerEvent.GAP) not in other.events


@pytest.mark.parametrize(
    "payload",
    ["", "hello", "a b c d", "0 a 1 []", "%s a x []", '%s a 900 {"a": 1}', '%s a 900 [["sync"]]'],
)
async def test_a_payload_that_is_none_is_ignored(world: World, payload: str) -> None:
    async with world.two() as (one, other):
        stranger = uuid.uuid4()
        text = payload.replace("%s", stranger.hex)
        await one.faults.transport.send([Outgoing(None, text), Outgoing(other.id, text)])
        one.bus.publish(Deleted(A))
        await other.hears(Deleted(A))
        assert not other.bus.reaches(stranger)


async def test_notes_of_a_later_version_are_left_out(world: World) -> None:
    async with world.two() as (one, other):
        stranger = uuid.uuid4().hex
        notes = f'[["joined",5],["weather","rain"],["deleted","{A.hex}",{{"why":1}}],["moved"]]'
        await one.faults.transport.send([Outgoing(None, f"{stranger} a 1 {notes[:-11]}]")])
        await until(lambda: other.notes == [Deleted(A)])


async def follows(one: Process, other: Process, task: UUID) -> None:
    """Wait until `one` knows that `other` follows the task."""
    await until(lambda: other.id in one.bus._interests.of(task))
