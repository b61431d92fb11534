"""What real agents wrote, read by the agent as it appears, against what the model was told to say.

The recordings are cut to what is read (`recording.py`). `make agents` runs the agents themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from tasklogs import TaskLogType
from tests.agents import scenario
from tests.agents.reading import Log
from tests.agents.recording import STAND_IN, Recording, replay
from tests.agents.runs import AGENTS
from tests.agents.scenario import Said
from tests.agents.versions import VERSIONS
from tests.support.fixtures.server import MakeServer

_TURNS = (scenario.LOOK, scenario.SAY, scenario.SAY_AGAIN, scenario.COUNT, scenario.CODE)


def turns(name: str, *prompts: str) -> Iterator[Said]:
    script = scenario.script(AGENTS[name].read_call(Path("/workspace/hello.txt")))
    for prompt in prompts:
        yield from scenario.turn(prompt, script[prompt])


def notice(content: str) -> Said:
    return Said(TaskLogType.NOTICE, content)


def expected(name: str) -> list[list[Said]]:
    """Return the entries of each epoch."""
    # The prompt of the answer that a kill cut short is there, and nothing of the answer.
    cut = Said(TaskLogType.INPUT, scenario.HELD)
    first = [*turns(name, *_TURNS), cut, *turns(name, scenario.GO_ON)]
    compacted = list(turns(name, scenario.COMPACTED))
    other = list(turns(name, scenario.OTHER))
    if name == "claude-code":
        compaction = [notice(STAND_IN), notice("/compact")]
        # A fork begins with the summary, and repeats what came before it and was kept.
        kept = [compaction[0], Said(TaskLogType.OUTPUT, "I go on."), compaction[1]]
        forked = [*kept, *compacted, *turns(name, scenario.FORKED)]
        return [[*first, *compaction, *compacted], forked, other]
    if name == "codex":
        return [[*first, notice(STAND_IN), *compacted], other]
    return [first, other]


def without_tools(entries: Sequence[Said]) -> list[Said]:
    """Leave out the arguments and results of tools, which the script does not say."""
    tools = (TaskLogType.TOOL_CALL, TaskLogType.TOOL_RESULT)
    return [Said(one.type, "", one.name) if one.type in tools else one for one in entries]


@pytest.fixture
async def log(make_server: MakeServer) -> AsyncIterator[Log]:
    async with make_server() as server, Log.open(server) as log:
        yield log


@pytest.mark.parametrize("name", ["claude-code", "codex", "gemini"])
async def test_the_log_is_what_was_said(log: Log, name: str, tmp_path: Path) -> None:
    recording = Recording.load(name)
    assert recording.version == VERSIONS[name]
    transcripts = tmp_path / "transcripts"
    async with log.agent(name, transcripts):
        await asyncio.to_thread(transcripts.mkdir)
        for phase in recording.phases:
            replay(phase, transcripts)
            # A live read has all that was in the files when it came.
            said = [entry.content for entry in await log.live()]
            assert said[-1] == last_said(name, phase.name)
        assert [without_tools(epoch) for epoch in await log.epochs()] == expected(name)


@pytest.mark.parametrize("name", ["claude-code", "codex", "gemini"])
async def test_an_agent_that_is_killed_after_each_line_loses_nothing(
    log: Log, name: str, tmp_path: Path
) -> None:
    transcripts = tmp_path / "transcripts"
    transcripts.mkdir()
    for phase in Recording.load(name).phases:
        replay(phase, transcripts)
        async with log.agent(name, transcripts):
            await log.live()
    epochs = [without_tools(epoch) for epoch in await log.epochs()]
    assert epochs == expected(name)


def last_said(name: str, phase: str) -> str:
    """Return the content of the last entry after a phase."""
    if phase == "killed":
        return scenario.HELD
    if phase == "compacted":
        return "/compact"
    return [one.content for one in turns(name, phase)][-1]
