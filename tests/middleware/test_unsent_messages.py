"""I7: follows whose callers do not read share one budget of bytes, and end after a time."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Self

import pytest

from tasklogs import TaskLogsClient
from tasklogs.v1 import task_logs_pb2 as pb
from tasklogs_server.concurrency.background import background
from tasklogs_server.domain.caller import LOCAL
from tasklogs_server.domain.errors import LimitExceeded
from tasklogs_server.domain.limits import Limit
from tasklogs_server.middleware.handlers import Call
from tasklogs_server.middleware.responses import Responses
from tasklogs_server.middleware.unsent_messages import UnsentMessages
from tasklogs_server.telemetry.observer import Observer
from tests.middleware.unread_responses import FOLLOW_WINDOW_BYTES, PAGE_BYTES, Reader, follow
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry
from tests.support.fixtures.conditions import DEADLINE_SECONDS, until
from tests.support.fixtures.reports import get_task, make_active
from tests.support.fixtures.server import MakeServer, Server
from tests.system.end_to_end.followed_events import following
from tests.telemetry.test_metrics import scrape

MIB = 1024 * 1024


@asynccontextmanager
async def busy_tail(server: Server) -> AsyncIterator[ScriptedAgent]:
    """Create `local/demo` with a tail that fills a page; see `redraw`."""
    token = (await server.create_task()).agent_token
    await make_active(server)
    async with ScriptedAgent.connect(server, token) as agent:
        agent.answer_syncs()
        await agent.append([log_entry(0, "x" * PAGE_BYTES)], open_epoch=True)
        await agent.acked()
        yield agent


async def redraw(agent: ScriptedAgent, text: str) -> None:
    """Replace the whole tail: it begins with `text`, and each text makes another tail."""
    await agent.append([log_entry(0, text.ljust(PAGE_BYTES, "."))])
    await agent.acked()


@pytest.fixture
def without_collector() -> Iterator[None]:
    """What refers to itself is not freed: the memory of a call that ended must not wait for it."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def test_a_follower_that_takes_nothing_is_told_to_come_back(make_server: MakeServer) -> None:
    async with (
        make_server(metrics_listen="0", answer_timeout=timedelta(seconds=1)) as server,
        busy_tail(server),
        Reader.connected(server) as reader,
    ):
        stream = await follow(reader)

        async def is_ended() -> bool:
            return (await scrape(server))("tasklogs_limited_total", limit=Limit.ANSWER_TIMEOUT) >= 1

        await until(is_ended)
        await reader.grant_window(stream)
        await reader.until(lambda: stream in reader.ended)

        assert reader.ended[stream] is None  # with a status, after the message
        assert reader.received[stream] > PAGE_BYTES


@pytest.mark.usefixtures("without_collector")
async def test_a_follower_that_never_reads_again_is_reset(make_server: MakeServer) -> None:
    async with (
        make_server(metrics_listen="0", answer_timeout=timedelta(seconds=0.5)) as server,
        busy_tail(server),
        Reader.connected(server) as reader,
    ):
        stream = await follow(reader)

        async def is_ended() -> bool:
            await get_task(server)  # gRPC keeps the last call until the next one comes
            return stream in reader.ended

        await until(is_ended)

        assert reader.received[stream] <= FOLLOW_WINDOW_BYTES
        assert (await scrape(server))("tasklogs_untaken_answer_bytes") < PAGE_BYTES


@pytest.mark.usefixtures("without_collector")
async def test_followers_are_reset_for_those_that_wait(make_server: MakeServer) -> None:
    async with (
        make_server(answer_bytes=16 * MIB) as server,
        busy_tail(server),
        Reader.connected(server) as reader,
    ):
        for _ in range(6):
            await follow(reader)

        async def are_ended() -> bool:
            await get_task(server)
            return len(reader.ended) >= 3  # the other three hold a quarter

        await until(are_ended)


