"""The check of a database at the start, with a Postgres that is not ready yet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tasklogs_server.store import preflight
from tasklogs_server.store.preflight import why_unusable
from tests.support.fakes.stream_server import StreamServer
from tests.support.fixtures.standby import Standby

STARTING = ("57P03", "the database system is starting up")
REFUSED = ("28000", 'role "nobody" does not exist')


@asynccontextmanager
async def answering(*errors: tuple[str, str]) -> AsyncIterator[tuple[str, Iterator[object]]]:
    """Listen as a Postgres that refuses one connection after another; yields its URL."""
    left = iter(errors)

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(4))
        await reader.readexactly(length - 4)
        code, message = next(left)
        fields = f"SFATAL\0VFATAL\0C{code}\0M{message}\0\0".encode()
        writer.write(b"E" + (len(fields) + 4).to_bytes(4) + fields)
        await writer.drain()

    async with StreamServer(refuse) as server:
        yield f"postgresql://nobody@127.0.0.1:{server.port}/x?sslmode=disable", left


async def test_a_postgres_that_is_starting_up_is_waited_for() -> None:
    async with answering(STARTING, STARTING, REFUSED) as (url, left):
        assert await why_unusable(url) == REFUSED[1]
        assert next(left, None) is None


async def test_a_standby_is_waited_for_until_it_is_promoted(standby: Standby) -> None:
    asking = asyncio.create_task(why_unusable(standby.server.dsn()))
    await asyncio.wait([asking], timeout=0.2)
    assert not asking.done()
    await asyncio.to_thread(standby.promote)
    assert await asking is None


async def test_a_standby_that_stays_one_is_reported(
    standby: Standby, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "_STARTING_SECONDS", 0.0)
    reason = await why_unusable(standby.server.dsn())
    assert reason == "it is a standby: use the address of the primary"


async def test_any_other_refusal_is_reported_at_once() -> None:
    async with answering(REFUSED, STARTING) as (url, left):
        assert await why_unusable(url) == REFUSED[1]
        assert next(left, None) == STARTING


async def test_a_missing_file_of_the_url_is_reported_as_missing(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    for url in (
        f"postgresql://nobody@127.0.0.1:1/x?sslmode=verify-full&sslrootcert={absent}",
        f"postgresql://nobody@/x?host={absent}",
    ):
        reason = await why_unusable(url)
        assert reason is not None
        assert "its socket is not there" in reason
        assert "sslrootcert" in reason
