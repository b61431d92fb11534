"""The check of a database at the start, with a Postgres that is not ready yet."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from structlog.testing import capture_logs

from tasklogs_server.store import preflight
from tasklogs_server.store.preflight import why_unusable
from tests.support.fakes.faulty_proxy import FaultyProxy
from tests.support.fakes.postgres_hosts import STARTING, Refusal, old_postgres, refusing_postgres
from tests.support.fixtures.postgres import PostgresServer
from tests.support.fixtures.standby import Standby

REFUSED = ("28000", 'role "nobody" does not exist')


@asynccontextmanager
async def answering(*refusals: Refusal) -> AsyncIterator[tuple[str, deque[Refusal]]]:
    """Listen as a Postgres that refuses one connection after another; yields its URL."""
    async with refusing_postgres(*refusals) as (port, left):
        yield url_of(port), left


def url_of(port: int) -> str:
    return f"postgresql://nobody:secret@127.0.0.1:{port}/x?sslmode=disable"


@pytest.fixture
def make_empty_database(shared_postgres: PostgresServer) -> Callable[[str], str]:
    """Makes an empty database with options of CREATE DATABASE. Returns its DSN."""

    def make(options: str) -> str:
        name = f"empty_{os.urandom(4).hex()}"
        shared_postgres.execute(f"CREATE DATABASE {name} TEMPLATE template0 {options}")
        return shared_postgres.dsn(name)

    return make


async def test_a_postgres_that_is_starting_up_is_waited_for() -> None:
    async with answering(STARTING, STARTING, REFUSED) as (url, left):
        assert await why_unusable(url) == REFUSED[1]
        assert not left


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
        assert list(left) == [STARTING]


async def test_what_it_waits_for_is_logged_once() -> None:
    async with answering(STARTING, STARTING, STARTING, REFUSED) as (url, _):
        with capture_logs() as logged:
            await why_unusable(url)
    assert [(one["event"], one["reason"]) for one in logged] == [("store.awaited", STARTING[1])]


async def test_the_primary_is_waited_for_while_all_hosts_are_standbys(
    postgres_server: PostgresServer, standby: Standby
) -> None:
    async with FaultyProxy(standby.socket) as copy, refusing_postgres(STARTING, STARTING) as (p, _):
        url = f"postgresql://postgres@127.0.0.1:{p},127.0.0.1:{copy.port}/tasklogs?sslmode=disable"
        asking = asyncio.create_task(why_unusable(url))
        await asyncio.wait([asking], timeout=0.2)
        assert not asking.done()
        await asyncio.to_thread(standby.promote)
        assert await asking is None


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_a_database_that_is_not_utf8_is_refused(
    make_empty_database: Callable[[str], str], encoding: str
) -> None:
    url = make_empty_database(f"ENCODING '{encoding}' LOCALE_PROVIDER libc LOCALE 'C'")
    reason = await why_unusable(url)
    assert reason is not None
    assert f"its encoding is {encoding}, UTF8 is needed" in reason


@pytest.mark.parametrize(
    ("setting", "word"),
    [
        ("default_transaction_read_only = on", "read-only"),
        ("search_path = ''", "search_path"),
        ("search_path = absent", "search_path"),
    ],
)
async def test_settings_that_prevent_all_writes_are_refused(
    database: str, shared_postgres: PostgresServer, setting: str, word: str
) -> None:
    name = urlsplit(database).path[1:]
    shared_postgres.execute(f"ALTER DATABASE {name} SET {setting}")
    reason = await why_unusable(database)
    assert reason is not None
    assert word in reason
    assert "\n" not in reason


async def test_a_postgres_that_is_too_old_is_refused_before_it_is_asked_anything() -> None:
    async with old_postgres("14.9") as port:
        assert await why_unusable(url_of(port)) == "it is Postgres 14, 15 is needed"


@pytest.mark.parametrize(
    "refusal",
    [
        ("28P01", 'password authentication failed for user "nobody"'),
        ("3D000", 'database "x" does not exist'),
        ("42501", 'permission denied for database "x"'),
        ("53300", "sorry, too many clients already\nand a second line"),
    ],
    ids=lambda refusal: refusal[0],
)
async def test_a_refusal_is_told_in_one_line_of_postgres_words(refusal: Refusal) -> None:
    async with answering(refusal) as (url, _):
        assert await why_unusable(url) == refusal[1].splitlines()[0]


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
