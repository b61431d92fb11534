"""A faulty network between a server, or a store, and Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.support.fakes.faulty_proxy import FaultyProxy


@asynccontextmanager
async def database_network(dsn: str) -> AsyncIterator[tuple[FaultyProxy, str]]:
    """Put a network before the Postgres of `dsn`, a unix socket. Yields it and the DSN over it."""
    parts = urlsplit(dsn)
    query = parse_qs(parts.query)
    socket = Path(query["host"][0]) / f".s.PGSQL.{query['port'][0]}"
    async with FaultyProxy(socket) as network:
        yield network, f"postgresql://{parts.username}@{network.address}{parts.path}"
