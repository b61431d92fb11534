"""The worker's side of its channel: it beats, says when it serves, and is told to stop."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Thread
from typing import Any, Self

import structlog

from tasklogs_server.settings import ServerSettings
from tasklogs_server.supervision.channel import Channel

BEAT_SECONDS = 0.25
# In addition to the drain: the end of the calls, the last writes, and a busy machine.
END_SECONDS = 20.0

_log = structlog.get_logger(__name__)


class SupervisorLink:
    """What a worker and its supervisor tell each other."""

    def __init__(self, channel: Channel, worker: int, settings: ServerSettings) -> None:
        self._channel = channel
        self.worker = worker
        """The number of this worker, from 1."""
        self.settings = settings
        self.collect: Callable[[], Sequence[Any]] = list
        """Returns the metrics of this worker. It is called in a thread."""

    @classmethod
    async def open(cls, end: socket.socket) -> Self | None:
        """Read the first message. None: the supervisor has ended meanwhile."""
        channel = await Channel.open(end)
        order = await channel.receive()
        if order is None:
            channel.close()
            return None
        settings = ServerSettings.model_validate(order["settings"])
        return cls(channel, order["worker"], settings)

    async def run(self, on_stop: Callable[[], None]) -> None:
        """Beat, answer, and call `on_stop` when the supervisor wants it or is gone."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._beat())
            while (message := await self._channel.receive()) is not None:
                group.create_task(self._answer(message["ask"]))
            on_stop()

    def serves(self) -> None:
        """Say that this worker takes calls."""
        self._channel.send({"serves": True})

    async def failed(self, reason: str) -> None:
        """Say why this worker cannot start."""
        self._channel.send({"failed": reason})
        self._channel.end()
        # Until the supervisor has read it and hung up, or is gone.
        with suppress(TimeoutError):
            async with asyncio.timeout(BEAT_SECONDS):
                await self._channel.receive()

    def close(self) -> None:
        """Hang up."""
        self._channel.close()

    async def _beat(self) -> None:
        while True:
            self._channel.send({"beat": True})
            await asyncio.sleep(BEAT_SECONDS)

    async def _answer(self, question: int) -> None:
        families: Sequence[Any] | None = None
        try:
            families = await asyncio.to_thread(lambda: self.collect())
        except Exception:  # a scrape must not end the worker
            _log.exception("worker.metrics_failed")
        self._channel.send({"answer": question, "families": families})


def end_without(supervisor: socket.socket, settings: ServerSettings) -> None:
    """End this process some time after the supervisor has gone, whatever the event loop does."""
    seconds = settings.drain_timeout.total_seconds() + END_SECONDS

    def wait_and_end() -> None:
        waiting = select.poll()
        waiting.register(supervisor, select.POLLRDHUP)
        waiting.poll()
        time.sleep(seconds)
        os._exit(1)

    Thread(target=wait_and_end, name="supervisor's end", daemon=True).start()
