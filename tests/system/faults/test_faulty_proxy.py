"""The faulty network of the tests: each fault does what its name says, and can be undone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.fakes import faulty_proxy
from tests.support.fakes.faulty_proxy import Direction, FaultyProxy
from tests.support.fakes.stream_server import StreamServer
from tests.support.fixtures.conditions import DEADLINE_SECONDS, until

_SOON_SECONDS = 0.05


@dataclass
class Echo:
    """Sends back what it receives, and keeps it."""

    heard: list[bytes] = field(default_factory=list)
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            self.heard.append(data)
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def echoing(path: Path | None = None) -> AsyncIterator[Echo]:
    echo = Echo()
    server = StreamServer(echo.serve)
    if path is None:
        await server.start()
    else:
        await server.start_unix(path)
    echo.port = server.port
    try:
        yield echo
    finally:
        await server.stop()


@dataclass
class Caller:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    @asynccontextmanager
    async def of(cls, network: FaultyProxy) -> AsyncIterator[Caller]:
        reader, writer = await asyncio.open_connection("127.0.0.1", network.port)
        try:
            yield cls(reader, writer)
        finally:
            writer.transport.abort()

    def say(self, words: bytes) -> None:
        self.writer.write(words)

    async def hears(self, words: bytes) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert await self.reader.readexactly(len(words)) == words

    async def hears_nothing(self) -> None:
        hearing = asyncio.create_task(self.reader.read(1))
        done, _ = await asyncio.wait([hearing], timeout=_SOON_SECONDS)
        assert not done
        hearing.cancel()
        await asyncio.wait([hearing])

    async def is_cut(self) -> None:
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            async with asyncio.timeout(DEADLINE_SECONDS):
                await self.reader.readexactly(1)


async def test_without_a_fault_bytes_and_ends_pass_both_ways() -> None:
    large = b"x" * 5_000_000
    async with echoing() as echo, FaultyProxy(echo.port) as network, Caller.of(network) as caller:
        caller.say(large)
        await caller.hears(large)
        caller.writer.write_eof()
        assert await caller.reader.read() == b""
        await until(lambda: network.open_connections == 0)


async def test_the_target_can_be_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "echo"
    async with echoing(path), FaultyProxy(path) as network, Caller.of(network) as caller:
        caller.say(b"hello")
        await caller.hears(b"hello")


async def test_a_cut_resets_every_connection_and_the_next_one_works() -> None:
    async with echoing() as echo, FaultyProxy(echo.port) as network:
        async with Caller.of(network) as one, Caller.of(network) as other:
            for caller in (one, other):
                caller.say(b"hello")
                await caller.hears(b"hello")
            network.cut()
            await one.is_cut()
            await other.is_cut()
        async with Caller.of(network) as next_one:
            next_one.say(b"hello")
            await next_one.hears(b"hello")


@pytest.mark.parametrize("everyone", [True, False])
async def test_a_cut_inside_a_message_delivers_its_beginning(everyone: bool) -> None:
    async with (
        echoing() as echo,
        FaultyProxy(echo.port) as network,
        Caller.of(network) as one,
        Caller.of(network) as other,
    ):
        network.cut_after(3, Direction.TO_TARGET, everyone=everyone)
        one.say(b"hello")
        await until(lambda: echo.heard == [b"hel"])
        await one.is_cut()
        if everyone:
            await other.is_cut()
        else:
            other.say(b"hello")
            await other.hears(b"hello")
        assert network.cuts == 1


@pytest.mark.parametrize("passes", [True, False])
async def test_a_cut_at_a_marker_loses_the_message_or_only_its_answer(passes: bool) -> None:
    async with (
        echoing() as echo,
        FaultyProxy(echo.port) as network,
        Caller.of(network) as one,
        Caller.of(network) as other,
    ):
        network.cut_at(b"commit", passes=passes)
        one.say(b"begin")
        await one.hears(b"begin")
        one.say(b"commit")
        await one.is_cut()
        assert echo.heard == ([b"begin", b"commit"] if passes else [b"begin"])
        other.say(b"commit")
        await other.hears(b"commit")


async def test_muted_bytes_are_held_back_until_healing_also_on_new_connections() -> None:
    async with echoing() as echo, FaultyProxy(echo.port) as network, Caller.of(network) as old:
        network.mute()
        async with Caller.of(network) as new:
            for caller in (old, new):
                caller.say(b"hello")
                await caller.hears_nothing()
            await network.heal()
            await old.hears(b"hello")
            await new.hears(b"hello")


async def test_one_direction_can_be_muted_alone() -> None:
    async with echoing() as echo, FaultyProxy(echo.port) as network, Caller.of(network) as caller:
        network.mute(Direction.TO_CALLER)
        caller.say(b"hello")
        await until(lambda: echo.heard == [b"hello"])
        await caller.hears_nothing()


async def test_swallowed_bytes_are_lost_and_healing_resets_those_connections() -> None:
    async with (
        echoing() as echo,
        FaultyProxy(echo.port) as network,
        Caller.of(network) as one,
        Caller.of(network) as other,
    ):
        network.mute(swallow=True)
        one.say(b"hello")
        await one.hears_nothing()
        await network.heal()
        await one.is_cut()
        other.say(b"hi")
        await other.hears(b"hi")
        assert echo.heard == [b"hi"]


async def test_different_delays_change_the_order_between_connections() -> None:
    async with (
        echoing() as echo,
        FaultyProxy(echo.port) as network,
        Caller.of(network) as first,
        Caller.of(network) as second,
    ):
        for caller in (first, second):
            caller.say(b"?")
            await caller.hears(b"?")
        network.delay(lambda number: 0.5 if number == 1 else 0.0, Direction.TO_TARGET)
        first.say(b"sent first")
        second.say(b"sent second")
        await first.hears(b"sent first")
        assert echo.heard[2:] == [b"sent second", b"sent first"]


async def test_a_delayed_sender_is_blocked_beyond_a_bound() -> None:
    async with echoing() as echo, FaultyProxy(echo.port) as network, Caller.of(network) as caller:
        network.delay(0.1)
        large = b"x" * 10_000_000
        caller.say(large)
        await caller.hears(large)


async def test_a_stranded_connection_delivers_its_bytes_late_and_then_ends() -> None:
    async with echoing() as echo, FaultyProxy(echo.port) as network:
        async with Caller.of(network) as stranded:
            stranded.say(b"early")
            await stranded.hears(b"early")
            network.mute(Direction.TO_TARGET)
            stranded.say(b"late")
            await until(lambda: network.held_bytes == 4)
            network.strand()
            await stranded.is_cut()
        async with Caller.of(network) as next_one:
            next_one.say(b"between")
            await next_one.hears(b"between")
            assert network.open_connections == 2
            await network.heal()
            await until(lambda: echo.heard == [b"early", b"between", b"late"])
            await until(lambda: network.open_connections == 1)


async def test_connections_are_refused_until_it_heals_on_the_same_port() -> None:
    async with echoing() as echo, FaultyProxy(echo.port) as network, Caller.of(network) as old:
        await network.refuse()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", network.port)
        old.say(b"hello")
        await old.hears(b"hello")
        await network.heal()
        async with Caller.of(network) as new:
            new.say(b"hello")
            await new.hears(b"hello")


async def test_a_missing_target_cuts_connections_and_can_be_replaced() -> None:
    async with echoing() as one, echoing() as other, FaultyProxy(one.port) as network:
        network.target = Path("/nonexistent")
        async with Caller.of(network) as caller:
            await caller.is_cut()
        network.target = other.port
        async with Caller.of(network) as caller:
            caller.say(b"hello")
            await caller.hears(b"hello")
    assert other.heard == [b"hello"]


async def test_a_connection_that_is_cut_before_its_target_is_dialled_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    accepted = faulty_proxy._Link.accepted

    def accept_and_cut(self: faulty_proxy._Link) -> None:
        accepted(self)
        self.cut()

    monkeypatch.setattr(faulty_proxy._Link, "accepted", accept_and_cut)
    async with (
        asyncio.timeout(DEADLINE_SECONDS),
        echoing() as echo,
        FaultyProxy(echo.port) as network,
        Caller.of(network) as caller,
    ):
        with pytest.raises(ConnectionResetError):
            await caller.reader.read()
