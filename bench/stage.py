"""What a measurement needs: a Postgres, the server under test, the bare server, clients."""

from __future__ import annotations

import base64
import tempfile
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from bench.clients import Worker, together, workers
from bench.cpu import CpuSeconds, Measured, used
from bench.fill import fill
from bench.processes import Server, bare_server, our_server
from bench.rounds import Contestant
from tasklogs.connection.channel import open_channel
from tasklogs.v1 import task_logs_pb2, tasks_pb2
from tasklogs.v1.tasks_pb2_grpc import TasksStub
from tasklogs_server.postgres import EmbeddedPostgres

GET_TASK_LOGS = "/tasklogs.v1.TaskLogs/GetTaskLogs"
CLIENTS = 2
LOG_ENTRIES, LOG_BYTES = 30, 64 * 1024
# Before each slice, over all callers.
_WARM_UP_CALLS = 64
# The size of a GetTaskLogs response without its entries, to make the constant as long as ours.
_BESIDE_BYTES = 150 + 40 * LOG_ENTRIES


@dataclass(frozen=True)
class NewTask:
    """A task and its agent's token."""

    id: UUID
    token: str


@dataclass(frozen=True)
class Postgres:
    """A Postgres of this run. `pid` is that of its postmaster."""

    dsn: str
    pid: int


@dataclass
class Stage:
    """The processes of one measurement. Figures of `quick` runs have no meaning."""

    postgres: Postgres
    ours: Server
    bare: Server
    clients: list[Worker]
    quick: bool
    rounds: int

    def slice_seconds(self) -> float:
        """How long one contestant runs in one round."""
        return 0.15 if self.quick else 0.5

    @property
    def dsn(self) -> str:
        """The database of both servers."""
        return self.postgres.dsn

    def cpu(self, server: Measured | None) -> CpuSeconds:
        """Return the CPU time used so far by all processes, by `server` and by Postgres."""
        return used(server, self.postgres.pid)

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
    ) -> Contestant:
        """Return a contestant: `callers`, spread over the client processes."""
        texts = [encoded(requests) for requests in callers]
        shares = [share for n in range(CLIENTS) if (share := texts[n::CLIENTS])]

        async def run(**until: float) -> float:
            results = await together(
                [
                    client.do("load", address=server.address, method=method, callers=share, **until)
                    for client, share in zip(self.clients, shares, strict=False)
                ]
            )
            return float(sum(result[count] / result["seconds"] for result in results))

        return Contestant(
            run=lambda: run(seconds=seconds or self.slice_seconds()),
            warm_up=lambda: run(calls_each=max(2, _WARM_UP_CALLS // len(callers))),
            server=server,
        )


def read_request(task: NewTask, **fields: Any) -> bytes:
    """Encode a GetTaskLogsRequest."""
    return task_logs_pb2.GetTaskLogsRequest(task=str(task.id), **fields).SerializeToString()


def encoded(requests: list[bytes]) -> list[str]:
    """Encode requests (base64) for a client process."""
    return [base64.b64encode(request).decode() for request in requests]


@asynccontextmanager
async def open_stage(*, quick: bool, rounds: int) -> AsyncIterator[Stage]:
    """Start everything. Stop it at the end of the block."""
    async with (
        open_postgres() as postgres,
        our_server(postgres.dsn) as ours,
        bare_server(postgres.dsn, constant_bytes=LOG_BYTES + _BESIDE_BYTES) as bare,
        workers(CLIENTS) as clients,
    ):
        yield Stage(postgres, ours, bare, clients, quick, rounds)


@asynccontextmanager
async def open_postgres() -> AsyncIterator[Postgres]:
    """Run a separate Postgres with the settings of `tasklogs serve`."""
    with tempfile.TemporaryDirectory(prefix="tasklogs-bench-") as directory:
        async with EmbeddedPostgres(Path(directory) / "data") as postgres:
            yield Postgres(postgres.dsn(), postgres.pid)
