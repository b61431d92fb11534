"""Graceful restarts under load: nothing is lost, and callers are told only to try again.

Restarts three times. For more: TASKLOGS_TEST_RESTARTS=20.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest

from tests.support.fixtures.ports import lasting_port
from tests.support.fixtures.postgres import PostgresServer
from tests.support.fixtures.refusals import Refusal
from tests.system.end_to_end.load import (
    Load,
    everything_works,
    loaded,
    nothing_is_lost,
    reached,
)
from tests.system.end_to_end.programs import program, serve_command

RESTARTS = int(os.environ.get("TASKLOGS_TEST_RESTARTS", "3"))
DRAIN_SECONDS = 3.0
# The longest drain, the grace period of gRPC's stop, the final commits, and a busy machine.
ENDED_SECONDS = DRAIN_SECONDS + 0.5 + 3.0 + 5.0


@pytest.mark.timeout(60 + 20 * RESTARTS)
async def test_restarts_under_load_lose_nothing_and_tell_readers_only_to_retry(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    port = lasting_port()
    address = f"127.0.0.1:{port}"
    async with AsyncExitStack() as stack:
        process = await stack.enter_async_context(
            program(
                tmp_path / "server.log",
                *serve_command(port, postgres_server.dsn()),
                TASKLOGS_DRAIN_TIMEOUT=str(DRAIN_SECONDS),
            )
        )
        server = await stack.enter_async_context(reached(address, postgres_server.dsn()))
        load = await stack.enter_async_context(
            loaded(server, tasks=4, readers=40, followers=20, connections=15, patient=True)
        )
        took = []
        for _ in range(RESTARTS):
            await everything_works(server, load, lambda: True)
            began = time.monotonic()
            assert await process.end() == 0
            took.append(time.monotonic() - began)
            await process.start()
            load.check()
        await everything_works(server, load, lambda: True)
        await nothing_is_lost(server, load)

    report(load, took)
    assert max(took) < ENDED_SECONDS
    assert "Traceback" not in process.said
    assert any(one.reason == "DRAINING" for one in refusals(load))
    assert any(one.reason == "DRAINING" for one in load.ends)
    for refusal in refusals(load) + load.ends:
        assert refusal.code is grpc.StatusCode.UNAVAILABLE, refusal
        assert refusal.retry_seconds is not None or is_the_callers_own(refusal), refusal


def refusals(load: Load) -> list[Refusal]:
    return [one.refusal for one in load.answers if one.refusal is not None]


def is_the_callers_own(refusal: Refusal) -> bool:
    """Whether the caller's own channel made the refusal because nothing listens."""
    return not refusal.details and "connect" in refusal.message


def report(load: Load, took: list[float]) -> None:
    kinds = Counter(
        (one.code.name, one.reason, "" if one.details else one.message)
        for one in refusals(load) + load.ends
    )
    print(  # noqa: T201 (the figures, for runs by hand)
        f"{len(took)} restarts, each drained in {min(took):.2f} to {max(took):.2f} s;"
        f" {len(load.answers)} calls, {len(load.ends)} follows ended;"
        f" the slowest answer took {max(one.seconds for one in load.answers):.2f} s"
    )
    for kind, count in kinds.most_common():
        print(count, *kind)  # noqa: T201
