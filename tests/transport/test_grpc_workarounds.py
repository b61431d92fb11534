"""A workaround whose hook is gone is logged once at start, and the server goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from structlog.testing import capture_logs

from tasklogs_server.transport import grpc_workarounds
from tests.support.fixtures.conditions import until
from tests.support.fixtures.server import MakeServer

MISSING = "grpc.workaround_missing"


async def logged_at_start(make_server: MakeServer) -> list[Any]:
    with capture_logs() as logged:
        async with make_server() as server:
            await server.create_task()
    return [entry for entry in logged if entry["event"] == MISSING]


async def test_with_the_tested_grpc_on_linux_none_is_missing(make_server: MakeServer) -> None:
    assert await logged_at_start(make_server) == []


async def test_without_the_task_that_waits_for_a_calls_end_the_log_says_what_follows(
    make_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc_workarounds, "_WAITS_FOR_THE_END", "gone")
    [entry] = await logged_at_start(make_server)
    assert (entry["log_level"], entry["workaround"]) == ("warning", "reset_calls")
    assert "held until the connection ends" in entry["consequence"]


async def test_without_a_list_of_the_processs_sockets_the_log_says_what_follows(
    make_server: MakeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(grpc_workarounds, "_OWN_FILES", tmp_path / "absent")
    [entry] = await logged_at_start(make_server)
    assert (entry["log_level"], entry["workaround"]) == ("warning", "close_connections")
    assert "CANCELLED" in entry["consequence"]


async def test_a_call_that_has_just_ended_is_reset_without_a_word(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """gRPC logs an error if its own task is cancelled before it has seen the end of the handler."""
    ended = asyncio.Event()

    def reset(call: asyncio.Task[Any]) -> None:
        grpc_workarounds.reset_calls([call])
        ended.set()

    async def handle(_: bytes, __: Any) -> bytes:
        call = asyncio.current_task()
        assert call is not None
        call.add_done_callback(reset)
        called.set()
        await asyncio.Event().wait()
        return b""

    called = asyncio.Event()
    method: Any = grpc.unary_unary_rpc_method_handler(handle)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a", {"b": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        method_of: Any = channel.unary_unary("/a/b")
        call = method_of(b"")
        await called.wait()
        call.cancel()
        await ended.wait()
        await until(lambda: not _waiting())
    await server.stop(None)
    assert caplog.messages == []
    assert "Traceback" not in capfd.readouterr().err


def _waiting() -> list[asyncio.Task[Any]]:
    name = grpc_workarounds._WAITS_FOR_THE_END
    return [one for one in asyncio.all_tasks() if getattr(one.get_coro(), "__name__", "") == name]
