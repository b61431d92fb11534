"""The store goes back in time: connections, commits and revisions of another generation."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from tasklogs.log.entry import Entry, EntryType, Time
from tasklogs_server.domain.errors import StoreUnavailable
from tasklogs_server.store import Store, monitor
from tasklogs_server.store import connections as connections_module
from tasklogs_server.store.connections import Connections
from tasklogs_server.store.generations import UNKNOWN, Generations, read_generation
from tasklogs_server.store.log_writes import Outcome
from tasklogs_server.store.records import GENERATION_GAP, LogHead
from tests.store.logs import Connection, Log, entry_row, new_task
from tests.support.fixtures.conditions import DEADLINE_SECONDS, until
from tests.support.fixtures.standby import Standby

FIRST, SECOND = "7/00000009", "7/0000000A"


class Told(Generations):
    """Counts the changes that it tells."""

    def __init__(self, *observed: str) -> None:
        super().__init__()
        self.changes = 0
        self.on_change(self._changed)
        for one in observed:
            self.observe(one)

    def _changed(self) -> None:
        self.changes += 1


def test_a_newer_timeline_or_another_system_is_a_change() -> None:
    told = Told(FIRST, FIRST)
    assert (told.current, told.changes) == (FIRST, 0)
    told.observe(SECOND)
    assert (told.current, told.changes) == (SECOND, 1)
    told.observe("8/00000001")
    assert (told.current, told.changes) == ("8/00000001", 2)


@pytest.mark.parametrize("refused", [FIRST, None], ids=["a former primary", "a standby"])
def test_a_former_primary_and_a_standby_are_refused_and_change_nothing(refused: str | None) -> None:
    told = Told(FIRST, SECOND)
    with pytest.raises(StoreUnavailable):
        told.observe(refused)
    assert (told.current, told.changes) == (SECOND, 1)


def test_a_postgres_that_does_not_tell_its_generation_has_one() -> None:
    told = Told(UNKNOWN, UNKNOWN)
    assert (told.current, told.changes) == (UNKNOWN, 0)
    told.observe(FIRST)
    assert (told.current, told.changes) == (FIRST, 1)


def test_a_listener_that_fails_does_not_keep_it_from_the_others() -> None:
    told = Generations()
    told.observe(FIRST)
    heard: list[str] = []
    told.on_change(lambda: heard.remove("not there"))
    told.on_change(lambda: heard.append(told.current))
    told.observe(SECOND)
    assert heard == [SECOND]


@pytest.mark.parametrize(
    ("revision", "lost"),
    [
        (0, False),
        (10, False),
        (11, True),
        (9 + GENERATION_GAP, True),
        (10 + GENERATION_GAP, False),
        (15 + GENERATION_GAP, False),
        (16 + GENERATION_GAP, True),
        (14 + 2 * GENERATION_GAP, True),
        (15 + 2 * GENERATION_GAP, False),
        (20 + 2 * GENERATION_GAP, False),
        (21 + 2 * GENERATION_GAP, True),
    ],
)
def test_revisions_in_a_gap_or_above_the_head_are_lost(revision: int, lost: bool) -> None:
    gaps = (10, 15 + GENERATION_GAP)
    head = LogHead(1, 1, 20 + 2 * GENERATION_GAP, b"", 0, None, None, lost_after=gaps)
    assert head.has_lost(revision) is lost


async def test_the_generation_is_the_system_and_its_timeline(sql: Connection) -> None:
    generation = await read_generation(sql)
    assert generation is not None
    assert re.fullmatch(r"\d{10,}/00000001", generation)


async def test_the_generation_is_unknown_where_a_user_may_not_ask(
    database: str, sql: Connection
) -> None:
    await sql.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
    await sql.execute("CREATE ROLE asks_for_nothing LOGIN")
    try:
        await sql.execute("SET ROLE asks_for_nothing")
        assert await read_generation(sql) == UNKNOWN
    finally:
        await sql.execute("RESET ROLE")
        await sql.execute("DROP ROLE asks_for_nothing")


@pytest.fixture
async def connections(database: str) -> AsyncIterator[Connections]:
    opened = Connections(database, size=3, generations=Generations())
    yield opened
    await opened.close()


async def test_a_change_ends_all_connections_and_a_former_primary_is_refused(
    connections: Connections,
) -> None:
    generations = connections._generations
    asleep = asyncio.Event()

    async def sleep() -> None:
        async with connections.use() as connection:
            asleep.set()
            await connection.execute("SELECT pg_sleep(60)")

    sleeping = asyncio.create_task(sleep())
    await asleep.wait()
    async with connections.use() as idle:
        pass
    system, _ = generations.current.split("/")
    generations.observe(f"{system}/00000002")
    with pytest.raises(StoreUnavailable):
        await sleeping
    assert idle.is_closed()
    with pytest.raises(StoreUnavailable):  # this Postgres is the former primary now
        async with connections.use():
            pass
    assert connections.in_use == 0


async def test_a_connection_that_brings_the_change_is_not_ended_by_it(
    connections: Connections,
) -> None:
    connections._generations.observe("1/00000001")
    async with connections.use() as connection:
        assert await connection.fetchval("SELECT 1") == 1
        assert connection.generation == connections._generations.current != "1/00000001"


async def test_who_knows_another_generation_gets_no_connection(connections: Connections) -> None:
    async with connections.use(generation=await generation_of(connections)):
        pass
    with pytest.raises(StoreUnavailable):
        async with connections.use(generation=FIRST):
            raise AssertionError("the block must not run")


async def generation_of(connections: Connections) -> str:
    async with connections.use() as connection:
        return connection.generation


async def test_a_standby_is_refused_and_is_used_once_it_is_promoted(standby: Standby) -> None:
    connections = Connections(standby.server.dsn(), size=1)
    try:
        with pytest.raises(StoreUnavailable):
            await generation_of(connections)
        await asyncio.to_thread(standby.promote)
        assert (await generation_of(connections)).endswith("/00000002")
    finally:
        await connections.close()


async def other_history(sql: Connection) -> None:
    """Let all logs look as if a writer of a former generation had written them last."""
    await sql.execute("UPDATE log_heads SET generation = 'former'")


async def test_a_new_task_and_its_first_writer_have_the_generation_of_the_store(
    store: Store, task: UUID, sql: Connection
) -> None:
    current = store.generations.current
    assert await sql.fetchval("SELECT generation FROM log_heads") == current
    log = await Log.open(store, task)
    assert (log.head.generation, log.head.revision, log.head.lost_after) == (current, 0, ())


async def test_the_first_writer_of_a_generation_jumps_the_revision_and_later_ones_do_not(
    log: Log, sql: Connection
) -> None:
    await log.write(log.commit([b"a", b"b"], open_epoch=True))
    assert log.head.revision == 3
    await other_history(sql)
    for _ in range(2):
        again = await Log.open(log.store, log.task_id)
        assert again.head.revision == 3 + GENERATION_GAP
        assert again.head.lost_after == (3,)
        assert again.fence > log.fence + GENERATION_GAP - 1
    assert await again.write(again.commit([b"c"])) is Outcome.COMMITTED
    await other_history(sql)
    third = await Log.open(log.store, log.task_id)
    assert third.head.lost_after == (3, 4 + GENERATION_GAP)
    assert third.head.revision == 4 + 2 * GENERATION_GAP
    assert await third.contents() == ["a", "b", "c"]


async def test_the_jump_also_passes_the_revisions_of_generations_that_the_store_never_had(
    log: Log, sql: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Failovers in a row. The last standby has nothing of the generations between."""
    await log.write(log.commit([b"a", b"b"], open_epoch=True))
    system, _ = log.store.generations.current.split("/")
    latest = f"{system}/0000000C"

    async def promoted(_: object) -> str:
        return latest

    monkeypatch.setattr(connections_module, "read_generation", promoted)
    log.store.generations.observe(latest)
    await sql.execute("UPDATE log_heads SET generation = $1", f"{system}/00000009")
    again = await Log.open(log.store, log.task_id)
    assert again.head.revision == 3 + 3 * GENERATION_GAP
    assert again.fence > log.fence + 3 * GENERATION_GAP - 1
    assert not any(again.head.has_lost(kept) for kept in (0, 3, again.head.revision))
    borders = [3 + number * GENERATION_GAP for number in (1, 2)]
    lost = [4, *(near + by for near in borders for by in (-1, 0, 1)), again.head.revision - 1]
    assert all(again.head.has_lost(revision) for revision in lost)
    assert await again.write(again.commit([b"c"])) is Outcome.COMMITTED