async def test_a_client_that_stops_reading_resumes_without_gap_or_repeat(
    make_server: MakeServer,
) -> None:
    async with (
        make_server(metrics_listen="0", answer_timeout=timedelta(seconds=0.5)) as server,
        busy_tail(server) as agent,
        TaskLogsClient(server.address) as client,
        following(client, "local/demo", deltas=True) as stalled,
    ):
        await stalled.until_caught_up()
        stalled.reads_on.clear()
        number = 1

        async def is_ended() -> bool:
            nonlocal number
            number += 1
            await agent.append([log_entry(number, "y" * PAGE_BYTES)])
            await agent.acked()
            return (await scrape(server))("tasklogs_limited_total", limit=Limit.ANSWER_TIMEOUT) >= 1

        await until(is_ended)
        revision = (await client.get_task("local/demo")).log.revision

        stalled.reads_on.set()
        await stalled.reached(revision)

        entries = stalled.of_epoch(1)
        assert sorted(entries) == [0, *range(2, number + 1)]
        # Each entry once; those of the message that the stream ended with may come again.
        assert stalled.changes <= 2 * number


async def test_followers_that_read_nothing_hold_no_more_than_their_part(
    make_server: MakeServer,
) -> None:
    """20 followers, each at another change of the tail: 18 MB encoded, and as much in gRPC."""
    async with (
        make_server(metrics_listen="0", answer_bytes=16 * MIB) as server,
        busy_tail(server) as agent,
        TaskLogsClient(server.address) as client,
        AsyncExitStack() as stack,
    ):
        reads = await stack.enter_async_context(following(client, "local/demo"))
        await reads.until_caught_up()
        most = waiting = 0.0
        for _ in range(2):
            reader = await stack.enter_async_context(Reader.connected(server))
            for number in range(10):
                await follow(reader)
                await redraw(agent, str(number))
                seen = await scrape(server)
                most = max(most, seen("tasklogs_untaken_answer_bytes"))
                waiting = max(waiting, seen("tasklogs_follows_waiting"))
        # It holds less than its half before it takes the last message.
        assert 4 * MIB < most <= 8 * MIB + 2 * (PAGE_BYTES + MIB)
        assert waiting
        revision = (await client.get_task("local/demo")).log.revision
        await reads.reached(revision)
        assert not reads.reconnects

        # A unary call still gets its answer.
        answer = await server.logs.GetTaskLogs(
            pb.GetTaskLogsRequest(task="local/demo", source=pb.LOG_SOURCE_SNAPSHOT)
        )
        assert len(answer.logs[0].content) == PAGE_BYTES


class Caller:
    """A caller on its own connection. It reads as many messages as a test lets it."""

    def __init__(self, name: str, *, reads: int = 0) -> None:
        self.name = name
        self.reads = asyncio.Semaphore(reads)
        self.read = 0

    def peer(self) -> str:
        return self.name

    async def write(self, _: bytes) -> None:
        await self.reads.acquire()
        self.read += 1


class Limited(Observer):
    """Records the limits that it is told of."""

    def __init__(self) -> None:
        self.limits: list[str] = []

    def limited(self, limit: str) -> None:
        self.limits.append(limit)


