"""The server behind a real PgBouncer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import asyncpg
import grpc
import grpc.aio
import pytest
from structlog.testing import capture_logs

from tasklogs import TaskLogsClient
from tasklogs.errors import TaskLogsRpcError
from tasklogs_server.ingest import session_audit
from tasklogs_server.reads import feed
from tasklogs_server.store.connect import SESSION_SETTINGS, connect
from tests.cli.command import run
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry
from tests.support.fixtures.conditions import until
from tests.support.fixtures.pgbouncer import needs_pgbouncer, pgbouncer
from tests.support.fixtures.refusals import refused
from tests.support.fixtures.reports import TASK, get_task, make_active
from tests.support.fixtures.server import Server, serving
from tests.system.end_to_end.followed_events import Followed, following

pytestmark = needs_pgbouncer

# What a server needs with one connection for reads.
POOL_SIZE = 9


async def test_a_pooler_that_shares_sessions_ends_the_start_with_one_line(database: str) -> None:
    async with pgbouncer(database, pool_mode="transaction") as pooler:
        finished = await run("serve", "--listen=127.0.0.1:0", f"--database-url={pooler.dsn}")
    assert finished.code == 1
    [line] = finished.stderr.splitlines()
    assert re.fullmatch(r"tasklogs: the database cannot be used: .*pool_mode = session.*", line)


async def test_everything_works_where_a_connection_keeps_its_session(database: str) -> None:
    async with (
        pgbouncer(database, pool_mode="session", default_pool_size=POOL_SIZE) as pooler,
        serving(pooler.dsn, read_connections=1) as server,
        TaskLogsClient(server.address) as client,
    ):
        created = await server.create_task()
        await make_active(server)
        async with (
            ScriptedAgent.connect(server, created.agent_token) as agent,
            following(client, TASK) as followed,
        ):
            await agent.append(open_epoch=True, entries=[log_entry(0, "0")])
            for number in range(1, 20):
                await agent.append(entries=[log_entry(number, str(number))])
            await agent.acked()
            await until(lambda: len(followed.entries) == 20)
        assert [one.content for one in followed.entries.values()] == [str(n) for n in range(20)]
        assert followed.breaks == 0


async def test_each_client_of_a_session_has_its_own_settings(database: str) -> None:
    async with pgbouncer(database, pool_mode="session", default_pool_size=1) as pooler:
        for _ in range(2):
            ours = await connect(pooler.dsn)
            session = await ours.fetchval("SELECT pg_backend_pid()")
            assert await settings_of(ours) == SESSION_SETTINGS
            await ours.close()

            other = await asyncpg.connect(pooler.dsn)
            assert await other.fetchval("SELECT pg_backend_pid()") == session
            theirs = await settings_of(other)
            assert [name for name in theirs if theirs[name] == SESSION_SETTINGS[name]] == []
            await other.close()


async def test_the_server_comes_back_when_the_pooler_reaches_postgres_again(database: str) -> None:
    settings = {"default_pool_size": POOL_SIZE, "server_login_retry": 1}
    async with (
        pgbouncer(database, pool_mode="session", **settings) as pooler,
        serving(pooler.dsn, read_connections=1) as server,
    ):
        await server.create_task()
        with capture_logs() as logged:
            await pooler.network.refuse()
            pooler.network.cut()
            # PgBouncer says this while it cannot connect.
            await until(lambda: any("login has been failing" in one for one in reasons(logged)))
            error = await refused(get_task(server))
            assert (error.code, error.reason) == (
                grpc.StatusCode.UNAVAILABLE,
                "STORE_UNAVAILABLE",
            )
            assert "login" not in error.message
            await pooler.network.heal()
            await until(lambda: answers(server))
        assert all(one != other for one, other in pairwise(reasons(logged)))


async def test_two_servers_hear_each_other_when_the_pooler_was_restarted(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No feed looks by itself and no audit runs: a change elsewhere is known by its note alone."""
    monkeypatch.setattr(session_audit, "AUDIT_SECONDS", 3600)
    monkeypatch.setattr(feed, "_POLL_SECONDS", 3600)
    async with (
        pgbouncer(database, pool_mode="session", default_pool_size=2 * POOL_SIZE) as pooler,
        serving(pooler.dsn, read_connections=1, bus="postgres") as here,
        serving(pooler.dsn, read_connections=1, bus="postgres") as there,
        TaskLogsClient(here.address) as client,
    ):
        created = await here.create_task()
        await make_active(here)
        said = 0
        async with following(client, TASK) as followed:
            for restarts in range(3):
                if restarts:
                    await pooler.restart()
                    await until(lambda: can_connect(there, created.agent_token))
                async with ScriptedAgent.connect(there, created.agent_token) as agent:
                    for _ in range(5):
                        await agent.append(
                            open_epoch=not said, entries=[log_entry(said, str(said))]
                        )
                        said += 1
                        await agent.acked()
                        await followed.wait_for(partial(has, followed, said))
            contents = [one.content for one in followed.entries.values()]
            assert contents == [str(number) for number in range(said)]


def has(followed: Followed, count: int) -> bool:
    return len(followed.entries) == count


async def can_connect(server: Server, token: str) -> bool:
    try:
        async with ScriptedAgent.connect(server, token):
            return True
    except TaskLogsRpcError as error:
        if error.code is not grpc.StatusCode.UNAVAILABLE:
            raise
        return False


async def settings_of(connection: asyncpg.Connection[asyncpg.Record]) -> dict[str, str]:
    return {
        name: await connection.fetchval("SELECT current_setting($1)", name)
        for name in SESSION_SETTINGS
    }


def reasons(logged: Sequence[Mapping[str, Any]]) -> list[str]:
    return [one["reason"] for one in logged if one["event"] == "store.lost"]


async def answers(server: Server) -> bool:
    try:
        await get_task(server)
    except grpc.aio.AioRpcError:
        return False
    return True
