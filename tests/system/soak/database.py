"""The Postgres of a run, as a tests.system.soak.fault.Postgres."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from tasklogs_server.postgres.cluster import cluster_directory
from tests.support.fakes.small_disk import SmallDisk
from tests.support.fixtures.postgres import PostgresServer
from tests.support.fixtures.standby import Standby, socket_of
from tests.system.soak.journal import Journal
from tests.system.soak.networks import Networks

_SMALL_BYTES = 768 * 1024 * 1024
_SMALL_SETTINGS = {"max_wal_size": "256MB"}


class Database:
    """Durable, on a unix socket. No method blocks the event loop."""

    name = "postgres"

    def __init__(self, data_dir: Path, journal: Journal, *, small_disk: bool = False) -> None:
        """`small_disk`: use a disk in memory, if this process may mount one."""
        self._server = PostgresServer(data_dir, _SMALL_SETTINGS if small_disk else {})
        self._directory = data_dir
        self._standbys = itertools.count(1)
        self._wants_small_disk = small_disk
        self._disk: SmallDisk | None = None
        self._journal = journal
        self._is_running = False
        self.network: Networks | None = None
        """The network between the servers and this Postgres, once there is one."""

    async def __aenter__(self) -> Database:
        await asyncio.to_thread(self._server.__enter__)
        await self.start()
        if self._wants_small_disk:
            await self.end()
            await asyncio.to_thread(self._move_to_small_disk)
            await self.start()
        return self

    def _move_to_small_disk(self) -> None:
        cluster = cluster_directory(self._server.data_dir)

        async def move() -> None:
            disk = SmallDisk(cluster, _SMALL_BYTES)
            made = cluster.rename(cluster.with_name("made"))
            cluster.mkdir()
            try:
                disk.mount()
            except PermissionError:
                made.rename(cluster)  # back in its place: the fault then simulates a full disk
                return
            cluster.chmod(0o700)
            shutil.copytree(made, cluster, dirs_exist_ok=True)
            shutil.rmtree(made)
            self._disk = disk

        # The mount belongs to the supervisor's thread, so Postgres has it too.
        self._server.run(move())

    async def __aexit__(self, *_: object) -> None:
        self.signal(signal.SIGCONT)
        await asyncio.to_thread(self._server.__exit__)

    @property
    def pid(self) -> int:
        return self._server.pid

    @property
    def socket(self) -> Path:
        return socket_of(self._server.dsn())

    def dsn(self, database: str = "tasklogs") -> str:
        return self._server.dsn(database)

    def dsn_over(self, port: int) -> str:
        """Return the DSN for the server: over a TCP port that leads to this Postgres."""
        user = urlsplit(self._server.dsn()).username
        return f"postgresql://{user}@127.0.0.1:{port}/tasklogs?sslmode=disable"

    async def start(self) -> None:
        if self._is_running:
            return
        await asyncio.to_thread(self._server.start)
        self._is_running = True
        if self.network is not None:
            # Where the path of the directory is long, each start has a socket of its own.
            self.network.target = self.socket
        self._journal.note(name=self.name, what="started", pid=self.pid)

    async def kill(self) -> None:
        if self._is_running:
            self._journal.note(name=self.name, what="SIGKILL", pid=self.pid)
            self._is_running = False
            await asyncio.to_thread(self._server.kill)
            self._journal.note(name=self.name, what="ended")

    async def end(self) -> int:
        if self._is_running:
            self._journal.note(name=self.name, what="SIGINT", pid=self.pid)
            self._is_running = False
            await asyncio.to_thread(self._server.stop)
            self._journal.note(name=self.name, what="ended")
        return 0

    def signal(self, number: signal.Signals) -> None:
        if not self._is_running:
            return
        self._journal.note(name=self.name, what=number.name, pid=self.pid)
        # The postmaster first: a stopped one starts no more children, a running one reaps them.
        os.kill(self.pid, number)
        for child in psutil.Process(self.pid).children(recursive=True):
            try:
                child.send_signal(number)
            except psutil.NoSuchProcess:
                continue

    async def fill_disk(self) -> int | None:
        disk = self._disk
        if disk is None:
            return None

        async def fill() -> int:
            return disk.fill()

        return await asyncio.to_thread(self._server.run, fill())

    async def empty_disk(self) -> None:
        disk = self._disk
        assert disk is not None

        async def empty() -> None:
            disk.empty()

        await asyncio.to_thread(self._server.run, empty())

    @asynccontextmanager
    async def lagging_standby(self) -> AsyncIterator[LaggingStandby | None]:
        """Run a standby that lacks what is committed from now on. See fault.Postgres."""
        if self._disk is not None:
            yield None
            return
        data_dir = self._directory.with_name(f"standby-{next(self._standbys)}")
        standby = await asyncio.to_thread(Standby, self._server, data_dir)
        await asyncio.to_thread(standby.__enter__)
        since = time.monotonic()
        lagging = LaggingStandby(self, standby)
        try:
            await asyncio.to_thread(standby.catch_up)
            await asyncio.to_thread(standby.fall_behind)
            yield lagging
        finally:
            if lagging.has_begun:
                await lagging.promote()
                await lagging.take_over()
                self._journal.note(
                    name=self.name,
                    what="failed over",
                    since=since,
                    killed=lagging.killed,
                    promoted=lagging.promoted,
                )
            else:
                await asyncio.to_thread(_discard, standby.server)

    async def replace(self, server: PostgresServer) -> None:
        """Kill the primary for good. From now on this is `server`, which runs."""
        await self.kill()
        former, self._server = self._server, server
        self._is_running = True
        self._journal.note(name=self.name, what="started", pid=self.pid)
        await asyncio.to_thread(_discard, former)

    async def execute(self, statement: str) -> None:
        await asyncio.to_thread(self._server.execute, statement)


class LaggingStandby:
    """Implements tests.system.soak.fault.LaggingStandby."""

    def __init__(self, database: Database, standby: Standby) -> None:
        self._database = database
        self._standby = standby
        self.killed = 0.0
        """A time after the end of the primary, and before anything else could be reached."""
        self.promoted = 0.0

    @property
    def has_begun(self) -> bool:
        """Whether it can no longer be discarded."""
        return bool(self.killed or self.promoted)

    @property
    def socket(self) -> Path:
        return self._standby.socket

    async def take_over(self) -> None:
        if not self.killed:
            await self._database.replace(self._standby.server)
            self.killed = time.monotonic()

    async def promote(self) -> None:
        if not self.promoted:
            self.promoted = time.monotonic()
            await asyncio.to_thread(self._standby.promote)


def _discard(server: PostgresServer) -> None:
    """Stop a Postgres for good and delete its files."""
    server.__exit__()
    shutil.rmtree(server.data_dir)
