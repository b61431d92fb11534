"""TLS on a real server: renewed certificates, and client certificates."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from structlog.testing import capture_logs

from tasklogs import LogSource, TaskLogsClient, Tls, UnusableTls, errors
from tasklogs.agent.run import Agent, Options
from tasklogs.v1.task_agents_pb2 import Goodbye
from tasklogs_server import app
from tasklogs_server.settings import ServerSettings
from tests.support.fakes.task_app import FakeTaskApp
from tests.support.fixtures.certificates import Authority, Pair
from tests.support.fixtures.conditions import until

ALICE = x509.UniformResourceIdentifier("spiffe://example/alice")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def pair(authority: Authority) -> Pair:
    return authority.issue("server")


@asynccontextmanager
async def serving(database: str, pair: Pair, **settings: Any) -> AsyncIterator[str]:
    """A server with TLS; yields its address."""
    given = {"listen": "127.0.0.1:0", "tls_cert": pair.certificate, "tls_key": pair.key}
    configured = ServerSettings.model_validate(given | settings)
    async with asyncio.timeout(60), app.run(configured, database) as running:
        yield running.address


async def seen_by_a_new_connection(address: str, ca: Path) -> bytes:
    """The server's certificate, DER."""
    host, _, port = address.rpartition(":")
    context = ssl.create_default_context(cafile=str(ca))
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    try:
        certificate: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return certificate
    finally:
        writer.close()


def der(path: Path) -> bytes:
    return x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(Encoding.DER)


async def test_a_client_that_trusts_the_authority_reads(
    database: str, pair: Pair, authority: Authority
) -> None:
    async with (
        serving(database, pair) as address,
        TaskLogsClient(address, tls=Tls(ca=authority.ca)) as client,
    ):
        await client.create_task("demo")
        assert (await client.get("local/demo")).snapshot


async def test_a_client_that_does_not_trust_the_authority_and_a_plain_text_client_fail(
    database: str, pair: Pair, tmp_path: Path
) -> None:
    other = Authority(tmp_path, "other")
    async with serving(database, pair) as address:
        for tls in (Tls(ca=other.ca), Tls(), None):
            async with TaskLogsClient(address, tls=tls) as client:
                with pytest.raises(errors.Unavailable):
                    await client.get_task("local/demo")


async def test_new_connections_get_a_renewed_certificate_and_old_ones_stay_open(
    database: str, pair: Pair, authority: Authority
) -> None:
    first = der(pair.certificate)
    async with (
        serving(database, pair) as address,
        TaskLogsClient(address, tls=Tls(ca=authority.ca)) as client,
    ):
        await client.create_task("demo")
        assert await seen_by_a_new_connection(address, authority.ca) == first
        follow = client.follow("local/demo")
        await anext(follow)

        pair.replace_by(authority.issue("renewed"))

        seen = await seen_by_a_new_connection(address, authority.ca)
        assert seen == der(pair.certificate) != first
        await client.delete_task("local/demo")
        with pytest.raises(errors.TaskNotFound):  # on the connection that stayed open
            async for _ in follow:
                pass


async def test_a_broken_renewal_is_logged_once_and_the_old_certificate_stays_in_use(
    database: str, pair: Pair, authority: Authority
) -> None:
    first = der(pair.certificate)
    async with serving(database, pair) as address:
        pair.key.write_bytes(b"nothing of use")
        with capture_logs() as logged:
            for _ in range(3):
                assert await seen_by_a_new_connection(address, authority.ca) == first
        assert [one["event"] for one in logged] == ["certificate.rejected"]


