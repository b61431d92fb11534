"""A failover to a real standby that lacks a commit: its pages are read anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import pytest

from tasklogs_server.domain.errors import StoreUnavailable
from tasklogs_server.store import Store, generations
from tasklogs_server.store.migrate import migrate
from tests.reads.page_reads import PageReads, page_reads
from tests.reads.written_log import WrittenLog, entry
from tests.support.fakes.faulty_proxy import FaultyProxy
from tests.support.fixtures.conditions import until
from tests.support.fixtures.postgres import PostgresServer
from tests.support.fixtures.standby import Standby, socket_of


@dataclass
class World:
    """A process that reads and writes through a network which may lead to a standby."""

    standby: Standby
    network: FaultyProxy
    store: Store
    reads: PageReads

    async def fail_over(self) -> None:
        await asyncio.to_thread(self.standby.promote)
        self.network.target = self.standby.socket
        self.network.cut()


@asynccontextmanager
async def world_of(primary: PostgresServer, standby: Standby) -> AsyncIterator[World]:
    await migrate(primary.dsn())
    await asyncio.to_thread(standby.catch_up)
    async with FaultyProxy(socket_of(primary.dsn())) as network:
        dsn = f"postgresql://postgres@127.0.0.1:{network.port}/tasklogs?sslmode=disable"
        store = await Store.open(dsn, read_connections=2, lease=timedelta(seconds=30))
        try:
            async with page_reads(store) as reads:
                yield World(standby, network, store, reads)
        finally:
            await store.close()


async def written_and_lost(world: World) -> WrittenLog:
    """A log in memory whose last entry the standby lacks."""
    log = await WrittenLog.open(world.store)
    await log.entries(entry(0, "a"), open_epoch=True)
    await asyncio.to_thread(world.standby.catch_up)
    await asyncio.to_thread(world.standby.fall_behind)
    await log.entries(entry(1, "lost"))
    assert await world.reads.settled(log) == ["a", "lost"]
    return log


async def answers(reads: PageReads, log: WrittenLog, contents: list[str]) -> bool:
    """Whether the log reads so. While the connections change, there may be no answer."""
    try:
        return await reads.contents(log) == contents
    except StoreUnavailable:
        return False


@pytest.mark.parametrize("tells", [True, False], ids=["told", "not told"])
async def test_what_a_standby_lacks_is_not_answered_after_its_promotion(
    postgres_server: PostgresServer,
    standby: Standby,
    monkeypatch: pytest.MonkeyPatch,
    tells: bool,
) -> None:
    """If Postgres does not tell its generation, the lost revision is used again.

    Then the transaction that writes the head may have the number of the lost one, too.
    """
    if not tells:
        monkeypatch.setattr(generations, "GENERATION", "SELECT ''")
    async with world_of(postgres_server, standby) as world:
        reads, log = world.reads, await written_and_lost(world)
        lost_revision = log.revision
        await world.fail_over()
        await until(lambda: answers(reads, log, ["a"]))
        await log.reopen()
        await log.entries(entry(1, "another"))
        assert (log.revision == lost_revision) is not tells
        assert await reads.contents(log) == ["a", "another"]


async def test_a_page_of_a_lost_history_that_was_not_asked_for_meanwhile_is_read_anew(
    postgres_server: PostgresServer, standby: Standby, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is told, no read notices the failover, and another process writes the log."""
    monkeypatch.setattr(generations, "GENERATION", "SELECT ''")
    async with world_of(postgres_server, standby) as world:
        reads, log = world.reads, await written_and_lost(world)
        lost = log.revision
        await world.fail_over()
        log.store = await Store.open(
            standby.server.dsn(), read_connections=1, lease=timedelta(seconds=30)
        )
        try:
            await log.reopen()
            await log.entries(entry(1, "another"))
        finally:
            await log.store.close()
        assert log.revision == lost
        assert reads.cache.held_bytes
        await until(lambda: answers(reads, log, ["a", "another"]))
        assert await reads.contents(log) == ["a", "another"]
