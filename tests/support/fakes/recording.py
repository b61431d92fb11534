"""Recorded `/events` of terminal agents on a screen of 80 x 1,000, and how to replay them.

Each word of a recording was replaced by a made-up word of the same length. In a test:

    async with FakeTaskApp() as app:
        ...                                        # an agent is connected
        await replay(app, TERMINAL_AGENT_1)        # at the recorded speed
        await replay(app, TERMINAL_AGENT_1, speed=None)   # as fast as possible
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Iterator
from pathlib import Path

from tests.support.fakes.task_app import FakeTaskApp, Message, nanoseconds

_RECORDINGS = Path(__file__).with_name("recordings")
TERMINAL_AGENT_1 = _RECORDINGS / "terminal-agent-1.sse.gz"
TERMINAL_AGENT_2 = _RECORDINGS / "terminal-agent-2.sse.gz"


def events_of(recording: Path) -> Iterator[Message | str]:
    """Yield the events of a recording: a message, or a status."""
    kind = ""
    with gzip.open(recording, "rt", encoding="utf-8") as lines:
        for line in lines:
            name, _, value = line.rstrip("\n").partition(": ")
            if name == "event":
                kind = value
            elif name == "data":
                body = json.loads(value)
                if kind == "status_change":
                    yield body["status"]
                else:
                    yield Message(body["id"], body["message"], body["role"], body["time"])


async def replay(app: FakeTaskApp, recording: Path, *, speed: float | None = 1.0) -> int:
    """Let `app` show what was recorded, from an empty list on. Return the number of messages.

    speed: 2.0 is twice as fast as it was recorded. None: as fast as possible, so that peers see
    only some of the states. The times of the messages are the recorded ones.
    """
    loop = asyncio.get_running_loop()
    began, first_ns, messages = loop.time(), 0, 0
    app.start_over()
    for event in events_of(recording):
        if isinstance(event, str):
            app.status = event
        else:
            shown_ns = nanoseconds(event.time)
            first_ns = first_ns or shown_ns
            due = 0.0 if speed is None else (shown_ns - first_ns) / 1e9 / speed
            await asyncio.sleep(max(0.0, began + due - loop.time()))
            app.show(event)
            messages += 1
        app.tick()
    return messages
