"""Runs one embedded Postgres: lock, initialise, launch, watch, stop."""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import quote

import asyncpg

from tasklogs_server.postgres.binaries import Binaries, find_binaries
from tasklogs_server.postgres.candidates import candidates
from tasklogs_server.postgres.cluster import (
    ORPHAN_TIMEOUT_S,
    USER,
    cluster_directory,
    has_cluster,
    initialise,
)
from tasklogs_server.postgres.errors import EmbeddedPostgresError
from tasklogs_server.postgres.identity import STATE_ROOT, Identity, make_passable
from tasklogs_server.postgres.leftovers import (
    read_pid_file,
    remove_stale_pid_file,
    wait_for_orphans,
)
from tasklogs_server.postgres.lock import DataDirectoryLock
from tasklogs_server.postgres.log_file import LogFile
from tasklogs_server.postgres.processes import launch, serving_processes
from tasklogs_server.postgres.settings import command_line
from tasklogs_server.postgres.socket_directory import PORT, SocketDirectory

T = TypeVar("T")

DATABASE = "tasklogs"
READY_TIMEOUT_S = 300.0  # recovery after a crash replays up to max_wal_size
PROGRESS_EVERY_S = 5.0
ROTATE_EVERY_S = 10.0
# The signals of a stop and the time for each: fast shutdown with a checkpoint, immediate shutdown,
# kill.
STOP_STEPS = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))


