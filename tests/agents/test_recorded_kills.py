"""Agents that are killed at random moments, while a file gets what a real agent wrote in it."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.agents.expected import as_scripted, begins, expected, place
from tests.agents.reading import Log
from tests.agents.recording import Recording, in_steps, replay
from tests.agents.table import source
from tests.agents.versions import VERSIONS
from tests.support.fixtures.server import MakeServer

_SEEDS = range(5)


class Restarted:
    """An agent that is started and killed again."""

    def __init__(self, log: Log, name: str, transcripts: Path) -> None:
        self._log = log
        self._source = source(name)
        self._place = place(name, transcripts)
        self._stack = AsyncExitStack()
        self.runs = False

    async def start(self) -> None:
        if not self.runs:
            await self._stack.enter_async_context(self._log.agent(self._source, self._place))
            self.runs = True

    async def kill(self) -> None:
        await self._stack.aclose()
        self.runs = False


@pytest.mark.parametrize("seed", _SEEDS)
@pytest.mark.parametrize("name", sorted(VERSIONS))
async def test_nothing_is_missing_or_twice(
    make_server: MakeServer, name: str, seed: int, tmp_path: Path
) -> None:
    rng = random.Random(f"{name} {seed}")
    wanted = expected(name)
    steps = [step for phase in Recording.load(name).phases for step in in_steps(phase)]
    async with make_server() as server, Log.open(server) as log:
        agent = Restarted(log, name, tmp_path)
        try:
            for step in steps:
                if step.deleted:  # what no agent has read is gone then
                    await agent.start()
                    await log.live()
                replay(step, tmp_path)
                if step is steps[0]:  # an agent without a log begins with the newest session
                    await agent.start()
                    await log.live()
                match rng.randrange(20):
                    case 0 | 1:
                        await asyncio.sleep(rng.uniform(0, 0.05))
                        await agent.kill()
                    case 2 | 3 | 4 if agent.runs:
                        said = as_scripted(name, await log.live())
                        assert any(begins(said, epoch) for epoch in wanted)
                    case 5 | 6:
                        await asyncio.sleep(rng.choice([0.0, 0.001, 0.01]))
                    case 7 | 8 | 9 | 10:
                        await agent.start()
            await agent.start()
            await log.live()
        finally:
            await agent.kill()
        assert [as_scripted(name, epoch) for epoch in await log.epochs()] == wanted
