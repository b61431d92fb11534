"""What real agents wrote, read by the agent as it appears, against what the model was told to say.

The recordings are cut to what is read (`recording.py`). `make agents` runs the agents themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.agents.expected import as_scripted, expected, last_said, place
from tests.agents.reading import Log
from tests.agents.recording import Recording, replay
from tests.agents.table import source
from tests.agents.versions import VERSIONS
from tests.support.fixtures.server import MakeServer


@pytest.fixture
async def log(make_server: MakeServer) -> AsyncIterator[Log]:
    async with make_server() as server, Log.open(server) as log:
        yield log


@pytest.mark.parametrize("name", sorted(VERSIONS))
async def test_the_log_is_what_was_said(log: Log, name: str, tmp_path: Path) -> None:
    recording = Recording.load(name)
    assert recording.version == VERSIONS[name]
    transcripts = tmp_path / "transcripts"
    async with log.agent(source(name), place(name, transcripts)):
        await asyncio.to_thread(transcripts.mkdir)
        for phase in recording.phases:
            replay(phase, transcripts)
            # A live read has all that was in the files when it came.
            said = as_scripted(name, await log.live())
            assert said[-1].content == last_said(name, phase.name)
        assert [as_scripted(name, epoch) for epoch in await log.epochs()] == expected(name)


@pytest.mark.parametrize("name", sorted(VERSIONS))
async def test_an_agent_that_is_killed_after_each_line_loses_nothing(
    log: Log, name: str, tmp_path: Path
) -> None:
    transcripts = tmp_path / "transcripts"
    transcripts.mkdir()
    for phase in Recording.load(name).phases:
        replay(phase, transcripts)
        async with log.agent(source(name), place(name, transcripts)):
            await log.live()
    epochs = [as_scripted(name, epoch) for epoch in await log.epochs()]
    assert epochs == expected(name)
