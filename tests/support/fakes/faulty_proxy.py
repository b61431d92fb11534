"""A network that fails on command: a proxy between callers on loopback and one server.

    async with FaultyProxy(server_port) as network:         # or the path of a unix socket
        channel = grpc.aio.insecure_channel(network.address)
        network.delay(0.2)
        network.cut_after(1000, Direction.TO_CALLER)
        network.heal()

Each fault affects all connections, also new ones, unless it says otherwise. `heal` undoes every
fault except cuts that have happened.
"""

from __future__ import annotations

import asyncio
import enum
import socket
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.support.fakes.stream_server import close

# The most that one direction of a connection holds back. Above this it slows the sender down.
_HELD_BYTES = 1 << 20
# A socket that is closed with this option sends RST and drops its unsent bytes.
_NO_LINGER = struct.pack("ii", 1, 0)

Address = int | Path
"""A loopback port, or the path of a unix socket."""
Target = Address | Callable[[], Address]
"""A function is called for each new connection."""


class Direction(enum.Flag):
    """The direction in which bytes go."""

    TO_TARGET = enum.auto()
    TO_CALLER = enum.auto()
    BOTH = TO_TARGET | TO_CALLER


@dataclass
class _Cut:
    """A planned cut."""

    direction: Direction
    left_bytes: int | None = None
    """Cut after this many more bytes."""
    marker: bytes = b""
    """Or cut where these bytes pass."""
    passes: bool = False
    everyone: bool = True


