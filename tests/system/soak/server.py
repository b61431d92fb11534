"""The servers of a run as child processes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import grpc
import httpx
from grpc_health.v1 import health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from tests.support.fixtures.ports import lasting_port
from tests.system.soak.child import Child, Spawner
from tests.system.soak.networks import is_serving

IDLE_SECONDS = 2.0
"""Longer than between two records of what a server holds (server_process)."""
_CHECK_SECONDS = 2.0


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
        plant: str | None,
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
            *([] if plant is None else [f"--plant={plant}"]),
        )
        super().__init__(spawner, name, directory / f"{file}.out", lambda _: command)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def is_serving(self) -> bool:
        async with grpc.aio.insecure_channel(self.address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            return await is_serving(stub, _CHECK_SECONDS)

    async def gauges(self) -> dict[str, float]:
        """Return the server's metrics by name, summed over their labels. Raises httpx.HTTPError."""
        async with httpx.AsyncClient(trust_env=False, timeout=_CHECK_SECONDS) as client:
            text = (await client.get(f"http://127.0.0.1:{self.metrics_port}/metrics")).text
        return {
            sample.name: sum(one.value for one in family.samples if one.name == sample.name)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
