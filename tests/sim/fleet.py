"""All server processes of a run."""

from __future__ import annotations

import random
from uuid import UUID

from tests.sim.network import Network
from tests.sim.primary import Primary
from tests.sim.server import Server

# Recognizable in what a run prints.
_FIRST_ID = 0xA000_0000 << 96


class Fleet:
    """Starts and ends processes, and deals connections to them."""

    def __init__(self, network: Network, primary: Primary, rng: random.Random) -> None:
        self.servers: list[Server] = []
        self._network = network
        self._primary = primary
        self._rng = rng

    def add(self) -> Server:
        """Make one more process. It does not run yet."""
        server = Server(UUID(int=_FIRST_ID + len(self.servers)), self._network, self._primary)
        self.servers.append(server)
        return server

    @property
    def alive(self) -> list[Server]:
        return [one for one in self.servers if one.is_alive]

    def any(self, *, but: Server | None = None) -> Server:
        """Return the process to which a load balancer deals the next connection."""
        while True:
            server = self._rng.choice(self.servers)
            if server.is_alive and (server is not but or len(self.alive) == 1):
                return server

    def check(self) -> None:
        """Raise what a process ended with."""
        for server in self.alive:
            failure = server.failure()
            if failure is not None:
                raise failure
