"""Connections that break cause domain errors and are replaced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import pytest

from tasklogs_server.domain.errors import LogCorrupt, StoreUnavailable, TaskLogsError, TaskNotFound
from tasklogs_server.store import Store
from tasklogs_server.store import connections as connections_module
from tasklogs_server.store.circuit_breaker import CircuitBreaker
from tasklogs_server.store.connect import connect
from tasklogs_server.store.connections import Connections
from tasklogs_server.telemetry.calls import Call
from tests.store.logs import Connection, new_task
from tests.support.fixtures.conditions import DEADLINE_SECONDS, until
from tests.support.fixtures.postgres import PostgresServer

T = TypeVar("T")


@pytest.fixture
async def connections(database: str) -> AsyncIterator[Connections]:
    opened = Connections(database, size=2)
    yield opened
    await opened.close()


async def backend(connections: Connections) -> int:
    async with connections.use() as connection:
        return int(await connection.fetchval("SELECT pg_backend_pid()"))


async def test_a_connection_is_used_again(connections: Connections) -> None:
    assert await backend(connections) == await backend(connections)


async def test_connections_have_the_settings_that_they_are_given(database: str) -> None:
    connections = Connections(database, size=1, settings={"lock_timeout": "7ms"})
    async with connections.use() as connection:
        assert await connection.fetchval("SHOW lock_timeout") == "7ms"
        assert await connection.fetchval("SHOW application_name") == "tasklogs"
    await connections.close()


async def test_callers_beyond_the_size_wait_their_turn(connections: Connections) -> None:
    async with connections.use(), connections.use():
        third = asyncio.create_task(backend(connections))
        await asyncio.wait([third], timeout=0.05)
        assert not third.done()
    assert await asyncio.wait_for(third, DEADLINE_SECONDS)


async def test_a_killed_backend_is_unavailable_once_and_then_replaced(
    connections: Connections, sql: Connection
) -> None:
    pid = await backend(connections)

    async def killed_while_it_runs() -> None:
        async with connections.use() as connection:
            await sql.fetchval("SELECT pg_terminate_backend($1)", pid)
            await connection.fetchval("SELECT pg_sleep(10)")

    with pytest.raises(StoreUnavailable):
        await killed_while_it_runs()
    assert await backend(connections) != pid


async def test_an_idle_connection_that_was_killed_is_not_lent_again(
    connections: Connections, sql: Connection
) -> None:
    pid = await backend(connections)
    async with connections.use() as connection:
        pass
    await sql.fetchval("SELECT pg_terminate_backend($1)", pid)
    await until(connection.is_closed)
    assert await backend(connections) != pid


async def test_the_next_caller_never_reads_the_response_of_a_cancelled_one(
    connections: Connections,
) -> None:
    async def sleep() -> None:
        async with connections.use() as connection:
            await connection.fetchval("SELECT pg_sleep(10)")

    for _ in range(4):  # more than there are connections
        task = asyncio.create_task(sleep())
        await asyncio.wait([task], timeout=0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    async with connections.use() as connection:
        assert await connection.fetchval("SELECT 7") == 7


async def test_a_cancelled_statement_ends_and_its_connection_is_used_again(
    connections: Connections, sql: Connection
) -> None:
    pid = await backend(connections)
    running = asyncio.create_task(sleep_long(connections))
    await until(lambda: is_active(sql, pid))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    await until(lambda: connections.in_use == 0)
    assert not await is_active(sql, pid)
    assert [await backend(connections) for _ in range(3)] == [pid] * 3


async def test_a_connection_is_opened_once_when_those_who_want_it_leave(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = 0
    may_open = asyncio.Event()

    async def slow(*args: Any, **kwargs: Any) -> Connection:
        nonlocal opened
        opened += 1
        await may_open.wait()
        return await connect(*args, **kwargs)

    monkeypatch.setattr(connections_module, "connect", slow)
    connections = Connections(database, size=1)
    first = asyncio.create_task(backend(connections))
    await until(lambda: opened == 1)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    for _ in range(5):
        impatient = asyncio.create_task(backend(connections))
        await asyncio.sleep(0)
        impatient.cancel()
        await asyncio.wait([impatient])
    may_open.set()
    assert await asyncio.wait_for(backend(connections), DEADLINE_SECONDS)
    assert opened == 1
    await connections.close()


async def test_connections_are_closed_while_a_cancelled_statement_ends(database: str) -> None:
    connections = Connections(database, size=1)
    await backend(connections)
    running = asyncio.create_task(sleep_long(connections))
    await until(lambda: connections.in_use == 1)
    running.cancel()
    await asyncio.wait([running])
    await asyncio.wait_for(connections.close(), DEADLINE_SECONDS)
    assert connections.in_use == 0


async def test_a_transaction_whose_begin_was_cancelled_reaches_no_later_user(
    connections: Connections,
) -> None:
    """Postgres may have begun it all the same. Later reads would see what was stored then."""

    async def begin() -> None:
        async with connections.use() as connection, connection.transaction():
            await asyncio.Event().wait()

    await backend(connections)
    for turns in range(8):
        beginning = asyncio.create_task(begin())
        for _ in range(turns):
            await asyncio.sleep(0)
        beginning.cancel()
        await asyncio.wait([beginning])
        await until(lambda: connections.in_use == 0)
        async with connections.use() as connection:
            assert not connection.is_in_transaction()


@pytest.mark.parametrize("turns", range(6))
async def test_a_connection_that_opens_while_postgres_goes_away_is_closed(
    database: str, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    """So many turns of the event loop after it was opened: it may be on its way to its user."""
    circuit_breaker = CircuitBreaker()
    connections = Connections(database, size=1, circuit_breaker=circuit_breaker)
    opened: list[Connection] = []

    async def connect_and_lose(*args: Any, **kwargs: Any) -> Connection:
        opened.append(await connect(*args, **kwargs))
        lose_after(turns)
        return opened[0]

    def lose_after(turns: int) -> None:
        if turns:
            asyncio.get_running_loop().call_soon(lose_after, turns - 1)
        else:
            circuit_breaker.lost()

    monkeypatch.setattr(connections_module, "connect", connect_and_lose)
    with pytest.raises(StoreUnavailable):
        async with connections.use():
            await asyncio.Event().wait()
    await until(opened[0].is_closed)
    assert connections.in_use == 0
    await connections.close()


async def sleep_long(connections: Connections) -> None:
    async with connections.use() as connection:
        await connection.execute("SELECT pg_sleep(600)")


async def is_active(sql: Connection, pid: int) -> bool:
    state = await sql.fetchval("SELECT state FROM pg_stat_activity WHERE pid = $1", pid)
    return bool(state == "active")


async def test_callers_take_turns_for_a_connection(database: str) -> None:
    connections = Connections(database, size=1)
    order: list[str] = []

    async def use_as(caller: str) -> None:
        await as_caller(caller, backend(connections))
        order.append(caller)

    async with connections.use():
        users = []
        for caller in "aaaab":
            users.append(asyncio.create_task(use_as(caller)))
            await until(lambda: connections.waiting == len(users))
    await asyncio.gather(*users)
    assert "".join(order) == "abaaa"
    await connections.close()


async def as_caller(name: str, work: Coroutine[Any, Any, T]) -> T:
    """Do something for a call of this caller."""
    call = Call("/test/Method", ())
    call.caller = name

    async def within_call() -> T:
        call.make_current()
        return await work

    return await asyncio.create_task(within_call())


@pytest.mark.parametrize("error", [TaskNotFound("x"), asyncpg.UniqueViolationError("x")])
async def test_a_connection_stays_usable_after_a_domain_error(
    connections: Connections, error: Exception
) -> None:
    pid = await backend(connections)

    async def refused() -> None:
        async with connections.use() as connection, connection.transaction():
            await connection.execute("SELECT 1")
            raise error

    with pytest.raises(type(error)):
        await refused()
    assert await backend(connections) == pid


async def test_a_statement_that_postgres_refuses_leaves_no_transaction_open(
    connections: Connections,
) -> None:
    with pytest.raises(asyncpg.DivisionByZeroError):
        async with connections.use() as connection, connection.transaction():
            await connection.execute("SELECT 1/0")
    async with connections.use() as connection:
        assert not connection.is_in_transaction()


async def test_a_stopped_postgres_is_unavailable_at_once_and_found_again(
    postgres_server: PostgresServer,
) -> None:
    longer_than_the_test_waits = timedelta(seconds=2 * DEADLINE_SECONDS)
    connections = Connections(
        postgres_server.dsn(), size=2, acquire_timeout=longer_than_the_test_waits
    )
    before = await backend(connections)
    await asyncio.to_thread(postgres_server.stop)
    for _ in range(3):
        async with asyncio.timeout(DEADLINE_SECONDS):
            with pytest.raises(StoreUnavailable):
                await backend(connections)
    await asyncio.to_thread(postgres_server.start)
    assert await backend(connections) != before
    await connections.close()


UNAVAILABLE: Sequence[Exception] = [
    ConnectionRefusedError(),
    ConnectionResetError(),
    TimeoutError(),
    asyncpg.InterfaceError("x"),
    asyncpg.ConnectionDoesNotExistError("x"),
    asyncpg.ConnectionFailureError("x"),
    asyncpg.AdminShutdownError("x"),
    asyncpg.CrashShutdownError("x"),
    asyncpg.CannotConnectNowError("x"),
    asyncpg.QueryCanceledError("x"),
    asyncpg.TooManyConnectionsError("x"),
    asyncpg.DiskFullError("x"),
    asyncpg.OutOfMemoryError("x"),
    asyncpg.ReadOnlySQLTransactionError("x"),
    asyncpg.InvalidPasswordError("x"),
    asyncpg.LockNotAvailableError("x"),
    asyncpg.DeadlockDetectedError("x"),
    asyncpg.SerializationError("x"),
    asyncpg.PostgresIOError("x"),
]
CORRUPT: Sequence[Exception] = [
    asyncpg.DataCorruptedError("x"),
    asyncpg.IndexCorruptedError("x"),
]


@pytest.mark.parametrize(
    ("errors", "expected"), [(UNAVAILABLE, StoreUnavailable), (CORRUPT, LogCorrupt)]
)
async def test_errors_of_the_driver_become_domain_errors(
    errors: Sequence[Exception], expected: type[TaskLogsError], connections: Connections
) -> None:
    for error in errors:
        with pytest.raises(expected) as raised:
            async with connections.use():
                raise error
        assert raised.value.__cause__ is error
        assert "x" not in raised.value.message.split()


async def test_a_locked_row_delays_its_callers_by_a_few_seconds_only(
    store: Store, task: UUID, sql: Connection
) -> None:
    other = await new_task(store)
    async with sql.transaction():
        await sql.execute("SELECT 1 FROM tasks WHERE task_id = $1 FOR UPDATE", task)
        # Within the statement timeout, after which Postgres itself would be suspected.
        async with asyncio.timeout(DEADLINE_SECONDS):
            with pytest.raises(StoreUnavailable):
                await store.tasks.change_facts(task, lambda facts: facts)
        assert not store.circuit_breaker.suspected.is_set()
        await store.tasks.change_facts(other, lambda facts: facts)
    await store.tasks.change_facts(task, lambda facts: facts)


async def test_postgres_may_go_away_again_while_callers_still_clean_up(database: str) -> None:
    circuit_breaker = CircuitBreaker()
    connections = Connections(database, size=1, circuit_breaker=circuit_breaker)
    waits, may_leave = asyncio.Event(), asyncio.Event()

    async def leaves_slowly() -> None:
        async with connections.use():
            try:
                waits.set()
                await asyncio.Event().wait()
            finally:
                waits.clear()
                await may_leave.wait()

    caller = asyncio.create_task(leaves_slowly())
    await asyncio.wait_for(waits.wait(), DEADLINE_SECONDS)
    circuit_breaker.lost()
    await until(lambda: not waits.is_set())
    circuit_breaker.found()
    circuit_breaker.lost()
    may_leave.set()
    with pytest.raises(StoreUnavailable):
        await caller
    await connections.close()
