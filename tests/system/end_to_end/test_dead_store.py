"""Postgres goes away under load. Calls are refused at once, health says so, and after its return
everything works again soon.

Takes a few seconds. To keep Postgres away for longer: TASKLOGS_TEST_AWAY_SECONDS=60.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.fakes.faulty_proxy import FaultyProxy
from tests.support.fixtures.conditions import until
from tests.support.fixtures.pace import pace_of
from tests.support.fixtures.ports import lasting_port
from tests.support.fixtures.postgres import PostgresServer
from tests.system.end_to_end.load import (
    Load,
    everything_works,
    loaded,
    nothing_is_lost,
    reached,
)
from tests.system.end_to_end.programs import program, serve_command

AWAY_SECONDS = float(os.environ.get("TASKLOGS_TEST_AWAY_SECONDS", "5"))
# The server asks Postgres at least every 0.5 s and gives it up after 2.2 s without an answer. The
# rest of the bound is for a busy machine.
NOTICED_SECONDS = 2.7 + 2.0
AT_ONCE_SECONDS = 1.0
BACK_SECONDS = 5.0
BACK_WAYS = 4
"""Steps in sequence, each through another process and a commit: dial, Welcome, sync, read."""
SERVING = health_pb2.HealthCheckResponse.SERVING


@dataclass
class Health:
    """What a Watch of the health service received, and when."""

    told: list[tuple[float, bool]] = field(default_factory=list)

    @property
    def is_serving(self) -> bool:
        return bool(self.told) and self.told[-1][1]

    async def watch(self, channel: grpc.aio.Channel) -> None:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        async for answer in stub.Watch(health_pb2.HealthCheckRequest()):
            self.told.append((time.monotonic(), answer.status == SERVING))


@dataclass
class Outage:
    """How to take the store away and bring it back. `dsn` is what the server connects to."""

    dsn: str
    leave: Callable[[], Awaitable[None]]
    come_back: Callable[[], Awaitable[None]]
    is_silent: bool = False
    """Whether the store is silent instead of refusing connections."""


@asynccontextmanager
async def outage(kind: str, postgres: PostgresServer) -> AsyncIterator[Outage]:
    async def on_a_thread(do: Callable[[], None]) -> None:
        await asyncio.to_thread(do)

    dsn = postgres.dsn()
    match kind:
        case "stopped" | "killed":
            leave = postgres.stop if kind == "stopped" else postgres.kill
            yield Outage(dsn, lambda: on_a_thread(leave), lambda: on_a_thread(postgres.start))
        case "frozen":
            try:
                yield Outage(
                    dsn,
                    lambda: on_a_thread(postgres.freeze),
                    lambda: on_a_thread(postgres.thaw),
                    is_silent=True,
                )
            finally:
                postgres.thaw()
        case "half open":
            [(directory, port)] = re.findall(r"host=([^&]+)&port=(\d+)", dsn)
            async with FaultyProxy(Path(directory) / f".s.PGSQL.{port}") as network:

                async def mute() -> None:
                    network.mute(swallow=True)

                through = f"postgresql://postgres@127.0.0.1:{network.port}/tasklogs"
                yield Outage(through, mute, network.heal, is_silent=True)


@pytest.mark.parametrize("kind", ["stopped", "killed", "frozen", "half open"])
@pytest.mark.timeout(AWAY_SECONDS + 120)
async def test_calls_are_refused_at_once_without_the_store_and_work_soon_after_its_return(
    kind: str, postgres_server: PostgresServer, database: str, tmp_path: Path
) -> None:
    port = lasting_port()
    async with AsyncExitStack() as stack:
        pace = await stack.enter_async_context(pace_of(database))  # on another Postgres server
        store = await stack.enter_async_context(outage(kind, postgres_server))
        await stack.enter_async_context(
            program(tmp_path / "server.log", *serve_command(port, store.dsn))
        )
        server = await stack.enter_async_context(reached(f"127.0.0.1:{port}", store.dsn))
        health = Health()
        watching = asyncio.create_task(health.watch(server.channel), name="a watch of health")
        stack.callback(watching.cancel)
        load = await stack.enter_async_context(
            loaded(server, tasks=4, readers=12, followers=8, connections=6, patient=False)
        )
        await everything_works(server, load, lambda: health.is_serving)

        left_at = time.monotonic()
        await store.leave()
        gone_at = time.monotonic()
        await until(lambda: not health.is_serving)
        await asyncio.sleep(max(0.0, left_at + AWAY_SECONDS - time.monotonic()))
        load.check()

        back_at = time.monotonic()
        await store.come_back()
        returned_at = time.monotonic()
        await everything_works(server, load, lambda: health.is_serving)
        flowed_at = time.monotonic()
        await nothing_is_lost(server, load)

    told_at = next(when for when, serves in health.told if when > left_at and not serves)
    report(load, kind, left_at, gone_at, told_at, back_at, returned_at, flowed_at)
    busy_seconds = pace.slowest_since(left_at)
    at_once = AT_ONCE_SECONDS + busy_seconds
    grace = NOTICED_SECONDS + busy_seconds if store.is_silent else at_once
    assert told_at - gone_at < grace
    for one in load.between(left_at - grace, back_at):
        assert one.seconds < grace + at_once
    refused = load.between(max(gone_at, told_at), back_at)
    assert refused
    for one in refused:
        # Just before the return a live read may be answered, or refused because no agent is there.
        if one.began + one.seconds < back_at:
            assert one.refusal is not None
            assert one.refusal.reason == "STORE_UNAVAILABLE"
            assert one.seconds < at_once
    for refusal in [one.refusal for one in load.answers] + list(load.ends):
        if refusal is not None:
            assert refusal.code is grpc.StatusCode.UNAVAILABLE, refusal
            assert refusal.retry_seconds is not None, refusal
    assert flowed_at - returned_at < BACK_SECONDS + BACK_WAYS * busy_seconds


def report(load: Load, kind: str, *times: float) -> None:
    left_at, gone_at, told_at, back_at, returned_at, flowed_at = times
    away = load.between(left_at, back_at)
    known = load.between(told_at, back_at)
    first_good = min(
        (
            one.began + one.seconds
            for one in load.answers
            if one.refusal is None and one.began + one.seconds > returned_at
        ),
        default=float("nan"),
    )
    print(  # noqa: T201 (the figures, for runs by hand)
        f"{kind}: away {back_at - left_at:.1f} s, {len(away)} calls meanwhile;"
        f" health changed after {told_at - gone_at:.2f} s;"
        f" longest answer {max(one.seconds for one in away):.2f} s,"
        f" after that {max((one.seconds for one in known), default=0):.3f} s;"
        f" first successful read {first_good - returned_at:.2f} s,"
        f" everything worked {flowed_at - returned_at:.2f} s after the return"
    )
