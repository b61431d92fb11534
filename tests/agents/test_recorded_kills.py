"""Agents that are killed at random moments, while a file gets what a real agent wrote in it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.agents.expected import as_scripted, expected, place
from tests.agents.reading import Log
from tests.agents.recording import DATABASE, Phase, Recording, replay
from tests.agents.scenario import Said
from tests.support.fixtures.server import MakeServer

_AGENTS = ("claude-code", "codex", "gemini", "opencode", "aider")
_SEEDS = range(5)
_PIECES = 8


def in_steps(phase: Phase, rng: random.Random) -> Iterator[Phase]:
    """Yield a phase for each line of JSON that the agent wrote, or for a few lines of text."""
    if any(isinstance(line, str) for lines in phase.appended.values() for line in lines):
        yield from _in_pieces(phase, rng)
        return
    for name, lines in phase.appended.items():
        for line in _as_written(lines) if name == DATABASE else lines:
            yield Phase(phase.name, {name: [line]})
    for name in phase.deleted:
        yield Phase(phase.name, deleted=[name])


def _in_pieces(phase: Phase, rng: random.Random) -> Iterator[Phase]:
    """Aider writes what the user said into its history of inputs first."""
    *before, (name, lines) = phase.appended.items()
    cuts = sorted(rng.sample(range(1, len(lines)), min(_PIECES, len(lines)) - 1))
    for start, end in pairwise([0, *cuts, len(lines)]):
        yield Phase(phase.name, {**dict(before if not start else ()), name: lines[start:end]})


def _as_written(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sort rows of a database: a session, then each message before its parts."""

    def key(row: dict[str, Any]) -> tuple[str, str]:
        match row["table"]:
            case "session":
                return "", ""
            case "message":
                return row["id"], ""
        return row["message_id"], row["id"]

    return sorted(rows, key=key)


def begins_with(epoch: Sequence[Said], said: Sequence[Said]) -> bool:
    """Return whether `said` is the beginning of an epoch, whose last entry may still grow."""
    if not said:
        return True
    *before, last = said
    whole = epoch[len(before)] if len(before) < len(epoch) else None
    return (
        list(epoch[: len(before)]) == before
        and whole is not None
        and replace(whole, content=last.content) == last
        and whole.content.startswith(last.content)
    )


class Restarted:
    """An agent that is started and killed again."""

    def __init__(self, log: Log, name: str, transcripts: Path) -> None:
        self._log = log
        self._name = name
        self._place = place(name, transcripts)
        self._stack = AsyncExitStack()
        self.runs = False

    async def start(self) -> None:
        if not self.runs:
            await self._stack.enter_async_context(self._log.agent(self._name, self._place))
            self.runs = True

    async def kill(self) -> None:
        await self._stack.aclose()
        self.runs = False


@pytest.mark.parametrize("seed", _SEEDS)
@pytest.mark.parametrize("name", _AGENTS)
async def test_nothing_is_missing_or_twice(
    make_server: MakeServer, name: str, seed: int, tmp_path: Path
) -> None:
    rng = random.Random(f"{name} {seed}")
    wanted = expected(name)
    steps = [step for phase in Recording.load(name).phases for step in in_steps(phase, rng)]
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
                        assert any(begins_with(epoch, said) for epoch in wanted)
                    case 5 | 6:
                        await asyncio.sleep(rng.choice([0.0, 0.001, 0.01]))
                    case 7 | 8 | 9 | 10:
                        await agent.start()
            await agent.start()
            await log.live()
        finally:
            await agent.kill()
        assert [as_scripted(name, epoch) for epoch in await log.epochs()] == wanted