@dataclass
class Budget:
    """A budget, and the calls that send within it."""

    responses: Responses
    unsent: UnsentMessages
    observer: Limited
    calls: dict[Call, Caller] = field(default_factory=dict)

    @classmethod
    @asynccontextmanager
    async def of(cls, limit_bytes: int, within: timedelta) -> AsyncIterator[Self]:
        observer = Limited()
        responses = Responses(limit_bytes, within, reset=reset_calls, observer=observer)
        budget = cls(responses, UnsentMessages(responses), observer)
        async with background(responses.cut_off()):
            yield budget
            for call in budget.calls:
                call.cancel()
            if budget.calls:
                await asyncio.wait(budget.calls)
        assert responses.held_bytes == 0
        assert responses.stream_bytes == 0
        assert budget.unsent.waiting == 0

    def sends(self, caller: Caller, size_bytes: int, *, times: int = 1) -> Call:
        """Begin a call that sends messages of this size."""

        async def send() -> None:
            context: Any = caller
            woken = asyncio.Event()
            with self.unsent.stream(LOCAL, context) as stream:
                for _ in range(times):
                    while not stream.acquire(size_bytes, woken):
                        await woken.wait()
                        woken.clear()
                    await stream.write(context, b"x" * (size_bytes // 2))
                stream.release()

        call = asyncio.create_task(send())
        self.calls[call] = caller
        return call


def reset_calls(calls: Collection[Call]) -> None:
    for call in calls:
        call.cancel()


async def test_a_caller_that_reads_does_not_wait_behind_the_streams_of_another() -> None:
    async with Budget.of(80 * MIB, timedelta(minutes=1)) as budget:
        crowd, other = Caller("crowd"), Caller("other", reads=50)
        for _ in range(100):
            budget.sends(crowd, MIB)
        await until(lambda: budget.unsent.waiting == 80)  # a quarter is held: 20

        await asyncio.wait_for(budget.sends(other, MIB, times=50), DEADLINE_SECONDS)

        assert other.read == 50
        assert budget.responses.stream_bytes == 20 * MIB


async def test_small_messages_do_not_wait_behind_large_ones_of_the_same_caller() -> None:
    async with Budget.of(80 * MIB, timedelta(minutes=1)) as budget:
        for _ in range(30):
            budget.sends(Caller("gateway"), MIB)
        await until(lambda: budget.unsent.waiting == 10)

        small = budget.sends(Caller("gateway", reads=50), 1000, times=50)

        await asyncio.wait_for(small, DEADLINE_SECONDS)
        assert budget.observer.limits == []


async def test_small_messages_have_room_beyond_that_of_large_ones() -> None:
    async with Budget.of(80 * MIB, timedelta(minutes=1)) as budget:
        for number in range(4):
            for _ in range(20):
                budget.sends(Caller(f"crowd {number}"), MIB)
        await until(lambda: budget.responses.stream_bytes == 40 * MIB)  # the half
        other = Caller("other", reads=50)

        await asyncio.wait_for(budget.sends(other, 1000, times=50), DEADLINE_SECONDS)

        assert budget.observer.limits == []


async def test_streams_wait_no_longer_than_for_those_that_are_slow() -> None:
    """Six streams, and room for two."""
    async with Budget.of(8 * MIB, timedelta(minutes=1)) as budget:
        caller = Caller("slow")
        calls = [budget.sends(caller, MIB) for _ in range(6)]
        await until(lambda: budget.unsent.waiting == 4)

        await asyncio.wait(calls[:2], timeout=DEADLINE_SECONDS)

        assert [call.done() for call in calls[:2]] == [True, True]  # the oldest
        assert not calls[5].done()
        assert set(budget.observer.limits) == {Limit.ANSWER_BYTES}


async def test_a_follower_that_reads_slowly_is_not_ended_for_those_that_wait() -> None:
    async with Budget.of(8 * MIB, timedelta(minutes=1)) as budget:
        slow, stuck = Caller("one connection"), Caller("one connection")
        reads = budget.sends(slow, MIB, times=3)
        await until(lambda: budget.responses.stream_bytes > 0)
        await looks(budget, 2)
        slow.reads.release()  # it takes a message that had waited for it
        await until(lambda: slow.read == 1)
        calls = [budget.sends(stuck, MIB) for _ in range(6)]

        await asyncio.wait(calls, timeout=DEADLINE_SECONDS, return_when=asyncio.FIRST_COMPLETED)

        assert not reads.done()


async def test_a_stream_whose_caller_takes_nothing_ends_with_the_limit() -> None:
    async with Budget.of(8 * MIB, timedelta(seconds=0.3)) as budget:
        call = budget.sends(Caller("gone"), MIB)

        with pytest.raises(LimitExceeded) as raised:
            await asyncio.wait_for(call, DEADLINE_SECONDS)

        assert raised.value.limit is Limit.ANSWER_TIMEOUT
        assert raised.value.retry_after is not None


async def test_a_stream_that_ends_while_it_waits_leaves_the_queue() -> None:
    async with Budget.of(8 * MIB, timedelta(minutes=1)) as budget:
        caller = Caller("slow")
        calls = [budget.sends(caller, MIB) for _ in range(4)]
        await until(lambda: budget.unsent.waiting == 2)
        calls[2].cancel()
        await until(lambda: budget.unsent.waiting == 1)
        for _ in range(3):
            caller.reads.release()

        await asyncio.wait_for(calls[3], DEADLINE_SECONDS)


async def looks(budget: Budget, count: int) -> None:
    """Wait for so many looks at what is unread."""
    seen, wanted = 0, asyncio.Event()
    before = budget.responses.on_look

    def look() -> None:
        nonlocal seen
        seen += 1
        before()
        if seen >= count:
            wanted.set()

    budget.responses.on_look = look
    await asyncio.wait_for(wanted.wait(), DEADLINE_SECONDS)
    budget.responses.on_look = before


async def test_the_turn_of_a_follow_that_waited_is_for_its_messages_not_for_its_read() -> None:
    """A follow holds little while it reads the store, then what it sends."""
    read_bytes, page_bytes, lagging = 64 * 1024, 2 * MIB, 100
    reads = 0
    async with Budget.of(16 * MIB, timedelta(minutes=1)) as budget:

        async def follow_behind(caller: Any) -> None:
            nonlocal reads
            woken = asyncio.Event()
            with budget.unsent.stream(LOCAL, caller) as stream:
                while True:
                    woken.clear()
                    if not stream.is_waiting and stream.acquire(read_bytes, woken):
                        reads += 1
                        await asyncio.sleep(0)
                        if stream.acquire(page_bytes, woken):
                            await stream.write(caller, b"x")
                            stream.release()
                            return
                    if stream.is_waiting:
                        await woken.wait()

        for _ in range(lagging):
            caller = Caller("gateway", reads=1)
            budget.calls[asyncio.create_task(follow_behind(caller))] = caller
        async with asyncio.timeout(DEADLINE_SECONDS):
            await asyncio.wait(budget.calls)
    assert reads <= 2 * lagging


async def test_small_messages_of_one_caller_do_not_wait_behind_large_ones_of_another() -> None:
    async with Budget.of(80 * MIB, timedelta(minutes=1)) as budget:
        stuck, small = Caller("a"), Caller("b")
        for _ in range(21):
            budget.sends(stuck, MIB)
        await until(lambda: budget.unsent.waiting == 1)
        for _ in range(20):
            budget.sends(Caller("b"), MIB)
        for _ in range(60):
            budget.sends(small, 200 * 1024)
        await until(lambda: budget.unsent.waiting > 2)
        before = budget.unsent.waiting
        for _ in range(10):
            small.reads.release()
        await until(lambda: budget.unsent.waiting < before)


async def test_many_followers_of_one_connection_that_read_all_get_a_large_log(
    make_server: MakeServer,
) -> None:
    async with make_server(answer_bytes=16 * MIB) as server, busy_tail(server):

        async def first_entries() -> None:
            request = pb.FollowTaskLogsRequest(task="local/demo", source=pb.LOG_SOURCE_SNAPSHOT)
            call = server.logs.FollowTaskLogs(request)
            try:
                async for message in call:
                    if message.WhichOneof("event") == "entries":
                        return
            finally:
                call.cancel()

        async with asyncio.timeout(DEADLINE_SECONDS):
            await asyncio.gather(*(first_entries() for _ in range(120)))
