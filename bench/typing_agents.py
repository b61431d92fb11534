"""Agents whose task apps change at a rate: an answer that grows, a screen that redraws.

Like the real agent, it sends the first change at once. Changes during an unacknowledged append are
sent together after its ack, as one message.
"""

from __future__ import annotations

import asyncio
import random
import time

from bench.agents import Agent, append_bytes
from bench.stamp import stamp
from bench.text import words
from tasklogs import delta_codec
from tasklogs.log.content import Content
from tasklogs.log.delta import Delta
from tasklogs.v1 import task_agents_pb2 as pb
from tasklogs.v1 import types_pb2 as types

_GROWTH_CHARACTERS = 80
_CHANGES_PER_ENTRY = 50
_SCREEN_ABOVE_CHARACTERS, _SCREEN_REDRAWN_CHARACTERS = 1500, 500
# Irregular, so that the agents are not in step with each other.
_JITTER = 0.2


class TypingAgent:
    """The answer of one task, from the task app's change to the agent stream."""

    def __init__(self, agent: Agent, number: int) -> None:
        self._agent = agent
        self._chance = random.Random(number)
        self._changed = asyncio.Event()
        self._entry_id = 0
        self._content = Content(b"")
        """The content of the tail that was sent."""
        self._changes_of_entry = 0
        self._over = False
        self._made = 0
        self._sent = 0
        self.times: list[int] = []
        """The time of each change in ns. The first one is that of change `first`."""
        self.first = 1

    async def run(self, rate: float, seconds: float, *, redraws: bool) -> None:
        """Change `rate` times per second for this long, and wait for the last ack."""
        self.first, self.times = self._made + 1, []
        self._over = False
        sending = asyncio.create_task(self._send(redraws=redraws))
        try:
            loop = asyncio.get_running_loop()
            due = loop.time() + self._chance.random() / rate
            until = loop.time() + seconds
            while due < until:
                await asyncio.sleep(due - loop.time())
                self._made += 1
                self.times.append(time.monotonic_ns())
                self._changed.set()
                due += self._chance.uniform(1 - _JITTER, 1 + _JITTER) / rate
            self._over = True
            self._changed.set()
            await sending
        finally:
            sending.cancel()

    async def _send(self, *, redraws: bool) -> None:
        while self._sent < self._made or not self._over:
            await self._changed.wait()
            self._changed.clear()
            made = self._made
            if made == self._sent:
                continue
            await self._agent.append(self._message(made, redraws=redraws))
            self._sent = made

    def _message(self, made: int, *, redraws: bool) -> bytes:
        sequence, changes = self._agent.sequence + 1, made - self._sent
        append = pb.LogAppend(sequence=sequence, open_epoch=sequence == 1)
        new = self._entry_id == 0 or self._changes_of_entry >= _CHANGES_PER_ENTRY
        if redraws:
            text = words(_SCREEN_REDRAWN_CHARACTERS, seed=made % 97) + stamp(made)
            if new:
                text = words(_SCREEN_ABOVE_CHARACTERS) + text
        else:
            text = words(_GROWTH_CHARACTERS * changes, seed=made % 97) + stamp(made)
        if new:
            self._entry_id += 1
            self._changes_of_entry = 0
            self._content = Content(text.encode())
            entry = append.entries.add(
                id=self._entry_id, type=types.TASK_LOG_TYPE_OUTPUT, content=text
            )
            entry.time.seconds = 1_760_000_000 + made
        else:
            append.tail.id = self._entry_id
            append.tail.time.seconds = 1_760_000_000 + made
            keep_bytes = _SCREEN_ABOVE_CHARACTERS if redraws else len(self._content)
            delta = Delta.keeping(keep_bytes, text.encode())
            self._content.patch(delta)
            append.tail.content.CopyFrom(delta_codec.encode(delta, self._content.crc32))
        self._changes_of_entry += changes
        return pb.AgentMessage(append=append).SerializeToString()


def entry_append(sequence: int, content_bytes: int) -> bytes:
    """Encode an append of one whole entry. Its text has the number of the append."""
    append = pb.LogAppend()
    text = stamp(sequence)
    append.entries.add(
        id=sequence,
        type=types.TASK_LOG_TYPE_OUTPUT,
        content=words(content_bytes - len(text), seed=sequence % 97) + text,
    ).time.seconds = 1_760_000_000 + sequence
    return append_bytes(sequence, open_epoch=sequence == 1, entries=append.SerializeToString())
