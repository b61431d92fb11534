"""A program that publishes while the network breaks, the server is away, or another one writes."""

# ruff: noqa: PT012 (leaving the `async with` is what raises)

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from tasklogs import (
    Entry,
    LogDiverged,
    NotStored,
    Publisher,
    PublisherClosed,
    SyncPublisher,
    TaskLogsClient,
)
from tasklogs.errors import TaskNotFound, Unauthenticated, Unavailable
from tasklogs.publish.settings import StreamSettings
from tests.support.fakes.faulty_proxy import FaultyProxy
from tests.support.fixtures.conditions import DEADLINE_SECONDS, until
from tests.support.fixtures.server import MakeServer, Server

SOON = timedelta(seconds=DEADLINE_SECONDS)
QUICK = StreamSettings(
    backoff_first_seconds=0.01,
    backoff_cap_seconds=0.05,
    superseded_wait_seconds=(0.1, 0.2),
    goodbye_timeout_seconds=DEADLINE_SECONDS,
)


@pytest.fixture
async def server(make_server: MakeServer) -> AsyncIterator[Server]:
    async with make_server() as running:
        yield running


@pytest.fixture
async def network(server: Server) -> AsyncIterator[FaultyProxy]:
    async with FaultyProxy(int(server.address.rpartition(":")[2])) as proxy:
        yield proxy


async def token_of(server: Server) -> str:
    return (await server.create_task("demo", standalone=True)).agent_token


def publisher(address: str, token: str, **options: object) -> Publisher:
    options = {"connect_timeout": SOON, "close_timeout": SOON, **options}
    log = Publisher(address, token=token, **options)  # type: ignore[arg-type]
    log._settings = QUICK
    return log


async def contents(server: Server, epoch: int | None = None) -> list[str]:
    async with TaskLogsClient(server.address, timeout=SOON) as client:
        log = await client.get("local/demo", epoch=epoch)
        return [entry.content for entry in await log.all()]


_MOST_EPOCHS = 50
"""A task may open 60 an hour."""


class Written:
    """What a program wrote: the contents of each epoch."""

    def __init__(self) -> None:
        self.epochs: list[list[str]] = [[]]

    async def write(self, log: Publisher, rng: random.Random, count: int) -> None:
        entry = None
        for number in range(count):
            match rng.randrange(12):
                case 0 if self.epochs[-1] and len(self.epochs) < _MOST_EPOCHS:
                    await log.begin_epoch()
                    self.epochs.append([])
                    entry = None
                case 1 | 2 | 3 | 4 | 5 if entry is not None:
                    text = f" {number}" * rng.choice([1, 1, 100])
                    await entry.extend(text)
                    self.epochs[-1][-1] += text
                case 6 if entry is not None:
                    await entry.replace(f"anew {number}")
                    self.epochs[-1][-1] = f"anew {number}"
                case 7:
                    await log.flush()
                case _:
                    entry = await log.begin(Entry.output(f"{number}:"))
                    self.epochs[-1].append(f"{number}:")


@pytest.mark.parametrize("seed", range(3))
async def test_nothing_is_lost_or_stored_twice_while_connections_break(
    server: Server, network: FaultyProxy, seed: int
) -> None:
    rng = random.Random(seed)
    written = Written()

    async def cutting() -> None:
        for _ in range(12):
            await asyncio.sleep(rng.uniform(0, 0.3))
            before = network.cuts
            network.cut_after(rng.randrange(1, 4000))
            await until(lambda before=before: network.cuts > before)  # type: ignore[misc]

    async with publisher(network.address, await token_of(server)) as log:
        cuts = asyncio.create_task(cutting())
        while not cuts.done():
            await written.write(log, rng, 60)
            await log.flush()
        await cuts
        await log.append(Entry.notice("the end"))
        written.epochs[-1].append("the end")
    for number, expected in enumerate(written.epochs, start=1):
        assert await contents(server, number) == expected


async def test_what_waits_is_bounded_while_the_server_is_slow(
    server: Server, network: FaultyProxy
) -> None:
    limit, size = 1_000_000, 50_000
    async with publisher(network.address, await token_of(server), max_held_bytes=limit) as log:
        await log.append(Entry.output("first"))
        await log.flush()
        network.mute()
        count = 0

        async def write() -> None:
            nonlocal count
            for number in range(100):
                await log.append(Entry.output(f"{number} " + "x" * size))
                count += 1

        writing = asyncio.create_task(write())
        await until(lambda: count * size >= limit)
        for _ in range(1000):
            await asyncio.sleep(0)
        assert count * size <= limit + 2 * size
        answer = asyncio.create_task(log.flush())
        await network.heal()
        async with asyncio.timeout(DEADLINE_SECONDS):
            await writing
            await answer
        assert len(await contents(server)) == 101


async def test_an_entry_that_grows_while_the_server_is_slow_coalesces(
    server: Server, network: FaultyProxy
) -> None:
    async with publisher(network.address, await token_of(server)) as log:
        answer = await log.begin(Entry.output("first"))
        await log.flush()
        network.mute()
        for _ in range(20_000):
            await answer.extend("x" * 100)
        await network.heal()
        await log.flush()
        (content,) = await contents(server)
        assert content == "x" * len(content)
        async with TaskLogsClient(server.address) as client:
            assert (await client.get("local/demo")).revision < 20


