"""The servers of a run as child processes."""

from __future__ import annotations

import math
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
from grpc_health.v1 import health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from tests.support.fixtures.ports import lasting_port
from tests.system.soak.child import Child, Spawner
from tests.system.soak.networks import is_serving

IDLE_SECONDS = 2.0
"""Longer than between two records of what a server holds (server_process)."""
_CHECK_SECONDS = 5.0
_OPEN = ("tasklogs_rpcs_under_way", "tasklogs_sessions_open", "tasklogs_followers")


class Server(Child):
    """`tasklogs serve` in an interpreter of its own."""

    def __init__(
        self,
        spawner: Spawner,
        name: str,
        directory: Path,
        *,
        database: str,
        bus: str,
        bus_database: str | None,
        clock: Path,
        plants: Sequence[str] = (),
        workers: int = 1,
    ) -> None:
        file = name.replace(" ", "-")
        self.journal = directory / f"{file}.jsonl"
        self.port = lasting_port()
        self.metrics_port = lasting_port()
        command = (
            *(sys.executable, "-m", "tests.system.soak.server_process"),
            *(f"--clock={clock}", f"--journal={self.journal}"),
            *(f"--listen=127.0.0.1:{self.port}", f"--database-url={database}", f"--bus={bus}"),
            f"--metrics-listen=127.0.0.1:{self.metrics_port}",
            *([] if bus_database is None else [f"--bus-database-url={bus_database}"]),
            *(f"--plant={one}" for one in plants),
            *([] if workers == 1 else [f"--workers={workers}"]),
        )
        self._has_workers = workers > 1
        super().__init__(spawner, name, directory / f"{file}.out", lambda _: command)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def is_serving(self) -> bool:
        async with grpc.aio.insecure_channel(self.address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            return await is_serving(stub, _CHECK_SECONDS)

    def signal(self, number: signal.Signals) -> None:
        """A machine that hangs hangs with all its processes. All other signals are for one."""
        super().signal(number)
        if self._has_workers and self.is_running and number in (signal.SIGSTOP, signal.SIGCONT):
            for worker in psutil.Process(self.pid).children():
                with suppress(psutil.NoSuchProcess):
                    worker.send_signal(number)

    async def sessions(self) -> list[int]:
        """Return how many sessions each of its processes has; none if it does not answer."""
        return [int(one) for one in await self._metric("tasklogs_sessions_open")]

    async def open_calls(self) -> float:
        """Return how many calls, sessions and follows are open; infinity if it does not answer."""
        found = [await self._metric(name) for name in _OPEN]
        return sum(map(sum, found)) if all(found[1:]) else math.inf

    async def _metric(self, name: str) -> list[float]:
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=_CHECK_SECONDS) as client:
                text = (await client.get(f"http://127.0.0.1:{self.metrics_port}/metrics")).text
        except httpx.HTTPError:
            return []
        return [
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name
        ]
