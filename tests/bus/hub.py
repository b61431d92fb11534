"""A transport in memory, for tests: it can be cut."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

from tasklogs_server.bus.transport import BusUnavailable, Outgoing, Receiver


class Hub:
    """What the transports of several processes are connected to."""

    def __init__(self) -> None:
        self.receivers: dict[UUID, Receiver] = {}

    def deliver(self, messages: Sequence[Outgoing]) -> None:
        for to, payload in messages:
            for process_id in list(self.receivers) if to is None else [to]:
                receiver = self.receivers.get(process_id)
                if receiver is not None:
                    asyncio.get_running_loop().call_soon(receiver.take, payload)


class HubTransport:
    max_payload_bytes = 7900

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._cut = asyncio.Event()
        self._process_id: UUID | None = None

    def cut(self) -> None:
        """Cut the connection. It is opened again soon."""
        self._cut.set()

    async def run(self, process_id: UUID, receiver: Receiver) -> None:
        self._process_id = process_id
        while True:
            self._cut.clear()
            self._hub.receivers[process_id] = receiver
            receiver.connection_changed(True)
            try:
                await self._cut.wait()
            finally:
                del self._hub.receivers[process_id]
                receiver.connection_changed(False)
            await asyncio.sleep(0.01)

    async def send(self, messages: Sequence[Outgoing]) -> None:
        if self._process_id not in self._hub.receivers:
            raise BusUnavailable
        self._hub.deliver(messages)
        await asyncio.sleep(0)
