"""The modelled network between server processes: what carries the payloads of their buses."""

from __future__ import annotations

import asyncio
import math
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from tasklogs_server.bus.transport import BusUnavailable, Outgoing, Receiver
from tests.sim.costs import Costs
from tests.sim.processor import Processor, sleep_until

BusKind = Literal["postgres", "nats"]

_MAX_PAYLOAD_BYTES = {"postgres": 7900, "nats": 32 * 1024}
# As after a connection was lost: see bus/postgres.py and bus/nats.py.
_RETRY_SECONDS = 0.5
_NOTE = re.compile(r'\["([a-z_]+)"')
_NODES = 3


@dataclass
class _Place:
    """A process on the network."""

    receiver: Receiver
    processor: Processor
    node: int


class Network:
    """Carries payloads with a delay, in order between each two processes, and loses some."""

    def __init__(
        self,
        kind: BusKind,
        costs: Costs,
        rng: random.Random,
        primary: Processor,
        counts: Counter[str],
    ) -> None:
        self.kind: BusKind = kind
        self.loss = 0.0
        """The share of deliveries that are lost."""
        self.cut_off: set[UUID] = set()
        """Processes from which, and to which, nothing comes through, without anybody being told."""
        self._costs = costs
        self._rng = rng
        self._primary = primary
        self._counts = counts
        self._places: dict[UUID, _Place] = {}
        self._nodes = [Processor() for _ in range(_NODES)]
        self._notify_free_at = 0.0
        self._arrived_at: dict[tuple[UUID, UUID], float] = {}
        self._joined = 0

    @property
    def node_seconds(self) -> Sequence[float]:
        """The work of each node of the bus."""
        return [one.used_seconds for one in self._nodes]

    def join(self, process_id: UUID, receiver: Receiver, processor: Processor) -> None:
        self._places[process_id] = _Place(receiver, processor, self._joined % _NODES)
        self._joined += 1

    def leave(self, process_id: UUID) -> None:
        self._places.pop(process_id, None)

    async def send(self, sender: UUID, messages: Sequence[Outgoing]) -> None:
        """Send in this order. Raises BusUnavailable."""
        if sender not in self._places:
            raise BusUnavailable
        self._count(messages)
        if self.kind == "postgres":
            sent_at = self._notified(messages)
            self._deliver(sender, messages, sent_at)
            await sleep_until(sent_at + self._hop())
        else:
            self._deliver(sender, messages, asyncio.get_running_loop().time() + self._hop())
            await asyncio.sleep(0)

    def _notified(self, messages: Sequence[Outgoing]) -> float:
        """Return when Postgres has committed a transaction of notifications."""
        now = asyncio.get_running_loop().time()
        costs = self._costs
        # Only one transaction commits its notifications at a time.
        begin = max(now + self._hop(), self._notify_free_at)
        self._notify_free_at = begin + costs.notify
        self._primary.reserve(costs.notify + costs.notify_listener * len(self._places))
        return self._notify_free_at

    def _deliver(self, sender: UUID, messages: Sequence[Outgoing], sent_at: float) -> None:
        for to, payload in messages:
            receivers = list(self._places) if to is None else [to]
            for process_id in receivers:
                place = self._places.get(process_id)
                # Postgres delivers to the sender, too, and NATS does not.
                if place is None or (process_id == sender and self.kind == "nats"):
                    continue
                if self._is_lost(sender, process_id):
                    self._counts["deliveries lost"] += 1
                    continue
                if self.kind == "nats":
                    at = max(sent_at, self._nodes[place.node].reserve(self._costs.delivery))
                else:
                    at = sent_at
                # Timers of the same time may run in any order.
                last = self._arrived_at.get((sender, process_id), 0.0)
                at = max(at + self._hop(), last + 1e-9)
                self._arrived_at[sender, process_id] = at
                loop = asyncio.get_running_loop()
                loop.call_at(at, self._arrive, process_id, payload)

    def _arrive(self, process_id: UUID, payload: str) -> None:
        place = self._places.get(process_id)
        if place is None:
            return
        self._counts["deliveries"] += 1
        self._counts["bytes delivered"] += len(payload)
        costs = self._costs
        done_at = place.processor.reserve(costs.payload + costs.payload_byte * len(payload))
        asyncio.get_running_loop().call_at(done_at, self._take, place, process_id, payload)

    def _take(self, place: _Place, process_id: UUID, payload: str) -> None:
        if self._places.get(process_id) is place:
            place.receiver.take(payload)

    def _is_lost(self, sender: UUID, process_id: UUID) -> bool:
        if sender in self.cut_off or process_id in self.cut_off:
            return True
        return self.loss > 0 and self._rng.random() < self.loss

    def _hop(self) -> float:
        return self._costs.hop * math.exp(self._costs.hop_spread * self._rng.gauss(0.0, 1.0))

    def _count(self, messages: Sequence[Outgoing]) -> None:
        for _, payload in messages:
            self._counts["payloads"] += 1
            self._counts["bytes sent"] += len(payload)
            for kind in _NOTE.findall(payload):
                self._counts[f"notes {kind}"] += 1


class ModelTransport:
    """The transport of one process."""

    def __init__(self, network: Network, processor: Processor) -> None:
        self.max_payload_bytes = _MAX_PAYLOAD_BYTES[network.kind]
        self._network = network
        self._processor = processor
        self._process_id: UUID | None = None
        self._cut = asyncio.Event()

    def cut(self) -> None:
        """End the connection. It is opened again soon, and both sides are told."""
        self._cut.set()

    async def run(self, process_id: UUID, receiver: Receiver) -> None:
        self._process_id = process_id
        while True:
            self._cut.clear()
            self._network.join(process_id, receiver, self._processor)
            receiver.connection_changed(True)
            try:
                await self._cut.wait()
            finally:
                self._network.leave(process_id)
                receiver.connection_changed(False)
            await asyncio.sleep(_RETRY_SECONDS)

    async def send(self, messages: Sequence[Outgoing]) -> None:
        if self._process_id is None:
            raise BusUnavailable
        await self._network.send(self._process_id, messages)
