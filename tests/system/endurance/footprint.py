"""What a server holds while no call is open."""

from __future__ import annotations

import re
from dataclasses import dataclass

import asyncpg
import httpx
import psutil

from tests.support.fixtures.conditions import until

_OPEN = re.compile(
    r"^tasklogs_(?:rpcs_under_way|sessions_open|followers)(?:\{[^}]*\})? (\S+)$", re.MULTILINE
)
_BACKENDS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"


@dataclass(frozen=True)
class Footprint:
    rss: int
    """Resident bytes."""
    files: int
    threads: int
    backends: int
    """Connections to Postgres, without the one that counts them."""


class Measured:
    """A server as its operator sees it: by /proc, its metrics and its database."""

    def __init__(self, process: psutil.Process, metrics_port: int, dsn: str) -> None:
        self._process = process
        self._metrics = f"http://127.0.0.1:{metrics_port}/metrics"
        self._dsn = dsn

    async def footprint(self) -> Footprint:
        """Wait until no call is open. Fails if that takes too long: then some call never ends."""
        async with httpx.AsyncClient() as http:

            async def is_idle() -> bool:
                said = (await http.get(self._metrics)).text
                return sum(float(value) for value in _OPEN.findall(said)) == 0

            await until(is_idle)
        return Footprint(
            self._process.memory_info().rss,
            self._process.num_fds(),
            self._process.num_threads(),
            await self._backends(),
        )

    async def _backends(self) -> int:
        connection = await asyncpg.connect(self._dsn)
        try:
            count: int = await connection.fetchval(_BACKENDS)
        finally:
            await connection.close()
        return count - 1
