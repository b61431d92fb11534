"""A fake task app that replays a recording shows what was recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fakes.recording import TERMINAL_AGENT_1, TERMINAL_AGENT_2, events_of, replay
from tests.support.fakes.task_app import FakeTaskApp, Message


@pytest.mark.parametrize(
    ("recording", "count"), [(TERMINAL_AGENT_1, 114), (TERMINAL_AGENT_2, 44)], ids=["one", "two"]
)
async def test_a_replay_ends_with_the_last_state_of_each_message(
    recording: Path, count: int
) -> None:
    async with FakeTaskApp(interval_seconds=60) as app:
        app.say("user", "shown before")
        assert await replay(app, recording, speed=None) == count
        messages = [one for one in events_of(recording) if isinstance(one, Message)]
        assert app.messages == list({one.id: one for one in messages}.values())
        assert app.status == "stable"


async def test_each_recorded_state_is_an_event_with_its_own_time() -> None:
    async with FakeTaskApp(interval_seconds=60) as app:
        subscription = app._subscribe()
        await anext(subscription)  # the status
        await replay(app, TERMINAL_AGENT_2, speed=None)
        expected = [one for one in events_of(TERMINAL_AGENT_2) if isinstance(one, Message)]
        seen: list[bytes] = []
        while len(seen) < len(expected):
            event = await anext(subscription)
            if event.startswith(b"event: message_update"):
                seen.append(event)
        assert seen == [one.as_event() for one in expected]
        await subscription.aclose()  # type: ignore[attr-defined]