async def test_gaps_that_eviction_has_passed_are_forgotten(log: Log, sql: Connection) -> None:
    await log.write(log.commit([b"a"], open_epoch=True))
    await sql.execute(
        "UPDATE log_heads SET lost_after = ARRAY[1, 2 + $1::bigint], revision = 3 + 2 * $1::bigint,"
        " evicted_revision = 1 + $1::bigint",
        GENERATION_GAP,
    )
    await other_history(sql)
    head = (await Log.open(log.store, log.task_id)).head
    assert head.lost_after == (2 + GENERATION_GAP, 3 + 2 * GENERATION_GAP)


async def test_the_newest_1000_gaps_are_kept(log: Log, sql: Connection) -> None:
    gaps = [number * GENERATION_GAP for number in range(1200)]
    await sql.execute("UPDATE log_heads SET lost_after = $1, revision = $2", gaps, 1 << 52)
    await other_history(sql)
    head = (await Log.open(log.store, log.task_id)).head
    assert head.lost_after == (*gaps[-999:], 1 << 52)


async def test_a_commit_on_a_head_of_another_generation_writes_nothing(
    log: Log, sql: Connection
) -> None:
    await other_history(sql)
    commit = log.commit([b"a"], open_epoch=True)
    assert await log.write(commit) is Outcome.MOVED
    assert await log.store.writes.commit_together(log.task_id, [commit]) is Outcome.MOVED
    assert await log.contents() == []


