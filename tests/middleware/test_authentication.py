"""Authentication on a real server: valid tokens, invalid tokens, and tokens that expire."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs

from tasklogs import CaughtUp, ReconnectWaits, TaskLogsClient
from tasklogs.publish.stream_status import StreamCall
from tasklogs.v1 import task_agents_pb2 as agents_pb
from tasklogs.v1 import task_logs_pb2 as logs_pb
from tasklogs.v1 import tasks_pb2 as pb
from tests.auth.test_verifier import by_hand, plain
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry
from tests.support.fixtures.authenticated import Guarded, Metadata, bearing, guarded
from tests.support.fixtures.conditions import DEADLINE_SECONDS, until
from tests.support.fixtures.issuer import claims, new_key, publish
from tests.support.fixtures.refusals import Refusal, refused, refused_stream
from tests.support.fixtures.server import MakeServer

CODE = grpc.StatusCode
SNAPSHOT = logs_pb.LOG_SOURCE_SNAPSHOT


@pytest.fixture
async def guard(make_server: MakeServer, tmp_path: Path) -> AsyncIterator[Guarded]:
    async with guarded(make_server, tmp_path, jwt_leeway=0) as guard:
        yield guard


async def lists(guard: Guarded, metadata: Metadata) -> list[str]:
    listed = await guard.server.tasks.ListTasks(pb.ListTasksRequest(), metadata=metadata)
    return [task.name for task in listed.tasks]


async def refusal(guard: Guarded, metadata: Metadata) -> Refusal:
    return await refused(lists(guard, metadata))


async def test_a_tokens_subject_owns_what_it_creates(guard: Guarded) -> None:
    created = await guard.create("alice")
    assert created.task.owner == "alice"
    assert await lists(guard, guard.as_("alice")) == ["demo"]


BAD: dict[str, Callable[[Guarded], Metadata]] = {
    "none": lambda guard: (),
    "expired": lambda guard: guard.as_("alice", expires_in=-1),
    "not yet valid": lambda guard: guard.as_(
        "alice", nbf=datetime.now(UTC) + timedelta(seconds=60)
    ),
    "for another audience": lambda guard: guard.as_("alice", aud="another"),
    "alg none": lambda guard: bearing(
        jwt.encode(claims(), "", algorithm="none", headers={"kid": "one"})
    ),
    "an unknown kid": lambda guard: bearing(guard.key.sign(claims(), kid="two")),
    "another scheme": lambda guard: (("authorization", f"Basic {guard.token('alice')}"),),
    "no scheme": lambda guard: (("authorization", guard.token("alice")),),
    "an empty token": lambda guard: (("authorization", "Bearer "),),
    "two tokens": lambda guard: guard.as_("alice") + guard.as_("alice"),
    "an invented agent token": lambda guard: bearing(f"tla_{'0' * 32}_secret"),
}

REASON_OF = {
    "none": "TOKEN_MISSING",
    "an empty token": "TOKEN_MISSING",
    "expired": "TOKEN_EXPIRED",
}


@pytest.mark.parametrize("what", BAD)
async def test_a_call_is_unauthenticated_with(guard: Guarded, what: str) -> None:
    said = await refusal(guard, BAD[what](guard))
    assert said.code is CODE.UNAUTHENTICATED
    assert (said.kinds, said.reason) == (["ErrorInfo"], REASON_OF.get(what, "TOKEN_INVALID"))
    assert said.metadata == {}
    assert said.message.startswith("not authenticated: ")
    for hint in ("kid", "key", "aud", "alg", "nbf", "signature", "Error"):
        assert hint not in said.message.replace("authentic", "")


async def test_a_public_key_is_not_accepted_as_an_hmac_secret(
    make_server: MakeServer, tmp_path: Path
) -> None:
    async with guarded(make_server, tmp_path) as guard:
        key = new_key("rsa", "RS256")
        publish(guard.jwks, key)
        await until(lambda: works(guard, bearing(key.sign(claims()))))
        pem = key.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        forged = by_hand(
            {"alg": "HS256", "kid": "rsa"},
            plain(),
            lambda signed: hmac.digest(pem, signed, hashlib.sha256),
        )
        assert (await refusal(guard, bearing(forged))).code is CODE.UNAUTHENTICATED


async def works(guard: Guarded, metadata: Metadata) -> bool:
    """Whether the token is accepted. Other failures are raised."""
    try:
        await lists(guard, metadata)
    except grpc.aio.AioRpcError as error:
        if error.code() is not CODE.UNAUTHENTICATED:
            raise
        return False
    return True


async def test_new_keys_are_used_and_withdrawn_keys_dropped_without_a_restart(
    guard: Guarded,
) -> None:
    new = new_key("two")
    old_token, new_token = guard.as_("alice"), bearing(new.sign(claims("alice")))
    assert await works(guard, old_token)
    assert not await works(guard, new_token)

    publish(guard.jwks, guard.key, new)
    await until(lambda: works(guard, new_token))
    assert await works(guard, old_token)

    publish(guard.jwks, new)

    async def is_dropped() -> bool:
        return not await works(guard, old_token)

    await until(is_dropped)
    assert await works(guard, new_token)


async def test_a_url_without_keys_yet_is_reported_as_keys_unavailable(
    make_server: MakeServer, tmp_path: Path
) -> None:
    async with guarded(
        make_server, tmp_path, jwks_file=None, jwks_url="http://127.0.0.1:1/keys"
    ) as guard:
        said = await refusal(guard, guard.as_("alice"))
    assert (said.code, said.reason) == (CODE.UNAVAILABLE, "KEYS_UNAVAILABLE")
    assert said.retry_seconds is not None


async def test_no_token_appears_in_the_servers_log(guard: Guarded) -> None:
    tokens = [guard.token("alice"), guard.token("alice", aud="another"), "tla_x_secret"]
    with capture_logs() as logged:
        for token in tokens:
            await works(guard, bearing(token))
    assert not any(token in str(logged) for token in tokens)


async def test_a_probe_needs_no_token(guard: Guarded) -> None:
    health: Any = health_pb2_grpc.HealthStub(guard.server.channel)
    answer = await health.Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_needs_a_token(guard: Guarded) -> None:
    raw: Any = guard.server.channel
    list_services = b"\x3a\x01*"
    for version in ("v1", "v1alpha"):
        method = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"

        async def ask(metadata: Metadata, method: str = method) -> bytes:
            call = StreamCall(raw.stream_stream(method)(metadata=metadata))
            await call.write(list_services)
            await call.done_writing()
            answers = []
            while (answer := await call.read()) is not grpc.aio.EOF:
                answers.append(answer)
            return b"".join(answers)

        assert (await refused(ask(()))).code is CODE.UNAUTHENTICATED
        assert b"tasklogs.v1.TaskLogs" in await ask(guard.as_("alice"))


async def test_reflection_ends_unauthenticated_when_its_token_expires(guard: Guarded) -> None:
    raw: Any = guard.server.channel
    method = raw.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
    call = StreamCall(method(metadata=guard.as_("alice", expires_in=1.5)))
    await call.write(b"\x3a\x01*")
    assert b"tasklogs.v1.TaskLogs" in await call.read()
    assert (await refused(call.read())).code is CODE.UNAUTHENTICATED


async def test_a_follow_ends_unauthenticated_when_its_token_expires(guard: Guarded) -> None:
    await guard.create("alice")
    call = guard.server.logs.FollowTaskLogs(
        logs_pb.FollowTaskLogsRequest(task="alice/demo"),
        metadata=guard.as_("alice", expires_in=1.5),
    )
    events: list[str | None] = []

    async def read_all() -> None:
        async for message in call:
            events.append(message.WhichOneof("event"))

    async with asyncio.timeout(DEADLINE_SECONDS):
        said = await refused(read_all())
    assert (said.code, said.message) == (CODE.UNAUTHENTICATED, "not authenticated: token expired")
    assert "caught_up" in events


async def test_an_unread_follow_ends_too_when_its_token_expires(guard: Guarded) -> None:
    made = await guard.create("alice")
    async with ScriptedAgent.connect(guard.server, made.agent_token) as agent:
        for index in range(12):
            await agent.append([log_entry(index, "x" * 900_000)], open_epoch=index == 0)
            await agent.acked()
    token = guard.token("alice", expires_in=1.5)
    call = guard.server.logs.FollowTaskLogs(
        logs_pb.FollowTaskLogsRequest(task="alice/demo", source=SNAPSHOT), metadata=bearing(token)
    )
    messages = aiter(call)
    await anext(messages)  # the status; nothing else is read
    await until(lambda: datetime.now(UTC) > expiry_of(token))

    async def read_all() -> None:
        async for _ in messages:
            pass

    async with asyncio.timeout(DEADLINE_SECONDS):
        assert (await refused(read_all())).code is CODE.UNAUTHENTICATED


async def test_the_client_library_fetches_a_new_token_and_continues(
    guard: Guarded,
) -> None:
    made = await guard.create("alice")
    given: list[str] = []

    async def token() -> str:
        given.append(guard.token("alice", expires_in=1.5 if not given else 600))
        return given[-1]

    waits = ReconnectWaits(first=timedelta(milliseconds=5), cap=timedelta(milliseconds=50))
    async with (
        asyncio.timeout(DEADLINE_SECONDS),
        ScriptedAgent.connect(guard.server, made.agent_token) as agent,
        TaskLogsClient(guard.server.address, token=token, reconnect_waits=waits) as client,
    ):
        await agent.append([log_entry(0, "first")], open_epoch=True)
        await agent.acked()
        seen: list[str] = []
        reconnected: list[object] = []
        follow = client.follow(
            "alice/demo", source=None, on_reconnect=lambda what: reconnected.append(what)
        )
        async for event in follow:
            for change in getattr(event, "changes", ()):
                seen.append(change.entry.content)
            if isinstance(event, CaughtUp) or seen == ["first"]:
                break
        await until(lambda: datetime.now(UTC) > expiry_of(given[0]))
        await agent.append([log_entry(1, "second")])
        while "second" not in seen:
            event = await anext(follow)
            for change in getattr(event, "changes", ()):
                seen.append(change.entry.content)
        await follow.aclose()
    assert seen == ["first", "second"]
    assert len(given) == 2
    assert len(reconnected) == 2


def expiry_of(token: str) -> datetime:
    claims = jwt.decode(token, options={"verify_signature": False})
    return datetime.fromtimestamp(claims["exp"] + 1, UTC)


async def test_a_users_token_is_refused_by_the_agents_methods(guard: Guarded) -> None:
    await guard.create("alice")

    async def upload(metadata: Metadata) -> object:
        return await guard.server.agents.UploadLogSnapshot(
            agents_pb.UploadLogSnapshotRequest(), metadata=metadata
        )

    assert (await refused(upload(guard.as_("alice")))).code is CODE.PERMISSION_DENIED
    assert (await refused(upload(guard.as_("alice", aud="x")))).code is CODE.UNAUTHENTICATED
    assert (await refused(upload(()))).code is CODE.UNAUTHENTICATED


async def test_an_agents_token_is_refused_by_the_users_methods(guard: Guarded) -> None:
    made = await guard.create("alice")
    said = await refusal(guard, bearing(made.agent_token))
    assert said.code is CODE.PERMISSION_DENIED


async def test_a_token_that_is_rotated_before_hello_does_not_open_a_session(guard: Guarded) -> None:
    made = await guard.create("alice")
    call = guard.server.agents.Connect(metadata=bearing(made.agent_token))
    await call.wait_for_connection()  # the token is accepted, and the server waits for Hello
    await guard.server.tasks.RotateAgentToken(
        pb.RotateAgentTokenRequest(task="alice/demo"), metadata=guard.as_("alice")
    )
    hello = agents_pb.AgentMessage(hello=agents_pb.Hello())
    said = await refused_stream(StreamCall(call), hello)
    assert said.code is CODE.UNAUTHENTICATED
    task = await guard.server.tasks.GetTask(
        pb.GetTaskRequest(task="alice/demo"), metadata=guard.as_("alice")
    )
    assert not task.agent_connected
