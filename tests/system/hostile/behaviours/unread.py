"""Calls whose responses nobody reads."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import grpc

from tasklogs.v1 import task_agents_pb2, task_logs_pb2, task_logs_pb2_grpc
from tests.system.hostile import frames
from tests.system.hostile.behaviours.repeated import by_many, until_closed
from tests.system.hostile.frames import Kind
from tests.system.hostile.peer import Peer, Tally
from tests.system.hostile.target import Target

_CONNECTIONS = 20
_STREAMS = 10
_PAUSE_SECONDS = 0.2
_NO_WINDOW = {frames.INITIAL_WINDOW_SIZE: 0}
_GRPC_CLIENTS = 10


async def reads(target: Target, tally: Tally) -> None:
    """Request pages of one megabyte. Every second connection does not read its socket either."""
    request = task_logs_pb2.GetTaskLogsRequest(task=target.task).SerializeToString()
    await _calls("/tasklogs.v1.TaskLogs/GetTaskLogs", request, target, tally)


async def follows(target: Target, tally: Tally) -> None:
    request = task_logs_pb2.FollowTaskLogsRequest(task=target.task).SerializeToString()
    await _calls("/tasklogs.v1.TaskLogs/FollowTaskLogs", request, target, tally)


async def _calls(path: str, request: bytes, target: Target, tally: Tally) -> None:
    async def attack(peer: Peer) -> None:
        await peer.begin(_NO_WINDOW)
        for _ in range(_STREAMS):
            await peer.call(target, path, request, target.user_token)
            tally.sent += 1
        if tally.opened % 2:
            peer.stop_reading()
        while True:
            received = await peer.next_frame()
            await peer.take(received)
            if received.kind == Kind.RST_STREAM:  # the server reset the call: make another one
                await asyncio.sleep(_PAUSE_SECONDS)
                await peer.call(target, path, request, target.user_token)
                tally.sent += 1

    await by_many(_CONNECTIONS, target, tally, attack, pause_seconds=_PAUSE_SECONDS)


async def agent_streams(target: Target, tally: Tally) -> None:
    """Half of them use a task's token and supersede the one before. None sends a goodbye."""
    hello = task_agents_pb2.AgentMessage(
        hello=task_agents_pb2.Hello(agent_version="0", task_app="none")
    ).SerializeToString()

    async def attack(peer: Peer) -> None:
        await peer.begin(_NO_WINDOW)

        async def open_streams() -> None:
            while True:
                for token in (target.agent_token, "tla_" + "0" * 43):
                    stream = await peer.open_call(target, "/tasklogs.v1.TaskAgents/Connect", token)
                    await peer.send(frames.message(stream, hello, end_stream=False))
                    tally.sent += 1
                await asyncio.sleep(_PAUSE_SECONDS)

        await until_closed(peer, open_streams())

    await by_many(_CONNECTIONS, target, tally, attack, pause_seconds=_PAUSE_SECONDS)


async def follows_by_grpc(target: Target, tally: Tally) -> None:
    """Follows by a real gRPC client that never reads them."""
    credentials = None
    if target.ca is not None:
        with open(target.ca, "rb") as file:  # noqa: ASYNC230, PTH123 - once, a few lines
            credentials = grpc.ssl_channel_credentials(file.read())
    options = [("grpc.use_local_subchannel_pool", 1)]
    address = f"localhost:{target.port}"
    metadata = (
        (("authorization", f"Bearer {target.user_token}"),) if target.user_token is not None else ()
    )
    request = task_logs_pb2.FollowTaskLogsRequest(task=target.task)

    async def one() -> None:
        channel = (
            grpc.aio.insecure_channel(address, options=options)
            if credentials is None
            else grpc.aio.secure_channel(address, credentials, options=options)
        )
        async with channel:
            while True:
                stub = task_logs_pb2_grpc.TaskLogsStub(channel)
                calls = [stub.FollowTaskLogs(request, metadata=metadata) for _ in range(_STREAMS)]
                tally.sent += _STREAMS
                with suppress(grpc.aio.AioRpcError):
                    await asyncio.gather(*(call.wait_for_connection() for call in calls))
                await asyncio.gather(*(call.code() for call in calls))
                await asyncio.sleep(_PAUSE_SECONDS)

    async with asyncio.TaskGroup() as group:
        for _ in range(_GRPC_CLIENTS):
            group.create_task(one())
