"""What a measurement needs: a Postgres, the server under test, the bare server, clients."""

from __future__ import annotations

import asyncio
import base64
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil

from bench.fill import fill
from bench.processes import Server, Worker, bare_server, our_server, workers
from tasklogs.connection.channel import open_channel
from tasklogs.v1 import task_logs_pb2, tasks_pb2
from tasklogs.v1.tasks_pb2_grpc import TasksStub
from tasklogs_server.postgres import EmbeddedPostgres

GET_TASK_LOGS = "/tasklogs.v1.TaskLogs/GetTaskLogs"
CLIENTS = 2
LOG_ENTRIES, LOG_BYTES = 30, 64 * 1024
# The size of a GetTaskLogs response without its entries, to make the constant as long as ours.
_BESIDE_BYTES = 150 + 40 * LOG_ENTRIES


@dataclass(frozen=True)
class NewTask:
    """A task and its agent's token."""

    id: UUID
    token: str


@dataclass
class Stage:
    """The processes of one run. `quick` runs take seconds, and their figures have no meaning."""

    dsn: str
    ours: Server
    bare: Server
    clients: list[Worker]
    quick: bool
    rounds: int

    def slice_seconds(self) -> float:
        """How long one contestant runs in one round."""
        return 0.15 if self.quick else 0.5

    def cpu_seconds(self) -> float:
        """Return the CPU seconds that all processes of this run have used so far."""
        used = 0.0
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                used += times.user + times.system
        return used

    async def create_tasks(
        self, count: int, *, standalone: bool = False, server: Server | None = None
    ) -> list[NewTask]:
        """Create tasks through the API."""
        async with open_channel((server or self.ours).address) as channel:
            created = []
            for _ in range(count):
                request = tasks_pb2.CreateTaskRequest(
                    name=f"b{uuid.uuid4().hex}", standalone=standalone
                )
                created.append(await TasksStub(channel).CreateTask(request))
        return [NewTask(UUID(one.task.id), one.agent_token) for one in created]

    async def fill(self, tasks: list[NewTask], *, entries: int, content_bytes: int) -> None:
        """Give each task a stored log."""
        ids = [task.id for task in tasks]
        await fill(self.dsn, ids, entries=entries, content_bytes=content_bytes)

    def load(
        self,
        server: Server,
        method: str,
        callers: list[list[bytes]],
        *,
        count: str = "calls",
        seconds: float | None = None,
    ) -> Callable[[], Awaitable[float]]:
        """Return a contestant: `callers`, spread over the client processes. Figure: per second."""
        encoded = [[base64.b64encode(one).decode() for one in requests] for requests in callers]
        shares = [share for n in range(CLIENTS) if (share := encoded[n::CLIENTS])]

        async def run() -> float:
            results = await asyncio.gather(
                *(
                    client.do(
                        "load",
                        address=server.address,
                        method=method,
                        callers=share,
                        seconds=seconds or self.slice_seconds(),
                    )
                    for client, share in zip(self.clients, shares, strict=False)
                )
            )
            return float(sum(result[count] / result["seconds"] for result in results))

        return run


def read_request(task: NewTask, **fields: Any) -> bytes:
    """Encode a GetTaskLogsRequest."""
    return task_logs_pb2.GetTaskLogsRequest(task=str(task.id), **fields).SerializeToString()


@asynccontextmanager
async def open_stage(*, quick: bool, rounds: int) -> AsyncIterator[Stage]:
    """Start everything. Stop it at the end of the block."""
    async with (
        open_postgres() as dsn,
        our_server(dsn) as ours,
        bare_server(dsn, constant_bytes=LOG_BYTES + _BESIDE_BYTES) as bare,
        workers(CLIENTS) as clients,
    ):
        yield Stage(dsn, ours, bare, clients, quick, rounds)


@asynccontextmanager
async def open_postgres() -> AsyncIterator[str]:
    """Run a separate Postgres with the settings of `tasklogs serve`; yield its DSN."""
    with tempfile.TemporaryDirectory(prefix="tasklogs-bench-") as directory:
        async with EmbeddedPostgres(Path(directory) / "data") as postgres:
            yield postgres.dsn()
