from __future__ import annotations

from dataclasses import dataclass

import pytest
from structlog.testing import capture_logs

from tasklogs.publish.stream_limit import Carried, StreamLimit
from tests.agent.conftest import running_agent, until
from tests.support.fakes.agent_server import FakeServer
from tests.support.fakes.task_app import FakeTaskApp

MIB = 1 << 20
TEN_MINUTES = 600.0


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limit(clock: Clock) -> StreamLimit:
    return StreamLimit(clock)


def broke(limit: StreamLimit, sent: int, stored: int = 0, *, was_reset: bool = True) -> int | None:
    """Break a stream. Return the limit of the next one."""
    carried = limit.new_stream()
    carried.sent_bytes, carried.stored_bytes = sent, stored
    limit.broke(carried, was_reset=was_reset)
    return limit.new_stream().limit_bytes


def test_a_stream_has_no_limit_at_first(limit: StreamLimit) -> None:
    carried = limit.new_stream()
    carried.count(1 << 30, is_append=True)
    assert not carried.is_used_up(for_append=True)
    assert carried.append_bytes(3 * MIB) == 3 * MIB
    assert not carried.is_limited


def test_a_stream_that_is_reset_before_anything_was_stored_halves_the_limit(
    limit: StreamLimit,
) -> None:
    assert broke(limit, 2 * MIB) == MIB
    assert broke(limit, MIB) == MIB // 2


def test_a_small_stream_says_nothing_and_the_limit_stays_above_64_kib(limit: StreamLimit) -> None:
    assert broke(limit, 60_000) is None
    assert broke(limit, 70_000) == 65_536
    assert broke(limit, 65_536) == 65_536


def test_a_stream_that_broke_after_an_ack_must_agree_with_another_one(limit: StreamLimit) -> None:
    assert broke(limit, 1_050_000, 1_010_000) is None
    assert broke(limit, 1_060_000, 1_020_000) == 1_020_000


def test_streams_that_broke_in_unlike_places_show_no_limit(limit: StreamLimit) -> None:
    assert broke(limit, 1_050_000, 1_010_000) is None
    assert broke(limit, 5_060_000, 5_020_000) is None
    assert broke(limit, 260_000, 220_000) is None


def test_one_lost_connection_shows_no_limit(limit: StreamLimit) -> None:
    assert broke(limit, 2 * MIB, was_reset=False) is None
    assert broke(limit, 2 * MIB, was_reset=False) == MIB


def test_the_limit_doubles_every_ten_minutes_and_is_forgotten(
    limit: StreamLimit, clock: Clock
) -> None:
    broke(limit, 2 * MIB)
    clock.now += TEN_MINUTES - 1
    assert limit.new_stream().limit_bytes == MIB
    clock.now += 1
    assert limit.new_stream().limit_bytes == 2 * MIB
    assert limit.new_stream().limit_bytes == 2 * MIB
    for _ in range(6):
        clock.now += TEN_MINUTES
        grown = limit.new_stream().limit_bytes
    assert grown is None


def test_a_limited_stream_is_used_up_before_its_limit() -> None:
    carried = Carried(MIB)
    sent = 0
    while not carried.is_used_up(for_append=True):
        size = carried.append_bytes(100_000)
        carried.count(size, is_append=True)
        sent += size
    assert MIB // 2 < sent < MIB
    assert not carried.is_used_up(for_append=False)
    while not carried.is_used_up(for_append=False):
        carried.count(20, is_append=False)
    assert carried.sent_bytes < MIB


async def test_a_conversation_passes_a_proxy_that_limits_streams(
    app: FakeTaskApp, server: FakeServer
) -> None:
    server.append_bytes = 2 * MIB
    server.stream_bytes = 300_000
    app.become_ready()
    for number in range(20):
        app.say("user" if number % 2 else "agent", f"{number} " + "x" * 50_000)
    app.say("agent", "ü" * 400_000)
    shown = [message.content for message in app.messages]
    with capture_logs() as logged:
        async with running_agent(app, server):
            await until(lambda: server.store.contents == shown)
            app.redraw("other: " + shown[-1])
            await until(lambda: server.store.contents[-1] == "other: " + shown[-1])
    events = [one["event"] for one in logged]
    # 1 MiB, 512 and 256 KiB: what broke is not sent again as it was.
    assert events.count("stream_limit.found") <= 3
    assert events.count("stream.ended") == events.count("stream_limit.found")
    assert len(server.store.epochs) == 1


async def test_a_limited_stream_still_says_goodbye_and_answers_syncs(
    app: FakeTaskApp, server: FakeServer
) -> None:
    server.append_bytes = 2 * MIB
    server.stream_bytes = 300_000
    app.become_ready()
    app.say("agent", "x" * 1_000_000)
    async with running_agent(app, server) as task:
        await until(lambda: server.store.contents[-1:] == [app.tail.content])
        app.say("user", "more")
        answer = await server.sessions[-1].sync(7)
        assert answer.HasField("sync_done")
        assert server.store.contents[-1] == "more"
        task.agent.departure.want(1)  # type: ignore[attr-defined]
        await task
    assert server.sessions[-1].said_goodbye
