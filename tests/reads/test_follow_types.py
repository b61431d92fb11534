"""Follows of some types only, compared with what a follow of all types sends."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasklogs.log.entry import Entry, EntryType, Time
from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs.v1 import types_pb2
from tasklogs_server.reads.tokens import Cursor
from tasklogs_server.store.records import TailWithdrawn
from tests.reads.followed import World, decoded, followed
from tests.reads.typed_history import FILTERS, OPERATIONS, Operation, TypedHistory
from tests.reads.written_log import WrittenLog
from tests.support.fixtures.conditions import DEADLINE_SECONDS
from tests.support.fixtures.postgres import MakeDatabase

INPUT, OUTPUT = EntryType.INPUT, EntryType.OUTPUT
ALL_TYPES = FILTERS[-1]
Key = tuple[int, int]


def entry(id_: int, type_: EntryType, content: str = "x") -> Entry:
    return Entry(id_, type_, Time(id_, 0), content.encode())


@dataclass
class Follower:
    """What one stream has sent, and the log that a reader builds from it."""

    entries: dict[Key, types_pb2.TaskLogEntry] = field(default_factory=dict)
    told: list[tuple[object, ...]] = field(default_factory=list)
    """What was sent about entries, in order. A delta counts as the whole entry that it makes."""
    events: list[str] = field(default_factory=list)
    cursors: list[str] = field(default_factory=list)
    states: list[dict[Key, types_pb2.TaskLogEntry]] = field(default_factory=list)
    """`entries` after each message."""
    revision: int = -1
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    _sent: dict[Key, int] = field(default_factory=dict)

    def apply(self, message: pb.FollowTaskLogsResponse) -> None:
        """Apply a message. Fail if its revisions or its cursor go back."""
        match event := str(message.WhichOneof("event")):
            case "entries":
                for one in message.entries.logs:
                    self._whole(message.entries.epoch, one)
            case "delta":
                self._delta(message.delta)
            case "entry_withdrawn":
                gone = message.entry_withdrawn
                self._ascend(gone.revision)
                self.entries.pop((gone.epoch, gone.id), None)
                self.told.append(("withdrawn", gone.epoch, gone.id, gone.revision))
            case "epoch_started":
                self._ascend(message.epoch_started.revision)
                self.told.append(("opened", message.epoch_started.epoch))
        at = Cursor.decode(message.cursor).revision
        assert at >= self.revision, "the cursor stands for all that was sent"
        self.revision = at
        self.events.append(event)
        self.cursors.append(message.cursor)
        self.states.append(dict(self.entries))
        self.changed.set()

    async def until(self, event: str, count: int = 1) -> None:
        """Wait for the `count`th message of this kind."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while self.events.count(event) < count:
                self.changed.clear()
                await self.changed.wait()

    async def reached(self, revision: int) -> None:
        """Wait for a cursor of at least this revision."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while self.revision < revision:
                self.changed.clear()
                await self.changed.wait()

    def _whole(self, epoch: int, one: types_pb2.TaskLogEntry) -> None:
        self._ascend(one.revision)
        self._sent = {(epoch, one.id): one.revision}
        self.entries[epoch, one.id] = one
        self.told.append(("entry", epoch, one.SerializeToString(deterministic=True)))

    def _delta(self, delta: pb.EntryDelta) -> None:
        key = delta.epoch, delta.id
        assert self._sent.get(key) == delta.base_revision, "the base is what was sent last"
        base = self.entries[key].content.encode()
        pieces = delta.content.pieces
        content = b"".join(
            base[one.__getattribute__("from") :][: one.bytes] + one.text.encode() for one in pieces
        )
        assert zlib.crc32(content) == delta.content.crc32
        grown = types_pb2.TaskLogEntry()
        grown.CopyFrom(self.entries[key])
        grown.content, grown.revision = content.decode(), delta.revision
        grown.time.CopyFrom(delta.time)
        self._whole(delta.epoch, grown)

    def _ascend(self, revision: int) -> None:
        assert revision > self.revision, "nothing comes twice"


def of_types(
    told: Sequence[tuple[object, ...]], types: Sequence[int], withdrawn: dict[int, int]
) -> list[tuple[object, ...]]:
    """Leave out what belongs to entries of other types. `withdrawn`: the type, by revision."""
    left = []
    for one in told:
        match one:
            case ("entry", _, bytes(encoded)):
                keep = types_pb2.TaskLogEntry.FromString(encoded).type in types
            case ("withdrawn", _, _, int(revision)):
                keep = withdrawn[revision] in types
            case _:
                keep = True
        if keep:
            left.append(one)
    return left


def withdrawn_types(log: WrittenLog) -> dict[int, int]:
    """The type of each withdrawn entry, by the revision of its withdrawal."""
    events = [event for commit in log.commits for event in commit.events]
    return {
        one.revision: one.type
        for one in events
        if isinstance(one, TailWithdrawn) and one.type is not None
    }


@asynccontextmanager
async def following(world: World, **query: Any) -> AsyncIterator[Follower]:
    """Follow as long as the block lasts, with deltas."""
    follower = Follower()

    async def read() -> None:
        async with aclosing(world.stream(deltas=True, **query)) as stream:
            async for message in decoded(stream):
                follower.apply(message)

    reading = asyncio.create_task(read())
    try:
        yield follower
    finally:
        reading.cancel()
        [error] = await asyncio.gather(reading, return_exceptions=True)
        if not isinstance(error, asyncio.CancelledError):
            raise error or AssertionError("the stream ended")


async def caught_up(world: World, **query: Any) -> Follower:
    """Follow until everything was sent."""
    async with following(world, **query) as follower:
        await follower.until("caught_up")
    return follower


@pytest.fixture(scope="module")
def shared_database(make_database: MakeDatabase) -> Any:
    """One database for all examples: each writes a task of its own."""
    with make_database() as dsn:
        yield dsn


EXAMPLES = settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@EXAMPLES
@given(operations=OPERATIONS)
async def test_a_follow_of_some_types_sends_the_follow_of_all_types_filtered(
    shared_database: str, operations: list[Operation]
) -> None:
    async with followed(shared_database, progress_after=timedelta(seconds=15)) as world:
        history = TypedHistory(world.log)
        for one in operations:
            await history.apply(one)
        withdrawn = withdrawn_types(world.log)
        head = (await world.store.tasks.get(world.log.task_id)).head
        for tail in (None, 0, 1, 3):
            whole = await caught_up(world, tail=tail)
            held = [key for key in whole.entries if key[0] == head.epoch]
            assert tail is None or len(held) <= tail
        everything = await caught_up(world)
        for types in FILTERS:
            matching = [k for k, one in everything.entries.items() if one.type in types]
            for tail in (None, 0, 1, 3):
                read = await caught_up(world, tail=tail, types=types)
                expected = matching if tail is None else matching[max(0, len(matching) - tail) :]
                assert read.entries == {key: everything.entries[key] for key in expected}
                assert read.revision == head.revision
        for revision in range(head.evicted.revision, head.revision + 1):
            cursor = Cursor(world.log.task_id, revision)
            everything = await caught_up(world, cursor=cursor)
            for types in FILTERS:
                read = await caught_up(world, cursor=cursor, types=types)
                assert read.told == of_types(everything.told, types, withdrawn), revision
                assert (read.events[0], read.events[-1]) == ("status", "caught_up")
                assert read.revision == everything.revision


@EXAMPLES
@given(operations=OPERATIONS, hands_on=st.booleans(), waits=st.lists(st.booleans(), max_size=20))
async def test_a_running_follow_of_some_types_ends_with_the_log_filtered(
    shared_database: str, operations: list[Operation], hands_on: bool, waits: list[bool]
) -> None:
    """Also if it is resumed after any of its messages."""
    operations = [one for one in operations if one[0] != "evict"]
    async with followed(shared_database, progress_after=timedelta(seconds=15)) as world:
        world.log.hands_on_commits = hands_on
        history = TypedHistory(world.log)
        await history.apply(("open", [INPUT], 0))
        async with AsyncExitStack() as stack:
            whole = await stack.enter_async_context(following(world))
            filtered = {
                types: await stack.enter_async_context(following(world, types=types))
                for types in FILTERS
            }
            for one in (whole, *filtered.values()):
                await one.until("caught_up")
            for index, operation in enumerate(operations):
                await history.apply(operation)
                if index < len(waits) and waits[index]:
                    await whole.reached(world.log.revision)
            await history.apply(("open", [INPUT], -1))  # all followers are told of an epoch
            for one in (whole, *filtered.values()):
                await one.reached(world.log.revision)
        assert "progress" not in whole.events
        for types, one in filtered.items():
            expected = {k: each for k, each in whole.entries.items() if each.type in types}
            assert one.entries == expected, types
            for cursor, state in zip(one.cursors, one.states, strict=True):
                resumed = Follower(entries=dict(state))
                async with aclosing(world.stream(types=types, cursor=cursor)) as stream:
                    async for message in decoded(stream):
                        resumed.apply(message)
                        if message.HasField("caught_up"):
                            break
                assert resumed.entries == expected, (types, cursor)


async def test_growth_of_another_type_is_not_sent_and_moves_the_cursor(world: World) -> None:
    await world.log.entries(entry(0, INPUT), entry(1, OUTPUT, ""), open_epoch=True)
    async with following(world, types=(INPUT,)) as inputs, following(world) as all_types:
        await inputs.until("caught_up")
        await all_types.until("caught_up")
        for index in range(5):
            await world.log.grow(1, "y", keep_bytes=index)
            await all_types.reached(world.log.revision)
        await world.log.entries(entry(2, INPUT))
        await inputs.reached(world.log.revision)
    assert inputs.events == ["status", "entries", "caught_up", "entries"]
    assert "delta" in all_types.events


async def test_growth_comes_as_a_delta_after_entries_of_other_types(world: World) -> None:
    await world.log.entries(entry(0, INPUT), entry(1, OUTPUT), open_epoch=True)
    async with following(world, types=(OUTPUT,)) as outputs:
        await outputs.until("caught_up")
        await world.log.entries(entry(2, INPUT), entry(3, OUTPUT, "a"))
        await outputs.reached(world.log.revision)
        for index in range(1, 4):
            await world.log.grow(3, "b", keep_bytes=index)
            await outputs.reached(world.log.revision)
    assert outputs.events[-3:] == ["delta"] * 3
    assert outputs.entries[1, 3].content == "abbb"


async def test_followers_of_the_same_types_share_the_steps_of_the_feed(world: World) -> None:
    world.log.hands_on_commits = True
    await world.log.entries(entry(0, INPUT), open_epoch=True)
    async with AsyncExitStack() as stack:
        readers = [
            await stack.enter_async_context(following(world, types=(OUTPUT,))) for _ in range(20)
        ]
        for one in readers:
            await one.until("caught_up")
        reads = world.changes.of_feeds, world.changes.of_followers
        world.encoded.clear()
        for index in range(1, 6):
            await world.log.entries(
                entry(3 * index, INPUT), entry(3 * index + 1, OUTPUT), entry(3 * index + 2, INPUT)
            )
            for one in readers:
                await one.reached(world.log.revision)
        assert len(world.encoded) == 5
        assert (world.changes.of_feeds, world.changes.of_followers) == reads
    assert [key[1] for key in readers[0].entries] == [4, 7, 10, 13, 16]


async def test_progress_covers_what_is_left_out_also_while_the_log_never_rests(
    database: str,
) -> None:
    async with followed(database, progress_after=timedelta(milliseconds=50)) as world:
        await world.log.entries(entry(0, OUTPUT, ""), open_epoch=True)
        async with following(world, types=(INPUT,)) as inputs:
            await inputs.until("caught_up")
            first = inputs.events.count("progress")
            index = 0
            async with asyncio.timeout(DEADLINE_SECONDS):
                while inputs.events.count("progress") < first + 3:
                    await world.log.grow(0, "y", keep_bytes=index)
                    index += 1
            # A progress stands for changes that were left out.
            assert Cursor.decode(inputs.cursors[-1]).revision > 2
            count = inputs.events.count("progress")
            await inputs.until("progress", count + 2)
            assert Cursor.decode(inputs.cursors[-1]).revision == world.log.revision
    assert set(inputs.events) == {"status", "caught_up", "progress"}


async def test_a_follower_of_some_types_that_is_behind_reads_only_these(world: World) -> None:
    await world.log.entries(entry(0, INPUT), open_epoch=True)
    for first in range(1, 4001, 1000):
        await world.log.entries(*(entry(id_, OUTPUT) for id_ in range(first, first + 1000)))
    await world.log.entries(entry(9000, INPUT))
    reads = world.changes.of_followers
    inputs = await caught_up(world, types=(INPUT,))
    assert [key[1] for key in inputs.entries] == [0, 9000]
    assert world.changes.of_followers == reads + 1
