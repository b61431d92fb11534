"""Calls are accepted as they arrive, so a caller with hundreds of calls delays no other caller."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from tasklogs.v1 import task_logs_pb2
from tasklogs_server.transport import call_acceptor
from tests.support.fixtures.server import MakeServer
from tests.system.hostile.frames import Kind
from tests.transport.raw_peer import RawPeer

READ = task_logs_pb2.GetTaskLogsRequest(task="local/demo")
REQUEST = READ.SerializeToString()
MANY = 400


async def test_a_call_does_not_wait_for_hundreds_that_another_caller_has_begun(
    make_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call_acceptor, "ACCEPTS", MANY)  # all of them arrive in one turn
    # Without authentication, each connection is a caller.
    async with make_server(reads=8) as server:
        await server.create_task()
        with RawPeer.connected(server) as busy, RawPeer.connected(server) as other:
            for _ in range(MANY):
                busy.call(REQUEST)
            busy.has_arrived()
            other.call(REQUEST)
            other.has_arrived()

            def headers_before_the_other() -> int:
                other.streams_of(Kind.HEADERS, 1)
                return busy.received(Kind.HEADERS)

            # In one go: the loop goes on to answer.
            headers_before = await asyncio.to_thread(headers_before_the_other)

    # Each answer has two of them: fewer than half of the calls were answered before.
    assert headers_before < MANY


async def test_with_another_grpc_calls_are_answered_and_the_log_says_what_follows(
    make_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call_acceptor, "_NEEDED", ("gone",))
    with capture_logs() as logged:
        async with make_server() as server:
            await server.create_task()
    [entry] = [one for one in logged if one["event"] == "grpc.workaround_missing"]
    assert (entry["log_level"], entry["workaround"]) == ("warning", "CallAcceptor")
    assert "one caller can delay all others" in entry["consequence"]
