"""A load balancer for connections: it passes bytes on, and knows nothing of gRPC.

    python -m tests.system.replicas.balancer PORT REPLICA_PORT ...

A replica that refuses a connection is left out for that connection. `out PORT` on stdin takes a
replica out for all new connections; those that are open stay open.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Callable, Sequence


class _End(asyncio.Protocol):
    """One end of a connection. What it receives goes to the other end."""

    def __init__(self, on_made: Callable[[_End], None] | None = None) -> None:
        self._on_made = on_made
        self.other: _End | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self._on_made is not None:
            self._on_made(self)

    def data_received(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.abort()


class Balancer:
    """Deals connections to replicas in turn."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = list(ports)
        self._next = itertools.count()
        self._pairing: set[asyncio.Task[None]] = set()

    def take_out(self, port: int) -> None:
        """Give this replica no more connections."""
        self._ports.remove(port)

    def accepted(self, client: _End) -> None:
        """Connect a client to the replica whose turn it is."""
        assert client.transport is not None
        client.transport.pause_reading()
        pairing = asyncio.ensure_future(self._pair(client, client.transport))
        self._pairing.add(pairing)
        pairing.add_done_callback(self._pairing.discard)

    async def _pair(self, client: _End, transport: asyncio.Transport) -> None:
        loop = asyncio.get_running_loop()
        first = next(self._next)
        for offset in range(len(self._ports)):
            port = self._ports[(first + offset) % len(self._ports)]
            try:
                _, replica = await loop.create_connection(_End, "127.0.0.1", port)
            except OSError:
                continue
            client.other, replica.other = replica, client
            if transport.is_closing():
                client.connection_lost(None)
            else:
                transport.resume_reading()
            return
        transport.abort()


async def main() -> None:
    """Serve until stdin ends."""
    loop = asyncio.get_running_loop()
    listen, *replicas = (int(one) for one in sys.argv[1:])
    balancer = Balancer(replicas)
    await loop.create_server(lambda: _End(balancer.accepted), "127.0.0.1", listen, backlog=4096)
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        balancer.take_out(int(line.split()[1]))


if __name__ == "__main__":
    asyncio.run(main())