class EmbeddedPostgres:
    """A Postgres that ends with this process, on a unix socket for this user alone.

    `data_dir` is created if missing; None is for root alone and means a directory under /var/lib.
    `settings` are parameters of Postgres, which override the defaults here. `on_progress` gets a
    line for each slow step of the start. `identity` forces the user that Postgres runs as.
    """

    def __init__(
        self,
        data_dir: Path | None,
        *,
        settings: Mapping[str, str] = {},
        on_progress: Callable[[str], None] | None = None,
        identity: Identity | None = None,
    ) -> None:
        if data_dir is None and os.geteuid() != 0:
            raise EmbeddedPostgresError("the embedded Postgres needs a data directory")
        self._below_state_root = data_dir is None
        self._data_dir = (data_dir or STATE_ROOT / "data").absolute()
        self._settings = settings
        self._tell = on_progress or (lambda line: None)
        self._forced_identity = identity
        # What start() acquired, in order. stop() releases it in reverse order.
        self._resources = contextlib.AsyncExitStack()
        self._sockets: SocketDirectory | None = None
        self._log: LogFile | None = None
        self._process: Process | None = None
        self._stopping = False

    async def start(self) -> None:
        """Start Postgres. Return when it accepts connections and the default database exists.

        Raises EmbeddedPostgresError. Then nothing is left running, and the directory is free.
        """
        if sys.platform != "linux":
            raise EmbeddedPostgresError(
                "the embedded Postgres runs on Linux only; "
                "use your own Postgres with --database-url"
            )
        self._stopping = False
        try:
            await self._start(find_binaries())
        except OSError as error:
            await self.stop()
            raise EmbeddedPostgresError(
                f"cannot run Postgres in {self._data_dir}: {error}"
            ) from error
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop Postgres, and return when it has ended: fast, or harder if that takes too long."""
        self._stopping = True
        await self._resources.aclose()

    def abandon(self) -> None:
        """Tell Postgres to end without a checkpoint. Does not wait.

        The next start replays what was committed. Does nothing if Postgres does not run.
        """
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGQUIT)

    async def wait(self) -> str:
        """Wait until Postgres has ended, and return how: by itself, unless stop() was called."""
        process = _started(self._process)
        status = await process.wait()
        if self._stopping:
            return "postgres was stopped"
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        return f"postgres ended by itself with {how}; its log is {_started(self._log).path}"

    @property
    def pid(self) -> int:
        """The pid of the postmaster, the direct child of this process."""
        return _started(self._process).pid

    def dsn(self, database: str = DATABASE) -> str:
        """Return a URL for asyncpg, libpq (psql) and SQLAlchemy, over the unix socket."""
        directory = quote(str(_started(self._sockets).path))
        return f"postgresql://{USER}@/{quote(database, safe='')}?host={directory}&port={PORT}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def _start(self, wheel: Binaries) -> None:
        if self._below_state_root:
            make_passable(STATE_ROOT)
        self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._resources.callback(DataDirectoryLock(self._data_dir).release)
        identity, binaries = await self._choose_identity(wheel)
        home = identity.home(self._data_dir)
        cluster = cluster_directory(home)

        log = self._log = LogFile(home / "postgres.log")
        self._resources.callback(log.close)
        if not has_cluster(home):
            self._tell(f"initialising a database in {home} (a second or two)")
            sync = self._settings.get("fsync") != "off"
            await initialise(identity, binaries, home, log, sync=sync)
        if serving_processes(cluster):
            self._tell("waiting for the Postgres of an earlier start to end")
            await wait_for_orphans(cluster, ORPHAN_TIMEOUT_S)
        remove_stale_pid_file(cluster)
        identity.take_over(cluster)

        sockets = self._sockets = SocketDirectory(home, identity.owner)
        self._resources.callback(sockets.remove)
        command = [str(binaries.postgres), "-D", str(cluster)]
        command += command_line(self._settings, sockets.path)
        # SIGINT: if this process is killed, Postgres still shuts down cleanly, in about a second.
        self._process = await launch(identity, cluster, command, log.fileno(), signal.SIGINT)
        self._resources.push_async_callback(_end, self._process)

        rotation = asyncio.create_task(_rotate(log), name="postgres log rotation")
        self._resources.push_async_callback(_cancel, rotation)
        await self._until_ready(self._process, cluster, log)

    async def _choose_identity(self, wheel: Binaries) -> tuple[Identity, Binaries]:
        """Return the first identity that can run the postgres program next to the data."""
        forced = self._forced_identity
        reasons = []
        for identity in [forced] if forced else candidates(self._data_dir):
            try:
                binaries = identity.prepare(self._data_dir, wheel)
                home = identity.home(self._data_dir)
                if not has_cluster(home):
                    await _probe(identity, binaries, home)
            except (OSError, EmbeddedPostgresError) as error:
                reasons.append(f"{identity}: {error}")
            else:
                return identity, binaries
        raise EmbeddedPostgresError(f"Postgres cannot run here: {'; '.join(reasons)}")

    async def _until_ready(self, process: Process, cluster: Path, log: LogFile) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + READY_TIMEOUT_S
        next_progress = loop.time() + PROGRESS_EVERY_S
        while True:
            if process.returncode is not None:
                reason = log.last_complaint() or await self.wait()
                raise EmbeddedPostgresError(f"Postgres did not start in {cluster.parent}: {reason}")
            # Check the pid first: talk to no other Postgres than the child of this process.
            if read_pid_file(cluster)[:1] == [str(process.pid)] and await self._database_exists():
                return
            if loop.time() > deadline:
                raise EmbeddedPostgresError(
                    f"Postgres was not ready in time; its log is {log.path}"
                )
            if loop.time() > next_progress:
                self._tell("waiting for Postgres to recover from a crash")
                next_progress += PROGRESS_EVERY_S
            await asyncio.sleep(0.01)

    async def _database_exists(self) -> bool:
        """Create the default database if it is missing. False while Postgres is not ready."""
        try:
            try:
                connection = await asyncpg.connect(self.dsn())
                await connection.close()
            except asyncpg.InvalidCatalogNameError:
                connection = await asyncpg.connect(self.dsn("postgres"))
                try:
                    await connection.execute(f'CREATE DATABASE "{DATABASE}"')
                finally:
                    await connection.close()
        except (OSError, asyncpg.CannotConnectNowError, asyncpg.ConnectionDoesNotExistError):
            return False
        return True


def _started(part: T | None) -> T:
    if part is None:
        raise EmbeddedPostgresError("the embedded Postgres was not started")
    return part


async def _probe(identity: Identity, binaries: Binaries, home: Path) -> None:
    command = [str(binaries.postgres), "--version"]
    process = await launch(identity, home, command, PIPE, signal.SIGKILL)
    output, _ = await process.communicate()
    if process.returncode != 0:
        raise EmbeddedPostgresError(output.decode("utf-8", "replace").strip().replace("\n", " "))


async def _end(process: Process) -> None:
    """Signal the child and no other process: a handle, unlike a pid, is never reused."""
    try:
        for number, timeout_s in STOP_STEPS:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(number)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), timeout_s)
                return
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGQUIT)
        raise


async def _rotate(log: LogFile) -> None:
    while True:
        await asyncio.sleep(ROTATE_EVERY_S)
        # The disk may be full. Postgres reports that itself; go on with the rotation.
        with contextlib.suppress(OSError):
            log.rotate_if_full()


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
