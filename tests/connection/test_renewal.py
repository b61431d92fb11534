"""TLS files that are renewed while a client is open."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography import x509

from tasklogs import ReconnectWaits, TaskLogsClient, Tls, errors
from tasklogs.v1 import tasks_pb2
from tests.support.fakes.log_server import ACTIVE, status
from tests.support.fixtures.certificates import Authority, Pair
from tests.support.fixtures.conditions import until
from tests.support.fixtures.ports import lasting_port

SOON = ReconnectWaits(first=timedelta(milliseconds=2), cap=timedelta(milliseconds=50))


class Seen:
    """Which certificate each call came with, by its serial number."""

    def __init__(self) -> None:
        self.serials: list[int] = []
        self.follows = 0

    def note(self, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        [pem] = context.auth_context()["x509_pem_cert"]
        self.serials.append(x509.load_pem_x509_certificate(pem).serial_number)

    async def task(self, _: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        self.note(context)
        return tasks_pb2.Task(name="demo").SerializeToString()

    async def follow(
        self, _: bytes, context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> AsyncIterator[bytes]:
        self.note(context)
        self.follows += 1
        try:
            yield status("c0", ACTIVE).SerializeToString()
            await asyncio.Future()
        finally:
            self.follows -= 1


@asynccontextmanager
async def serving(
    authority: Authority, server_pair: Pair, port: int = 0
) -> AsyncIterator[_Serving]:
    """Serve to clients with a certificate of `authority`."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    credentials = grpc.ssl_server_credentials(
        [(server_pair.key.read_bytes(), server_pair.certificate.read_bytes())],
        authority.ca.read_bytes(),
        require_client_auth=True,
    )
    seen = Seen()
    bound = server.add_secure_port(f"127.0.0.1:{port}", credentials)
    task: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(seen.task)
    follow: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_stream_rpc_method_handler(seen.follow)
    for service, handlers in (
        ("tasklogs.v1.Tasks", {"GetTask": task}),
        ("tasklogs.v1.TaskLogs", {"FollowTaskLogs": follow}),
    ):
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])
    await server.start()
    try:
        yield _Serving(f"127.0.0.1:{bound}", seen)
    finally:
        await server.stop(None)


class _Serving:
    def __init__(self, address: str, seen: Seen) -> None:
        self.address = address
        self.seen = seen


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def serial(pair: Pair) -> int:
    return x509.load_pem_x509_certificate(pair.certificate.read_bytes()).serial_number


def tls(authority: Authority, pair: Pair) -> Tls:
    return Tls(ca=authority.ca, certificate=pair.certificate, key=pair.key)


async def test_new_calls_use_a_renewed_certificate_and_a_running_follow_goes_on(
    authority: Authority,
) -> None:
    own = authority.issue("own")
    first = serial(own)
    async with (
        serving(authority, authority.issue("server")) as server,
        TaskLogsClient(server.address, tls=tls(authority, own)) as client,
    ):
        await client.get_task("local/demo")
        follow = client.follow("local/demo")
        await anext(follow)

        own.replace_by(authority.issue("renewed"))
        await client.get_task("local/demo")
        await client.get_task("local/demo")

        renewed = serial(own)
        assert server.seen.serials == [first, first, renewed, renewed]
        assert server.seen.follows == 1  # still on its first stream
        await follow.aclose()
        await until(lambda: server.seen.follows == 0)


async def test_a_follow_reconnects_with_the_renewed_certificate_when_the_old_one_has_expired(
    authority: Authority,
) -> None:
    own, server_pair, port = authority.issue("own"), authority.issue("server"), lasting_port()
    told: list[object] = []
    async with TaskLogsClient(
        f"127.0.0.1:{port}", tls=tls(authority, own), reconnect_waits=SOON
    ) as client:
        follow = client.follow("local/demo", on_reconnect=told.append)
        async with serving(authority, server_pair, port):
            await anext(follow)
        reading = asyncio.create_task(anext(follow))
        await until(lambda: len(told) > 1)
        own.replace_by(authority.issue("late", expired=True))

        async with serving(authority, server_pair, port) as server:
            before = len(told)
            await until(lambda: len(told) > before + 1)
            assert server.seen.serials == []
            own.replace_by(authority.issue("renewed"))
            await until(lambda: server.seen.follows == 1)
            assert server.seen.serials == [serial(own)]
            reading.cancel()
            await asyncio.wait({reading})


async def test_files_that_cannot_be_used_are_named_once_and_the_old_ones_stay(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    own = authority.issue("own")
    first = serial(own)
    caplog.set_level(logging.INFO, logger="tasklogs")
    async with (
        serving(authority, authority.issue("server")) as server,
        TaskLogsClient(server.address, tls=tls(authority, own)) as client,
    ):
        key = own.key.read_bytes()
        authority.issue("half").key.replace(own.key)  # the certificate has not come yet
        for _ in range(3):
            await client.get_task("local/demo")
        own.key.unlink()
        await client.get_task("local/demo")
        own.key.write_bytes(key)
        await client.get_task("local/demo")

        assert server.seen.serials == [first] * 5
    assert [one.split(":")[0] for one in caplog.messages] == [
        "the renewed TLS files cannot be used",
        "the renewed TLS files cannot be used",
        "the TLS files were renewed",
    ]
    assert str(own.key) in caplog.messages[0]


async def test_a_replaced_channel_is_closed_after_its_last_call(authority: Authority) -> None:
    own = authority.issue("own")
    async with (
        serving(authority, authority.issue("server")) as server,
        TaskLogsClient(server.address, tls=tls(authority, own)) as client,
    ):
        follow = client.follow("local/demo")
        await anext(follow)
        before = _channels()
        for _ in range(3):
            own.replace_by(authority.issue("renewed"))
            await client.get_task("local/demo")
        await until(lambda: _channels() == before + 1)

        await follow.aclose()
        await until(lambda: _channels() == before)


async def test_a_renewed_authority_is_trusted(authority: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other")
    own = authority.issue("own")
    async with (
        serving(authority, other.issue("server")) as server,
        TaskLogsClient(server.address, tls=tls(authority, own), retry=None) as client,
    ):
        with pytest.raises(errors.Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await client.get_task("local/demo")
        server_ca = other.ca.read_bytes()
        authority.ca.write_bytes(server_ca)
        assert (await client.get_task("local/demo")).name == "demo"


def _channels() -> int:
    gc.collect()
    known = type(grpc.aio.insecure_channel("127.0.0.1:9"))
    return sum(type(one) is known for one in gc.get_objects())
