"""A workaround whose hook is gone is logged once at start, and the server goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tasklogs_server.transport import grpc_workarounds
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
