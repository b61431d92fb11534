"""Closed-loop load of unary calls: each caller sends its next call after the answer."""

from __future__ import annotations

import asyncio
import base64
import itertools
import math
import time
from typing import Any

import grpc

from tasklogs.connection.channel import open_channel


class Load:
    """Callers of one process, on one channel per server. Nothing is decoded: bytes are counted."""

    def __init__(self) -> None:
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def run(
        self,
        address: str,
        method: str,
        callers: list[list[str]],
        seconds: float = math.inf,
        calls_each: float = math.inf,
    ) -> dict[str, Any]:
        """Run `callers` for this long, or for so many calls each, whichever ends first.

        Each sends a cycle of requests (base64).

        Returns the calls, the bytes and the seconds that it took.
        """
        if address not in self._channels:
            self._channels[address] = open_channel(address)
        call: Any = self._channels[address].unary_unary(method)
        cycles = [[base64.b64decode(request) for request in caller] for caller in callers]
        began = time.perf_counter()
        counts = await asyncio.gather(
            *(_caller(call, requests, began + seconds, calls_each) for requests in cycles)
        )
        return {
            "seconds": time.perf_counter() - began,
            "calls": sum(calls for calls, _ in counts),
            "bytes": sum(size for _, size in counts),
        }

    async def close(self) -> None:
        for channel in self._channels.values():
            await channel.close()


async def _caller(
    call: Any, requests: list[bytes], until: float, at_most: float
) -> tuple[int, int]:
    calls = received = 0
    for request in itertools.cycle(requests):
        received += len(await call(request))
        calls += 1
        if calls >= at_most or time.perf_counter() >= until:
            break
    return calls, received
