"""Postgres on a disk that is really full: what was acknowledged stays, and writes work again later.

Where this process may not mount a disk, test_store_in_trouble.py in this directory tests the error
that Postgres gives.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import grpc
import pytest

from tasklogs import LogSource, TaskLogsClient
from tasklogs.errors import TaskLogsRpcError
from tasklogs_server.postgres.cluster import cluster_directory
from tests.store.logs import Connection
from tests.support.fakes.small_disk import SmallDisk
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry
from tests.support.fixtures.conditions import until
from tests.support.fixtures.postgres import PostgresServer
from tests.support.fixtures.reports import TASK, report_build
from tests.support.fixtures.server import MakeServer, Server

_DISK_BYTES = 96 * 1024 * 1024
_LARGE_BYTES = 200 * 1024


@dataclass
class Disk:
    """A Postgres on a small disk. The mount belongs to the supervisor's thread."""

    disk: SmallDisk
    postgres: PostgresServer

    def fill(self) -> int:
        async def fill() -> int:
            return self.disk.fill()

        return self.postgres.run(fill())

    def answers(self) -> bool:
        """Whether Postgres answers."""
        try:
            self.postgres.execute("SELECT 1")
        except (OSError, asyncpg.PostgresError):
            return False
        return True

    def empty(self) -> None:
        async def empty() -> None:
            self.disk.empty()

        self.postgres.run(empty())


@pytest.fixture
def small_disk(migrated_data_dir: Path, tmp_path: Path) -> Iterator[Disk]:
    home = tmp_path / "pg"
    # The socket stays outside the small disk, so that other threads see it.
    disk = SmallDisk(cluster_directory(home), _DISK_BYTES)
    # Postgres keeps no WAL segments in reserve: a full disk is full.
    settings = {"wal_recycle": "off", "wal_init_zero": "on", "shared_buffers": "16MB"}
    with PostgresServer(home, settings) as postgres:

        async def prepare() -> None:
            disk.path.mkdir(parents=True)
            disk.mount()
            disk.path.chmod(0o700)
            shutil.copytree(migrated_data_dir, home, dirs_exist_ok=True)

        try:
            postgres.run(prepare())
        except PermissionError as error:
            pytest.skip(f"no small disk can be mounted here: {error}")
        postgres.start()
        yield Disk(disk, postgres)


@dataclass
class Talker:
    """An agent that appends large entries, and records which were acknowledged."""

    server: Server
    token: str
    acked: list[int] = field(default_factory=list)
    said: int = 0

    async def talk(self, count: int) -> None:
        """Append this many on one stream. AssertionError or TaskLogsRpcError if it ends early."""
        async with ScriptedAgent.connect(self.server, self.token) as agent:
            for _ in range(count):
                self.said += 1
                text = random.Random(self.said).randbytes(_LARGE_BYTES // 2).hex()
                await agent.append(
                    [log_entry(self.said, f"{self.said} {text}")],
                    open_epoch=agent.welcome.epoch == 0 and not agent.sent,
                )
                await agent.acked()
                self.acked.append(self.said)

    async def is_heard(self) -> bool:
        """Append one entry. Whether it was stored."""
        try:
            await self.talk(1)
        except TaskLogsRpcError as error:
            assert_is_unavailable(error)
            return False
        except AssertionError:  # the stream ended before the acknowledgement
            return False
        return True


async def fill_wal(connection: Connection) -> None:
    """Write more WAL than fits on the disk."""
    with pytest.raises((OSError, asyncpg.PostgresError, asyncpg.InterfaceError)):
        await connection.execute(
            "SELECT pg_logical_emit_message(true, 'full', repeat('x', 64 * 1024 * 1024))"
        )


def assert_is_unavailable(error: TaskLogsRpcError) -> None:
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
    assert error.retry_after


@pytest.mark.parametrize("wal_too", [False, True], ids=["tables", "WAL too"])
async def test_a_full_disk_loses_no_acknowledged_entry(
    small_disk: Disk, make_server: MakeServer, wal_too: bool
) -> None:
    """If tables cannot grow, Postgres reports it. If the WAL cannot grow, Postgres stops."""
    async with (
        make_server(small_disk.postgres.dsn()) as server,
        TaskLogsClient(server.address) as client,
    ):
        talker = Talker(server, (await server.create_task()).agent_token)
        await report_build(server)
        await talker.talk(3)
        # Connect before the disk is full: a new connection may have to write a file.
        connection = await asyncpg.connect(small_disk.postgres.dsn())
        taken_bytes = await asyncio.to_thread(small_disk.fill)
        print(f"a disk of {_DISK_BYTES} bytes is full: {taken_bytes} were free")  # noqa: T201
        refusals = 0
        while refusals < 10:
            refusals += not await talker.is_heard()
        if wal_too:
            await fill_wal(connection)
            assert "PANIC" in (small_disk.postgres.data_dir / "postgres.log").read_text()
            assert not await talker.is_heard()

        connection.terminate()
        await asyncio.to_thread(small_disk.empty)
        if not await asyncio.to_thread(small_disk.answers):
            await asyncio.to_thread(small_disk.postgres.stop)
            await asyncio.to_thread(small_disk.postgres.start)
        await until(talker.is_heard)
        log = await client.get(TASK, source=LogSource.SNAPSHOT)
        stored = [int(one.content.split()[0]) for one in await log.all()]
        assert stored == sorted(set(stored))
        assert set(talker.acked) <= set(stored)