async def test_a_client_is_identified_by_its_certificate(
    database: str, pair: Pair, authority: Authority
) -> None:
    alice = authority.issue("alice", [ALICE])
    bob = authority.issue("bob", [x509.DNSName("bob.example")])
    nobody = authority.issue("nobody", [x509.RFC822Name("nobody@example.com")])
    half = authority.issue("half", [x509.DNSName("root\0.evil.example")])

    def as_(who: Pair) -> Tls:
        return Tls(ca=authority.ca, certificate=who.certificate, key=who.key)

    async with serving(
        database,
        pair,
        auth="mtls",
        tls_client_ca=authority.ca,
        admin_subjects="root, bob.example",
    ) as address:
        async with TaskLogsClient(address, tls=as_(alice)) as client:
            made = await client.create_task("demo")
            assert made.task.owner == "spiffe://example/alice"
            with pytest.raises(errors.PermissionDenied):
                await client.create_task("demo", owner="bob.example")
        async with TaskLogsClient(address, tls=as_(bob)) as client:
            assert (await client.get_task(made.task.id)).name == "demo"
        for who in (nobody, half):
            async with TaskLogsClient(address, tls=as_(who)) as client:
                with pytest.raises(errors.Unauthenticated):
                    await client.get_task(made.task.id)


async def test_a_connection_needs_a_certificate_of_the_client_authority(
    database: str, pair: Pair, authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path, "other").issue("alice", [ALICE])
    expired = authority.issue("late", [ALICE], expired=True)
    async with serving(database, pair, auth="mtls", tls_client_ca=authority.ca) as address:
        for tls in (
            Tls(ca=authority.ca),
            Tls(ca=authority.ca, certificate=other.certificate, key=other.key),
            Tls(ca=authority.ca, certificate=expired.certificate, key=expired.key),
        ):
            async with TaskLogsClient(address, tls=tls) as client:
                with pytest.raises(errors.Unavailable):
                    await client.get_task("local/demo")


async def test_an_agent_reports_over_tls_with_a_certificate_and_its_token(
    database: str, pair: Pair, authority: Authority
) -> None:
    alice = authority.issue("alice", [ALICE])
    tls = Tls(ca=authority.ca, certificate=alice.certificate, key=alice.key)
    async with (
        serving(database, pair, auth="mtls", tls_client_ca=authority.ca) as address,
        TaskLogsClient(address, tls=tls) as client,
        FakeTaskApp() as task_app,
    ):
        task_app.become_ready()
        task_app.say("user", "hello")
        made = await client.create_task("demo", standalone=True)
        agent = Agent(Options(address, made.agent_token, task_app.url, tls=tls))
        running = asyncio.create_task(agent.run())
        async for event in client.follow(made.task.id, source=LogSource.SNAPSHOT):
            if "hello" in [change.entry.content for change in getattr(event, "changes", ())]:
                break
        agent.departure.want(Goodbye.REASON_STOPPING)
        await running


def test_an_incomplete_client_certificate_or_an_empty_file_is_reported_at_once(
    tmp_path: Path,
) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch()
    with pytest.raises(UnusableTls, match="needs its key"):
        Tls(certificate=empty)
    for ca in (empty, tmp_path / "absent"):
        with pytest.raises(UnusableTls, match=str(ca)):
            Tls(ca=ca).credentials()


def test_a_wrong_file_is_named_before_a_connection_is_opened(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    alice, bob = authority.issue("alice"), authority.issue("bob")
    for tls, said in (
        (Tls(ca=alice.key), f"{alice.key} has no certificate in PEM"),
        (
            Tls(ca=authority.ca, certificate=alice.key, key=alice.certificate),
            f"{alice.certificate} has no private key in PEM",
        ),
        (
            Tls(ca=authority.ca, certificate=alice.certificate, key=bob.key),
            f"the key in {bob.key} does not belong to the certificate in {alice.certificate}",
        ),
    ):
        with pytest.raises(UnusableTls) as caught:
            tls.credentials()
        assert str(caught.value) == said


async def test_a_refused_agent_names_the_option_to_look_at(
    database: str, pair: Pair, authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path, "other")
    async with FakeTaskApp() as task_app, serving(database, pair) as address:
        for tls, advice in (
            (Tls(ca=other.ca), "not trusted (--tls-ca FILE)"),
            (None, "requires TLS"),
        ):
            agent = Agent(Options(address, "token", task_app.url, tls=tls))
            with capture_logs() as logged:
                running = asyncio.create_task(agent.run())
                await until(lambda: any(one["event"] == "stream.ended" for one in logged))
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
            [first, *_] = [one for one in logged if one["event"] == "stream.ended"]
            assert first["reason"].startswith(f"{address}: ")
            assert advice in first["reason"]
