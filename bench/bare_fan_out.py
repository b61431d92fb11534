"""The minimum that grpc.aio does to pass on messages: topics in memory, the same bytes to all."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

import grpc

PUBLISH = "/bench.Bare/Publish"
FOLLOW = "/bench.Bare/Follow"
TOPIC = "topic"
READY = b"ready"
_ACK = b"taken"


class _Topic:
    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.followers: set[asyncio.Event] = set()


class FanOut:
    """The handlers.

    Publish: a stream of messages for the topic that its metadata names; each is answered.
    Follow: a topic's name -> READY, then every message from then on.
    """

    def __init__(self) -> None:
        self._topics: defaultdict[str, _Topic] = defaultdict(_Topic)

    def handlers(self) -> dict[str, Any]:
        return {
            "Publish": grpc.stream_stream_rpc_method_handler(self._publish),
            "Follow": grpc.unary_stream_rpc_method_handler(self._follow),
        }

    async def _publish(
        self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        topic = self._topics[str(dict(context.invocation_metadata() or ())[TOPIC])]
        async for message in requests:
            topic.messages.append(message)
            for follower in topic.followers:
                follower.set()
            await context.write(_ACK)

    async def _follow(self, request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        topic, woken = self._topics[request.decode()], asyncio.Event()
        sent = len(topic.messages)
        topic.followers.add(woken)
        try:
            await context.write(READY)
            while True:
                while sent < len(topic.messages):
                    await context.write(topic.messages[sent])
                    sent += 1
                woken.clear()
                await woken.wait()
        finally:
            topic.followers.discard(woken)
