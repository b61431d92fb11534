"""Agents that push as fast as they can, in a process of their own.

    python -m tests.system.end_to_end.pushers HOST:PORT ENTRY_BYTES < tokens

They ignore the window: only the server slows them down, by not reading. Each prints how many bytes
were acknowledged so far.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio

from tasklogs.publish.stream_status import StreamCall
from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs.v1 import task_agents_pb2_grpc, types_pb2

_ROOT = Path(__file__).parents[3]


async def push(address: str, token: str, entry_bytes: int) -> None:
    async with grpc.aio.insecure_channel(
        address, options=[("grpc.use_local_subchannel_pool", 1)]
    ) as channel:
        stub = task_agents_pb2_grpc.TaskAgentsStub(channel)
        call = StreamCall(stub.Connect(metadata=(("authorization", f"Bearer {token}"),)))
        await call.write(pb.AgentMessage(hello=pb.Hello(agent_version="pusher")))
        await call.read()
        listening = asyncio.create_task(_hear(call, entry_bytes))
        with contextlib.suppress(grpc.aio.AioRpcError):  # the listener reports how it ended
            await _push(call, entry_bytes, listening)
        await listening


async def _push(call: StreamCall, entry_bytes: int, listening: asyncio.Task[None]) -> None:
    text, number = "x" * entry_bytes, 0
    while not listening.done():
        entry = types_pb2.TaskLogEntry(id=number, type=types_pb2.TASK_LOG_TYPE_OUTPUT, content=text)
        entry.time.seconds = 1_700_000_000 + number
        append = pb.LogAppend(sequence=number + 1, open_epoch=number == 0, entries=[entry])
        await call.write(pb.AgentMessage(append=append))
        number += 1


async def _hear(call: StreamCall, entry_bytes: int) -> None:
    with contextlib.suppress(grpc.aio.AioRpcError):
        while isinstance(message := await call.read(), pb.ServerMessage):
            if message.HasField("ack"):
                sys.stdout.write(f"{message.ack.sequence * entry_bytes}\n")
                sys.stdout.flush()
    status = await call.status()
    sys.stdout.write(f"ended {status.code()} {status.details()}\n")
    sys.stdout.flush()


class Pushers:
    """A process of pushing agents, as this process sees it."""

    def __init__(self) -> None:
        self.acks = 0
        self.ends: list[str] = []

    async def hear(self, lines: asyncio.StreamReader) -> None:
        while line := (await lines.readline()).decode().strip():
            if line.startswith("ended"):
                self.ends.append(line)
            else:
                self.acks += 1


@asynccontextmanager
async def pushers(
    address: str, tokens: Sequence[str], *, entry_bytes: int
) -> AsyncIterator[Pushers]:
    """Let one agent per token push while the block runs."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.system.end_to_end.pushers", address, str(entry_bytes)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=_ROOT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n".join(tokens).encode())
    await process.stdin.drain()
    process.stdin.close()
    crowd = Pushers()
    hearing = asyncio.create_task(crowd.hear(process.stdout))
    try:
        yield crowd
    finally:
        hearing.cancel()
        if process.returncode is None:
            process.kill()
        await process.wait()


async def main(address: str, entry_bytes: int) -> None:
    tokens = [line.strip() for line in sys.stdin]
    await asyncio.gather(*(push(address, token, entry_bytes) for token in tokens))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
