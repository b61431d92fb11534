"""Postgres fails over twice. The second standby has nothing of what the first one wrote (I9)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from tasklogs_server.store import Store
from tasklogs_server.store.log_writes import Outcome
from tests.store.logs import Log, new_task
from tests.support.fixtures.postgres import PostgresServer
from tests.support.fixtures.standby import Standby


@asynccontextmanager
async def store_on(server: PostgresServer) -> AsyncIterator[Store]:
    opened = await Store.open(server.dsn(), read_connections=2, lease=timedelta(seconds=30))
    try:
        yield opened
    finally:
        await opened.close()


async def test_a_second_failover_uses_no_number_of_the_first_one_again(
    postgres_server: PostgresServer, standby: Standby, tmp_path: Path
) -> None:
    async with store_on(postgres_server) as primary:
        task_id = await new_task(primary)
        log = await Log.open(primary, task_id)
        assert await log.write(log.commit([b"kept"], open_epoch=True)) is Outcome.COMMITTED
    await asyncio.to_thread(standby.catch_up)
    await asyncio.to_thread(standby.promote)
    second = await asyncio.to_thread(Standby, standby.server, tmp_path / "second")
    with second.server:
        await asyncio.to_thread(second.start)
        await asyncio.to_thread(second.fall_behind)
        async with store_on(standby.server) as store:
            lost = await Log.open(store, task_id)
            assert await lost.write(lost.commit([b"lost"])) is Outcome.COMMITTED
        await asyncio.to_thread(second.promote)
        async with store_on(second.server) as store:
            again = await Log.open(store, task_id)
            assert again.fence != lost.fence
            assert again.head.revision > lost.head.revision
            assert again.head.has_lost(lost.head.revision)
            assert not again.head.has_lost(log.head.revision)
            assert await again.write(again.commit([b"other"])) is Outcome.COMMITTED
            head = (await store.tasks.get(task_id)).head
            assert head.has_lost(lost.head.revision)
            assert await again.contents() == ["kept", "other"]
