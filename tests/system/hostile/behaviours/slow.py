"""Requests that never end."""

from __future__ import annotations

import asyncio
import struct

from tests.system.hostile import frames
from tests.system.hostile.behaviours.repeated import by_many, until_closed
from tests.system.hostile.frames import Kind
from tests.system.hostile.peer import Peer, Tally
from tests.system.hostile.target import Target

_CONNECTIONS = 50
_STREAMS = 20
_PATHS = (
    "/tasklogs.v1.TaskLogs/GetTaskLogs",
    "/tasklogs.v1.TaskLogs/FollowTaskLogs",
    "/tasklogs.v1.Tasks/CreateTask",
    "/tasklogs.v1.TaskAgents/Connect",
    "/grpc.health.v1.Health/Check",
)


async def requests(target: Target, tally: Tally) -> None:
    """A thousand calls that announce one megabyte and send one byte per second."""

    async def attack(peer: Peer) -> None:
        await peer.begin()
        streams = [
            await peer.open_call(target, _PATHS[number % len(_PATHS)]) for number in range(_STREAMS)
        ]
        announced = b"\x00" + struct.pack(">I", 1_000_000)
        await peer.send(*(frames.frame(Kind.DATA, announced, stream=one) for one in streams))
        tally.sent += _STREAMS

        async def drip() -> None:
            while True:
                await asyncio.sleep(1)
                await peer.send(*(frames.frame(Kind.DATA, b"x", stream=one) for one in streams))

        await until_closed(peer, drip())

    await by_many(_CONNECTIONS, target, tally, attack)