class FaultyProxy:
    """Listens on loopback and forwards to `target`. A new `target` is for new connections."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.port = 0
        self.connections = 0
        """How many connections were accepted so far."""
        self.cuts = 0
        """How many cuts happened, by `cut` or by another method."""
        self.passed_bytes = {Direction.TO_TARGET: 0, Direction.TO_CALLER: 0}
        self.links: set[_Link] = set()
        """The open connections, for the classes in this file."""
        self._cut: _Cut | None = None
        self._muted = Direction(0)
        self._swallows = False
        self._delay: Callable[[int], float] = _no_delay
        self._delayed = Direction(0)
        self._listener: asyncio.Server | None = None
        # Bound but not listening: it keeps the port while connections to it are refused.
        self._keeper = _bound(0)

    async def __aenter__(self) -> Self:
        self.port = self._keeper.getsockname()[1]
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop_listening()
        self._keeper.close()
        while self.links:
            for link in list(self.links):
                link.cut()
            await asyncio.wait([link.closed for link in self.links])

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"127.0.0.1:{self.port}"

    @property
    def open_connections(self) -> int:
        """How many connections are open now."""
        return len(self.links)

    def open_to(self, target: Address) -> int:
        """How many connections to a target are open now."""
        return sum(link.dialed == target for link in self.links)

    def cut(self) -> None:
        """Reset every connection now."""
        self._cut = None
        self.cuts += 1
        for link in list(self.links):
            link.cut()

    def cut_after(
        self,
        byte_count: int,
        direction: Direction = Direction.TO_CALLER,
        *,
        everyone: bool = True,
    ) -> None:
        """Reset after this many more bytes in one direction, counted over all connections.

        everyone: reset all connections. Otherwise only the one that carried the last byte.
        """
        self._cut = _Cut(direction, left_bytes=byte_count, everyone=everyone)

    def cut_at(
        self,
        marker: bytes,
        direction: Direction = Direction.TO_TARGET,
        *,
        passes: bool,
        everyone: bool = False,
    ) -> None:
        """Reset the connection that sends `marker`, once. The marker must come in one piece.

        passes: the marker is delivered, but no byte of its answer. Otherwise it is lost.
        """
        self._cut = _Cut(direction, marker=marker, passes=passes, everyone=everyone)

    def mute(self, directions: Direction = Direction.BOTH, *, swallow: bool = False) -> None:
        """Forward nothing in these directions. Connections stay open, and new ones are mute, too.

        Bytes are held back until `heal`, and their sender is slowed down. swallow: they are lost
        instead, and `heal` resets the connections that lost bytes.
        """
        self._muted, self._swallows = directions, swallow

    def delay(
        self,
        seconds: float | Callable[[int], float],
        directions: Direction = Direction.BOTH,
    ) -> None:
        """Forward each piece this much later.

        A function is called for each piece with the number of its connection (from 1). Then bytes
        of two connections arrive in another order than they were sent. The order within one
        connection stays.
        """
        self._delay = seconds if callable(seconds) else lambda _: seconds
        self._delayed = directions

    def strand(self) -> None:
        """Disconnect every caller, while the target does not notice it.

        Bytes held back by `mute` reach the target at `heal`, and then the connection ends. New
        connections work.
        """
        self._muted = Direction(0)
        for link in list(self.links):
            link.strand()

    @property
    def held_bytes(self) -> int:
        """How many bytes are held back now, in both directions."""
        return sum(way.held_bytes for link in self.links for way in link.ways)

    async def refuse(self) -> None:
        """Refuse new connections. Open ones stay."""
        await self._stop_listening()

    async def heal(self) -> None:
        """Undo all faults."""
        self._cut = None
        self._muted, self._swallows = Direction(0), False
        self._delay, self._delayed = _no_delay, Direction(0)
        for link in list(self.links):
            link.heal()
        await self._listen()

    # For the links.

    def is_muted(self, direction: Direction) -> bool:
        return direction in self._muted

    def loses(self, direction: Direction) -> bool:
        return self._swallows and direction in self._muted

    def delay_seconds(self, number: int, direction: Direction) -> float:
        return self._delay(number) if direction in self._delayed else 0.0

    def admits(self, link: _Link, direction: Direction, data: bytes) -> bytes | None:
        """Return the part of `data` that passes. None: cut here, or when the answer comes."""
        cut = self._cut
        if cut is None or cut.direction is not direction:
            return data
        if cut.left_bytes is not None:
            if len(data) < cut.left_bytes:
                cut.left_bytes -= len(data)
                return data
            return data[: cut.left_bytes]
        if cut.marker not in data:
            return data
        return data if cut.passes else b""

    def passed(self, link: _Link, direction: Direction, data: bytes, passed: bytes) -> None:
        self.passed_bytes[direction] += len(passed)
        cut = self._cut
        if cut is None or cut.direction is not direction:
            return
        if cut.marker and cut.marker in data and cut.passes:
            self._cut = None
            link.cut_at_the_answer = cut
        elif (cut.marker and cut.marker in data) or len(passed) == cut.left_bytes:
            self.cut_by(link, cut)

    def cut_by(self, link: _Link, cut: _Cut) -> None:
        if cut.everyone:
            self.cut()
            return
        self._cut = None
        self.cuts += 1
        link.cut()

    # The listening socket.

    async def _listen(self) -> None:
        if self._listener is None:
            listening = _bound(self.port)
            loop = asyncio.get_running_loop()
            self._listener = await loop.create_server(self._accept, sock=listening)

    async def _stop_listening(self) -> None:
        if self._listener is not None:
            listener, self._listener = self._listener, None
            await close(listener)

    def _accept(self) -> asyncio.Protocol:
        self.connections += 1
        link = _Link(self, self.connections)
        return link.caller


class _Link:
    """A caller's connection together with the connection to the target."""

    def __init__(self, proxy: FaultyProxy, number: int) -> None:
        self.proxy = proxy
        self.number = number
        self.has_lost_bytes = False
        self.cut_at_the_answer: _Cut | None = None
        self.caller = _End(self)
        self.target = _End(self)
        self.ways = (
            _Way(self, Direction.TO_TARGET, self.caller, self.target),
            _Way(self, Direction.TO_CALLER, self.target, self.caller),
        )
        self.caller.outgoing, self.caller.incoming = self.ways
        self.target.incoming, self.target.outgoing = self.ways
        self.is_cut = False
        self.is_stranded = False
        self.dialed: Address | None = None
        self._dialing: asyncio.Task[None] | None = None

    def accepted(self) -> None:
        self._dialing = asyncio.create_task(self._dial(), name="a faulty proxy dials")
        self._dialing.add_done_callback(self._dialed)
        self.closed = asyncio.create_task(self._closed(), name="a faulty proxy's connection")
        self.closed.add_done_callback(lambda _: self.proxy.links.discard(self))
        self.proxy.links.add(self)

    async def _dial(self) -> None:
        loop = asyncio.get_running_loop()
        given = self.proxy.target
        target = self.dialed = given() if callable(given) else given
        try:
            if isinstance(target, Path):
                await loop.create_unix_connection(lambda: self.target, str(target))
            else:
                await loop.create_connection(lambda: self.target, "127.0.0.1", target)
        except (OSError, asyncio.CancelledError):
            self.target.gone.set()
            self.cut()

    def _dialed(self, dialing: asyncio.Task[None]) -> None:
        if dialing.cancelled():  # before it began
            self.target.gone.set()

    def flow(self) -> None:
        for way in self.ways:
            way.flow()

    def strand(self) -> None:
        self.is_stranded = True
        self.caller.reset()

    def heal(self) -> None:
        self.is_stranded = False
        if self.has_lost_bytes:
            self.cut()
        else:
            self.flow()

    def cut(self) -> None:
        """Reset both connections and drop their unsent bytes."""
        if self.is_cut:
            return
        self.is_cut = True
        for way in self.ways:
            way.stop()
        if self._dialing is not None:
            self._dialing.cancel()
        for end in (self.caller, self.target):
            end.reset()

    def ended(self) -> None:
        """One direction has ended. The other one may have ended before."""
        if all(way.has_ended for way in self.ways):
            for end in (self.caller, self.target):
                end.close()

    async def _closed(self) -> None:
        if self._dialing is not None:
            await asyncio.wait([self._dialing])
        for end in (self.caller, self.target):
            await end.gone.wait()


