"""How a follow connects and reconnects: what it tells, when it gives up, and why."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2

from tasklogs import (
    Reconnected,
    Reconnecting,
    ReconnectWaits,
    StatusChanged,
    SyncTaskLogsClient,
    TaskLogsClient,
    Tls,
    errors,
)
from tests.client.test_follow import CODE, DRAINING, refusal, take
from tests.support.fakes.log_server import (
    ACTIVE,
    HOLD,
    PAUSED,
    LogServer,
    Step,
    caught_up,
    log_server,
    status,
)
from tests.support.fixtures.certificates import Authority
from tests.support.fixtures.conditions import DEADLINE_SECONDS, until
from tests.support.fixtures.ports import lasting_port

TASK = "local/demo"
SOON = ReconnectWaits(first=timedelta(milliseconds=2), cap=timedelta(milliseconds=20))
Told = list[Reconnecting | Reconnected]


@pytest.fixture
async def server() -> AsyncIterator[LogServer]:
    async with log_server() as server:
        yield server


@pytest.fixture
async def client(server: LogServer) -> AsyncIterator[TaskLogsClient]:
    async with TaskLogsClient(server.address, reconnect_waits=SOON) as client:
        yield client


async def test_each_attempt_without_a_server_is_told_with_its_cause() -> None:
    told: Told = []
    port = lasting_port()
    async with TaskLogsClient(f"127.0.0.1:{port}", reconnect_waits=SOON) as client:
        async with log_server(port) as server:
            server.streams = [[status("c0", ACTIVE), HOLD]]
            follow = client.follow(TASK, on_reconnect=told.append)
            await take(follow, 1)
        reading = asyncio.create_task(take(follow, 1))

        await until(lambda: len(told) >= 10)
        attempts = [each for each in told if isinstance(each, Reconnecting)]
        assert [each.attempt for each in attempts] == list(range(1, len(told) + 1))
        assert "Connection refused" in attempts[-1].error.message

        async with log_server(port) as server:
            server.streams = [[status("c0", PAUSED), HOLD]]
            await reading
        assert isinstance(told[-1], Reconnected)


async def test_a_follow_gives_up_after_reconnect_timeout_with_the_last_error() -> None:
    told: Told = []
    port = lasting_port()
    async with TaskLogsClient(f"127.0.0.1:{port}", reconnect_waits=SOON) as client:
        async with log_server(port) as server:
            server.streams = [[status("c0", ACTIVE), HOLD]]
            limit = timedelta(seconds=0.3)
            follow = client.follow(TASK, reconnect_timeout=limit, on_reconnect=told.append)
            await take(follow, 1)
        began = asyncio.get_running_loop().time()

        async with asyncio.timeout(DEADLINE_SECONDS):
            with pytest.raises(errors.Unavailable, match="Connection refused"):
                await anext(follow)

    assert asyncio.get_running_loop().time() - began >= 0.1
    assert len(told) > 1
    assert follow.cursor == "c0"


async def test_reconnect_timeout_counts_from_the_first_break_of_a_stream_that_does_not_continue(
    server: LogServer, client: TaskLogsClient
) -> None:
    server.play = _flapping
    follow = client.follow(TASK, reconnect_timeout=timedelta(seconds=0.2))
    await take(follow, 1)

    async with asyncio.timeout(DEADLINE_SECONDS):
        with pytest.raises(errors.ServerDraining):
            await anext(follow)

    assert len(server.follows) > 2


async def test_reconnect_timeout_does_not_limit_a_stream_that_continues(
    server: LogServer, client: TaskLogsClient
) -> None:
    more = asyncio.Event()
    server.streams = [
        [status("c0", ACTIVE), DRAINING],
        [status("c0", ACTIVE), more, caught_up("c0"), HOLD],
    ]
    follow = client.follow(TASK, reconnect_timeout=timedelta(seconds=0.1))
    await take(follow, 1)
    reading = asyncio.create_task(take(follow, 1))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(reading), 0.3)
    more.set()

    await reading


async def test_a_token_that_fails_at_a_reconnect_is_asked_for_again(server: LogServer) -> None:
    told: Told = []
    answers: list[str | Exception] = [
        "one",
        LookupError("key 1234"),
        ValueError(),
        "two words",
        "two",
    ]

    def token() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    server.streams = [[status("c0", ACTIVE), DRAINING], [status("c0", PAUSED), HOLD]]
    async with TaskLogsClient(server.address, token=token, reconnect_waits=SOON) as client:
        await take(client.follow(TASK, on_reconnect=told.append), 2)

    assert server.tokens == ["Bearer one", "Bearer two"]
    failed = [each.error for each in told if isinstance(each, Reconnecting)][1:]
    assert [type(each) for each in failed] == [errors.TokenUnavailable] * 3
    assert [type(each.__cause__) for each in failed] == [LookupError, ValueError, ValueError]
    assert "1234" not in str(failed[0])


async def test_a_token_that_fails_at_the_first_connection_ends_the_follow_with_its_own_error(
    server: LogServer, client: TaskLogsClient
) -> None:
    def token() -> str:
        raise LookupError("no token")

    async with TaskLogsClient(server.address, token=token) as client:
        with pytest.raises(LookupError, match="no token"):
            await anext(client.follow(TASK))


async def test_a_wrong_port_says_so_after_the_first_attempts() -> None:
    told: Told = []
    async with TaskLogsClient(f"127.0.0.1:{lasting_port()}", reconnect_waits=SOON) as client:
        limit = timedelta(seconds=0.2)
        follow = client.follow(TASK, connect_timeout=limit, on_reconnect=told.append)
        async with asyncio.timeout(DEADLINE_SECONDS):
            with pytest.raises(errors.Unavailable, match="Connection refused"):
                await anext(follow)
    assert len(told) > 1


@pytest.mark.parametrize("client_class", [TaskLogsClient, SyncTaskLogsClient])
def test_by_default_a_follow_waits_ten_seconds_for_its_first_message(
    client_class: type[TaskLogsClient] | type[SyncTaskLogsClient],
) -> None:
    parameters = inspect.signature(client_class.follow).parameters
    assert parameters["connect_timeout"].default == timedelta(seconds=10)
    assert parameters["reconnect_timeout"].default is None


async def test_an_authority_that_is_not_trusted_says_so_at_once(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    async with (
        _tls_server(authority) as address,
        TaskLogsClient(address, tls=Tls(ca=other.ca)) as client,
    ):
        with pytest.raises(errors.Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await anext(client.follow(TASK))


async def test_tls_to_a_plain_text_server_says_so_at_once(
    server: LogServer, tmp_path: Path
) -> None:
    async with TaskLogsClient(server.address, tls=Tls(ca=Authority(tmp_path).ca)) as client:
        with pytest.raises(errors.Unavailable, match="WRONG_VERSION_NUMBER"):
            await anext(client.follow(TASK))


async def test_plain_text_to_a_tls_server_says_that_it_closed_the_connection(
    tmp_path: Path,
) -> None:
    async with (
        _tls_server(Authority(tmp_path)) as address,
        TaskLogsClient(address, reconnect_waits=SOON) as client,
    ):
        follow = client.follow(TASK, connect_timeout=timedelta(seconds=0.3))
        with pytest.raises(errors.Unavailable, match=r"[Ss]ocket closed|Connection reset"):
            await anext(follow)


async def test_a_follow_that_may_wait_for_ever_waits_for_whatever_keeps_it_from_the_server(
    tmp_path: Path,
) -> None:
    authority, other, told = Authority(tmp_path), Authority(tmp_path, "other"), list[object]()
    async with _tls_server(authority) as address:
        tls = Tls(ca=other.ca)
        async with TaskLogsClient(address, tls=tls, reconnect_waits=SOON) as client:
            follow = client.follow(TASK, connect_timeout=None, on_reconnect=told.append)
            reading = asyncio.create_task(anext(follow))
            await until(lambda: len(told) > 3)
            assert not reading.done()
            reading.cancel()
            await asyncio.wait({reading})


async def test_a_first_call_that_is_refused_for_now_is_made_again(
    server: LogServer, client: TaskLogsClient
) -> None:
    soon = error_details_pb2.RetryInfo(retry_delay=Duration(nanos=1_000_000))
    server.streams = [
        [refusal(CODE.RESOURCE_EXHAUSTED, "TOO_MANY_REQUESTS", soon)],
        [status("c0", ACTIVE), HOLD],
    ]
    assert [type(one) for one in await take(client.follow(TASK), 1)] == [StatusChanged]


async def test_a_wait_that_is_longer_than_the_limit_is_not_begun(
    server: LogServer, client: TaskLogsClient
) -> None:
    later = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=3600))
    server.streams = [[refusal(CODE.UNAVAILABLE, "STORE_UNAVAILABLE", later)]]

    async with asyncio.timeout(5):
        with pytest.raises(errors.StoreUnavailable) as caught:
            await anext(client.follow(TASK))

    assert caught.value.retry_after == timedelta(hours=1)


async def test_the_library_logs_what_it_does_and_no_secret(
    server: LogServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="tasklogs")
    server.streams = [[status("c0", ACTIVE), DRAINING], [status("c0", PAUSED), HOLD]]
    async with TaskLogsClient(server.address, token="secret", reconnect_waits=SOON) as client:
        await take(client.follow(TASK), 2)

    lines = [one for one in caplog.records if one.name == "tasklogs"]
    assert [one.levelname for one in lines] == ["WARNING", "INFO"]
    assert "local/demo: UNAVAILABLE: no (DRAINING); attempt 1 in 0.0 s" in lines[0].getMessage()
    assert "local/demo: reconnected" in lines[1].getMessage()
    assert "secret" not in caplog.text


def test_a_program_without_handlers_prints_nothing() -> None:
    assert any(
        isinstance(one, logging.NullHandler) for one in logging.getLogger("tasklogs").handlers
    )


async def _flapping(_: object) -> AsyncIterator[Step]:
    yield status("c0", ACTIVE)
    yield DRAINING


@asynccontextmanager
async def _tls_server(authority: Authority) -> AsyncIterator[str]:
    pair = authority.issue("server")
    server = grpc.aio.server()
    port = server.add_secure_port(
        "127.0.0.1:0",
        grpc.ssl_server_credentials([(pair.key.read_bytes(), pair.certificate.read_bytes())]),
    )
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