async def test_a_writer_of_a_former_generation_writes_nothing_and_others_do(
    store: Store, log: Log, sql: Connection
) -> None:
    await sql.execute("UPDATE log_heads SET generation = 'former' WHERE task_id = $1", log.task_id)
    former = log.commit([b"a"], open_epoch=True)
    former = replace(former, head=replace(former.head, generation="former"))
    other = await Log.open(store, await new_task(store))
    current = other.commit([b"b"], open_epoch=True)
    outcomes = await store.writes.commit([former, current])
    assert outcomes == {log.task_id: Outcome.MOVED, other.task_id: Outcome.COMMITTED}
    assert await store.writes.commit([former]) == {log.task_id: Outcome.MOVED}
    assert await store.writes.commit_together(log.task_id, [former]) is Outcome.MOVED
    assert await log.contents() == []


async def test_folds_times_and_comparisons_of_a_former_generation_are_refused(log: Log) -> None:
    writes, sessions = log.store.writes, log.store.sessions
    await log.write(log.commit([b"a"], open_epoch=True))
    await log.write(log.commit(grow=b"b", keep=1))
    before = (await log.store.tasks.get(log.task_id)).head
    row = entry_row(1, 0, log.head.revision, b"ab")
    shown = [Entry(0, EntryType.OUTPUT, Time(1, 0), b"a")]
    with pytest.raises(StoreUnavailable):
        await writes.fold(
            log.task_id,
            generation="former",
            fence=log.fence,
            revision=log.head.revision,
            row=row,
        )
    at = datetime(2030, 1, 1, tzinfo=UTC)
    with pytest.raises(StoreUnavailable):
        await writes.confirm([(log.task_id, log.fence, at)], generation="former")
    with pytest.raises(StoreUnavailable):
        await sessions.is_prefix(log.task_id, 1, shown, generation="former")
    assert (await log.store.tasks.get(log.task_id)).head == before


async def test_a_process_that_the_store_has_forgotten_is_there_again_after_its_heartbeat(
    store: Store, sql: Connection
) -> None:
    known = await sql.fetch("SELECT process_id, up_since FROM processes")
    await sql.execute("DELETE FROM processes")

    watching = asyncio.create_task(store.watch(_ignored))
    try:

        async def is_there() -> bool:
            return await sql.fetch("SELECT process_id, up_since FROM processes") == known

        await until(is_there)
    finally:
        watching.cancel()
        await asyncio.wait([watching])


async def test_the_monitor_notices_a_change_behind_an_open_connection(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    system, _ = store.generations.current.split("/")
    told = asyncio.Event()

    async def promoted(_: object) -> str:
        return f"{system}/00000002"

    store.generations.on_change(told.set)
    watching = asyncio.create_task(store.watch(_ignored))
    try:
        await until(lambda: store.works)
        monkeypatch.setattr(monitor, "read_generation", promoted)
        await asyncio.wait_for(told.wait(), DEADLINE_SECONDS)
        assert store.generations.current == f"{system}/00000002"
    finally:
        watching.cancel()
        await asyncio.wait([watching])


async def _ignored(_: bool) -> None:
    pass