class _End(asyncio.Protocol):
    """One socket of a link. Sends what it receives to `outgoing`; `incoming` writes to it."""

    outgoing: _Way
    incoming: _Way

    def __init__(self, link: _Link) -> None:
        self._link = link
        self.transport: asyncio.Transport | None = None
        self.gone = asyncio.Event()
        self.is_full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self is self._link.caller:
            self._link.accepted()
        elif self._link.is_cut:
            self.reset()
        else:
            self._link.flow()

    def data_received(self, data: bytes) -> None:
        self.outgoing.put(data)

    def eof_received(self) -> bool:
        self.outgoing.put(b"")
        return True  # the other direction continues

    def pause_writing(self) -> None:
        self.is_full = True

    def resume_writing(self) -> None:
        self.is_full = False
        self.incoming.flow()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.gone.set()
        # What it sent before still arrives, then the other socket is reset.
        if not self._link.is_cut:
            self.outgoing.put(None)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def reset(self) -> None:
        if self.transport is None:
            return
        own: socket.socket = self.transport.get_extra_info("socket")
        if own.family != socket.AF_UNIX and own.fileno() >= 0:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.transport.abort()


class _Way:
    """One direction of a link. Pieces wait here until they are due."""

    def __init__(self, link: _Link, direction: Direction, source: _End, sink: _End) -> None:
        self._link = link
        self._direction = direction
        self._source = source
        self._sink = sink
        self._held: deque[tuple[float, bytes | None]] = deque()
        self.held_bytes = 0
        self._last_due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._is_paused = False
        self._is_stopped = False
        self.has_ended = False

    def put(self, data: bytes | None) -> None:
        """Forward `data` when it is due. Empty: the source sent its end. None: it is gone."""
        proxy = self._link.proxy
        if self._sink.gone.is_set():
            if not data:
                self.end()
            return
        if proxy.loses(self._direction):
            self._link.has_lost_bytes = True
            return
        due = asyncio.get_running_loop().time()
        due += proxy.delay_seconds(self._link.number, self._direction)
        self._last_due = max(due, self._last_due)
        self._held.append((self._last_due, data))
        self.held_bytes += len(data or b"")
        self.flow()

    def flow(self) -> None:
        """Forward what is due."""
        proxy, sink = self._link.proxy, self._sink
        now = asyncio.get_running_loop().time()
        while self._held and self._held[0][0] <= now and not self._is_stopped:
            if proxy.is_muted(self._direction) or self._link.is_stranded or sink.is_full:
                break
            if sink.transport is None and not sink.gone.is_set():
                break  # the target is not connected yet
            _, data = self._held.popleft()
            self.held_bytes -= len(data or b"")
            self._pass_on(sink.transport, data)
        self._pace()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._held and self._held[0][0] > now and not self._is_stopped:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(self._held[0][0], self.flow)

    def stop(self) -> None:
        self._is_stopped = True
        self._held.clear()
        self.held_bytes = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def end(self) -> None:
        """The source has sent its end, and everything before it was forwarded."""
        self.has_ended = True
        self._link.ended()

    def _pass_on(self, transport: asyncio.Transport | None, data: bytes | None) -> None:
        link, proxy = self._link, self._link.proxy
        awaited = link.cut_at_the_answer
        if awaited is not None and awaited.direction is not self._direction:
            proxy.cut_by(link, awaited)
            return
        if data is None:
            link.cut()
            return
        if transport is None or transport.is_closing():
            return
        if not data:
            try:
                transport.write_eof()
            except OSError:  # the sink's own end has reset it meanwhile
                link.cut()
                return
            self.end()
            return
        passed = proxy.admits(link, self._direction, data) or b""
        if passed:
            transport.write(passed)
        proxy.passed(link, self._direction, data, passed)

    def _pace(self) -> None:
        source = self._source.transport
        if source is None or source.is_closing():
            return
        if not self._is_paused and self.held_bytes > _HELD_BYTES:
            self._is_paused = True
            source.pause_reading()
        elif self._is_paused and self.held_bytes <= _HELD_BYTES:
            self._is_paused = False
            source.resume_reading()


def _no_delay(_: int) -> float:
    return 0.0


def _bound(port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("127.0.0.1", port))
    return made
