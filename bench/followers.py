"""The followers of one client process. They record what arrives, and decode nothing.

Each has its own channel and so its own connection, unless asked otherwise.
"""

from __future__ import annotations

import asyncio
import base64
import sys
import time
from typing import Any

import grpc

from bench.agents import own_channel
from bench.stamp import number_in

FOLLOW = "/tasklogs.v1.TaskLogs/FollowTaskLogs"
CAUGHT_UP = b"\x3a\x00"
"""How FollowTaskLogsResponse.caught_up ends a message."""
_HANDSHAKES = 32
_DEADLINE_SECONDS = 60


class Follower:
    """One stream. `arrivals` are times (ns, of the clock that all processes share) and numbers.

    A message counts for all numbers up to its own, because changes are coalesced.
    """

    def __init__(self, call: Any) -> None:
        self._call = call
        self._moved = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None
        self.arrivals: list[tuple[int, int]] = []
        self.number = 0
        self.messages = 0
        self.message_bytes = 0
        """Of the last message."""
        self.received_bytes = 0
        """Of all messages since `ready`."""
        self.receipts: Receipts | None = None

    async def ready(self, ending: bytes) -> None:
        """Read until a message ends with `ending`, then record what comes."""
        while True:
            message = await self._read()
            if message.endswith(ending):
                break
        self._reading = asyncio.create_task(self._note())
        self._reading.add_done_callback(_say_why)

    async def reaches(self, number: int) -> None:
        """Wait until the change with this number has arrived."""
        while self.number < number:
            if self._reading is None or self._reading.done():
                raise RuntimeError("a follow ended")
            self._moved.clear()
            await self._moved.wait()

    def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        self._call.cancel()

    async def _note(self) -> None:
        try:
            while True:
                message = await self._read()
                self.received_bytes += len(message)
                number = number_in(message)
                if number is None:
                    continue
                self.arrivals.append((time.monotonic_ns(), number))
                self.messages += 1
                self.message_bytes = len(message)
                if self.receipts is not None:
                    self.receipts.arrived(self.number, number)
                self.number = number
                self._moved.set()
        finally:
            self._moved.set()

    async def _read(self) -> bytes:
        message = await self._call.read()
        if not isinstance(message, bytes):
            raise RuntimeError(f"a follow ended: {await self._call.code()}")
        return message


def _say_why(reading: asyncio.Task[None]) -> None:
    """Print why a follow ended: otherwise its caller only sees that nothing arrives."""
    if not reading.cancelled() and (error := reading.exception()) is not None:
        print(f"error: {error}", file=sys.stderr, flush=True)


class Receipts:
    """Tells a publisher, perhaps in another process, what all followers of this process have."""

    def __init__(self, followers: int, publisher: asyncio.StreamWriter) -> None:
        self._followers = followers
        self._publisher = publisher
        self._counts: dict[int, int] = {}

    def arrived(self, before: int, number: int) -> None:
        """Record that a follower that had `before` has `number` now."""
        for one in range(before + 1, number + 1):
            count = self._counts.pop(one, 0) + 1
            if count == self._followers:
                self._publisher.write(b".")
            else:
                self._counts[one] = count

    def close(self) -> None:
        self._publisher.close()


class Followers:
    """All follows of one client process."""

    def __init__(self) -> None:
        self.streams: list[Follower] = []
        self._channels: list[grpc.aio.Channel] = []
        self._receipts: Receipts | None = None

    async def open(
        self,
        address: str,
        method: str,
        requests: list[str],
        ready: str,
        channels: int = 0,
        receipts_port: int = 0,
        ca: str = "",
    ) -> int:
        """Follow each request (base64), and wait for the message that ends with `ready` (hex).

        With 0 channels, each follow has its own. Returns the number of follows.
        """
        opened = [own_channel(address, ca) for _ in range(channels or len(requests))]
        self._channels += opened
        turn = asyncio.Semaphore(_HANDSHAKES)

        async def one(channel: grpc.aio.Channel, request: str) -> Follower:
            async with turn:
                call: Any = channel.unary_stream(method)
                follower = Follower(call(base64.b64decode(request)))
                await follower.ready(bytes.fromhex(ready))
                return follower

        async with asyncio.timeout(_DEADLINE_SECONDS):
            self.streams += await asyncio.gather(
                *(
                    one(opened[number % len(opened)], request)
                    for number, request in enumerate(requests)
                )
            )
        if receipts_port:
            _, publisher = await asyncio.open_connection("127.0.0.1", receipts_port)
            self._receipts = Receipts(len(self.streams), publisher)
            for follower in self.streams:
                follower.receipts = self._receipts
        return len(self.streams)

    async def collect(self, numbers: list[int]) -> list[list[tuple[int, int]]]:
        """Wait until each follower has its number. Return and forget what arrived at each."""
        async with asyncio.timeout(_DEADLINE_SECONDS):
            for follower, number in zip(self.streams, numbers, strict=True):
                await follower.reaches(number)
        collected = [follower.arrivals for follower in self.streams]
        for follower in self.streams:
            follower.arrivals = []
        return collected

    async def counts(self) -> dict[str, int]:
        """Return the number of messages since the last call, and the bytes of the last one."""
        messages = sum(follower.messages for follower in self.streams)
        for follower in self.streams:
            follower.messages = 0
            follower.arrivals = []
        message_bytes = self.streams[0].message_bytes
        return {"messages": messages, "message_bytes": message_bytes}

    async def close(self) -> int:
        """Disconnect. Returns 0, the number of follows that are left."""
        for follower in self.streams:
            follower.close()
        if self._receipts is not None:
            self._receipts.close()
            self._receipts = None
        for channel in self._channels:
            await channel.close()
        self.streams, self._channels = [], []
        return 0
