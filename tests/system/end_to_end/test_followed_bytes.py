"""How many bytes a growing entry costs on the wire of a follower, with deltas and without.

By hand, with an entry of 1 MB:
GROWING_ENTRY_KB=1000 pytest --timeout=600 --log-cli-level=INFO <this file>
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from tasklogs.v1 import task_logs_pb2 as pb
from tests.reads.follow_reader import Reader, reading
from tests.reads.follow_view import View
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry, tail_delta
from tests.support.fixtures.reports import TASK
from tests.support.fixtures.server import Server

STEPS = int(os.environ.get("GROWING_ENTRY_KB", "100"))
STEP = "0123456789" * 100

_log = logging.getLogger(__name__)


@dataclass
class Wire:
    """The messages of one follow, counted on the wire."""

    name: str
    view: View = field(default_factory=View)
    messages: int = 0
    size_bytes: int = 0

    async def counted(
        self, messages: AsyncIterator[pb.FollowTaskLogsResponse]
    ) -> AsyncIterator[pb.FollowTaskLogsResponse]:
        async for message in messages:
            self.messages += 1
            self.size_bytes += message.ByteSize()
            yield message

    @asynccontextmanager
    async def following(self, server: Server, *, deltas: bool) -> AsyncIterator[Reader]:
        call = server.logs.FollowTaskLogs(
            pb.FollowTaskLogsRequest(task=TASK, source=pb.LOG_SOURCE_SNAPSHOT, deltas=deltas)
        )
        try:
            async with reading(self.counted(aiter(call)), self.view) as reader:
                yield reader
        finally:
            call.cancel()


async def test_a_growing_entry_costs_its_length_once_with_deltas_and_each_time_without(
    server: Server,
) -> None:
    token = (await server.create_task()).agent_token
    with_deltas, whole = Wire("with deltas"), Wire("whole")
    async with AsyncExitStack() as stack:
        agent = await stack.enter_async_context(ScriptedAgent.connect(server, token))
        readers = [
            await stack.enter_async_context(wire.following(server, deltas=wire is with_deltas))
            for wire in (with_deltas, whole)
        ]
        for reader in readers:
            await reader.heard("caught_up")
        # Revision 1 opens the epoch; revision 2 is the entry.
        await agent.append(open_epoch=True, entries=[log_entry(0, STEP)])
        for step in range(1, STEPS):
            for reader in readers:
                await reader.reached(step + 1)
                reader.messages.clear()  # each message is 1 MB in the end
            await agent.append(tail=tail_delta(0, step * len(STEP), STEP))
        for reader in readers:
            await reader.reached(STEPS + 1)
    length = STEPS * len(STEP)
    for wire in (with_deltas, whole):
        assert wire.view.contents() == {(1, 0): STEP * STEPS}
        _log.info(
            "%s: %d messages, %d bytes, %.3f times the %d bytes of the entry",
            *(wire.name, wire.messages, wire.size_bytes, wire.size_bytes / length, length),
        )
    assert with_deltas.size_bytes < 1.2 * length
    assert whole.size_bytes > length * STEPS / 2