async def test_a_program_that_goes_on_while_the_server_is_away_loses_nothing(
    make_server: MakeServer,
) -> None:
    async with FaultyProxy(0) as network:
        async with make_server() as first:
            network.target = int(first.address.rpartition(":")[2])
            log = publisher(network.address, await token_of(first))
            await log.__aenter__()
            await log.append(Entry.output("before"))
            await log.flush()
        await log.append(Entry.output("while it was away"))
        waiting = asyncio.create_task(log.flush())
        await until(lambda: log.last_error is not None)
        assert not waiting.done()
        async with make_server() as second:
            network.target = int(second.address.rpartition(":")[2])
            async with asyncio.timeout(DEADLINE_SECONDS):
                await waiting
            assert log.last_error is None
            await log.aclose()
            assert await contents(second) == ["before", "while it was away"]


async def test_two_programs_with_one_token_do_not_mix_their_entries(server: Server) -> None:
    token = await token_of(server)
    async with publisher(server.address, token) as winner:
        with pytest.raises(LogDiverged):
            async with publisher(server.address, token) as log:
                await log.append(Entry.output("mine"))
                await log.flush()
                await winner.append(Entry.output("the other's"))
                await winner.flush()
                await log.append(Entry.output("lost"))
                async with asyncio.timeout(DEADLINE_SECONDS):
                    await log.flush()
        assert await contents(server, 1) == ["mine"]
        await winner.append(Entry.output("more"))
    assert await contents(server, 2) == ["the other's", "more"]


async def test_a_deleted_task_ends_the_publisher(server: Server) -> None:
    with pytest.raises(TaskNotFound):
        async with publisher(server.address, await token_of(server)) as log:
            await log.append(Entry.output("a"))
            await log.flush()
            async with TaskLogsClient(server.address) as client:
                await client.delete_task("local/demo")
            async with asyncio.timeout(DEADLINE_SECONDS):
                while True:
                    await log.append(Entry.output("b"))
                    await log.flush()


async def test_a_wrong_token_is_refused_at_once(server: Server) -> None:
    await token_of(server)
    with pytest.raises(Unauthenticated):
        async with publisher(server.address, "tla_wrong"):
            pass


async def test_a_refused_publisher_leaves_no_error_unread(server: Server) -> None:
    said: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    with pytest.raises(Unauthenticated):
        async with publisher(server.address, "tla_wrong"):
            pass
    gc.collect()
    assert said == []


async def test_a_server_that_is_not_there_is_unavailable(network: FaultyProxy) -> None:
    network.mute()
    with pytest.raises(Unavailable):
        async with publisher(
            network.address, "tla_any", connect_timeout=timedelta(milliseconds=50)
        ):
            pass


async def test_leaving_without_a_server_says_that_not_everything_is_stored(
    server: Server, network: FaultyProxy
) -> None:
    short = timedelta(milliseconds=50)
    with pytest.raises(NotStored):
        async with publisher(network.address, await token_of(server), close_timeout=short) as log:
            network.mute()
            await log.append(Entry.output("a"))


async def test_who_still_waits_when_it_is_closed_is_told(
    server: Server, network: FaultyProxy
) -> None:
    short = timedelta(milliseconds=50)
    with pytest.raises(NotStored):
        async with publisher(
            network.address, await token_of(server), close_timeout=short, max_held_bytes=1
        ) as log:
            network.mute()
            for _ in range(2):
                await log.append(Entry.output("a"))
            waiting = [
                asyncio.create_task(log.append(Entry.output("b"))),
                asyncio.create_task(log.flush()),
            ]
            await asyncio.sleep(0)
    async with asyncio.timeout(DEADLINE_SECONDS):
        await asyncio.wait(waiting)
    for one in waiting:
        with pytest.raises(PublisherClosed):
            one.result()


async def test_the_error_of_the_body_is_not_hidden(server: Server, network: FaultyProxy) -> None:
    short = timedelta(milliseconds=50)
    with pytest.raises(ZeroDivisionError):
        async with publisher(network.address, await token_of(server), close_timeout=short) as log:
            network.mute()
            await log.append(Entry.output("a"))
            raise ZeroDivisionError


async def test_a_sync_calls_the_program(server: Server) -> None:
    token = await token_of(server)
    written: list[str] = []

    async def look() -> None:
        written.append(f"{len(written)}")
        await log.append(Entry.output(written[-1]))

    async with publisher(server.address, token, on_sync=look) as log:
        for _ in range(5):
            assert await contents(server) == written


async def test_a_callback_that_fails_fails_the_read_without_its_text(server: Server) -> None:
    def look() -> None:
        raise ValueError("a secret")

    async with publisher(server.address, await token_of(server), on_sync=look) as log:
        await log.append(Entry.output("a"))
        with pytest.raises(Unavailable, match="ValueError") as caught:
            await contents(server)
        assert "secret" not in str(caught.value)


async def test_the_synchronous_face_writes_the_same(server: Server) -> None:
    token = await token_of(server)

    def program() -> None:
        with SyncPublisher(server.address, token=token, connect_timeout=SOON) as log:
            log.append(Entry.input("a question"))
            answer = log.begin(Entry.output())
            for text in ("an ", "answer"):
                answer.extend(text)
            log.flush()
            log.begin_epoch()
            log.append(Entry.input("another one"))

    await asyncio.to_thread(program)
    assert await contents(server, 1) == ["a question", "an answer"]
    assert await contents(server) == ["another one"]
