"""Warns of a server that works on the same database and is not heard on the bus.

Its bus is another one, or something between the two drops what it sends. Then each of them hears of
what the other one does only by its timers, and live reads do not find the other's agents.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from uuid import UUID

import structlog

from tasklogs_server.bus.shared import SharedBus
from tasklogs_server.domain.errors import StoreUnavailable

# Longer than the interval of heartbeats: a process that lives has another one at each look.
_LOOK_EVERY_SECONDS = 10.0

_log = structlog.get_logger(__name__)

Heartbeats = Mapping[UUID, datetime]


class UnheardProcesses:
    """Compares the heartbeats in the database with those on the bus.

    `heartbeats` returns the last one of each other process that may live.
    """

    def __init__(self, bus: SharedBus, heartbeats: Callable[[], Awaitable[Heartbeats]]) -> None:
        self._bus = bus
        self._heartbeats = heartbeats
        self._unheard: Heartbeats = {}
        self._named: set[UUID] = set()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.look()
            except StoreUnavailable:
                self._unheard = {}
            await asyncio.sleep(_LOOK_EVERY_SECONDS)

    async def look(self) -> None:
        """Warn once of each process that beat between two looks, and was heard at neither."""
        found = await self._heartbeats()
        if not self._bus.is_connected:  # which is logged: then nobody is heard
            self._unheard = {}
            return
        unheard = {one: at for one, at in found.items() if not self._bus.reaches(one)}
        self._named &= unheard.keys()
        for one, at in unheard.items():
            if one in self._unheard and at > self._unheard[one] and one not in self._named:
                self._named.add(one)
                _log.warning("bus.process_unheard", process=str(one))
        self._unheard = unheard
