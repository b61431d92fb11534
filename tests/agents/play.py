"""Plays the scenario with one agent, for a recording or for a test."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.agents import scenario
from tests.agents.acp_runs import AcpRun
from tests.agents.runs import Codex
from tests.agents.table import AGENTS, Run
from tests.support.model_server import ModelServer, Script

TURNS = (scenario.LOOK, scenario.SAY, scenario.SAY_AGAIN, scenario.COUNT, scenario.CODE)
KILLED = "killed"
COMPACTED = "compacted"


def script(name: str, workspace: Path) -> Script:
    """Return what the model says to this agent."""
    kind = AGENTS[name]
    read = kind.read_call(scenario.hello_file(workspace))
    write = kind.write_call(workspace / "new.txt") if issubclass(kind, AcpRun) else None
    return scenario.script(read, write)


async def play(agent: Run, model: ModelServer, ended: Callable[[str], Awaitable[None]]) -> None:
    """Run one command after another. `ended` is told each one's name."""

    async def turn(prompt: str, name: str = "", *, resume: bool = True, fork: bool = False) -> None:
        await (await agent.start(prompt, resume=resume, fork=fork)).ended()
        await ended(name or prompt)

    for number, prompt in enumerate(TURNS):
        await turn(prompt, resume=number > 0)
    held = await agent.start(scenario.HELD, resume=True)
    await model.is_holding.wait()
    await held.kill()
    model.release()
    await ended(KILLED)
    await turn(scenario.GO_ON)
    match agent.name:
        case "claude-code":
            await turn("/compact", COMPACTED)
            await turn(scenario.COMPACTED)
            await turn(scenario.FORKED, fork=True)
        case "opencode":
            await turn(scenario.FORKED, fork=True)
    if isinstance(agent, AcpRun):
        await turn(scenario.WRITE)  # for which it asks permission
        if agent.loads_again:
            await agent.close()
        await turn(scenario.FORKED)
    if isinstance(agent, Codex):
        # The model says that each answer took 20 tokens.
        agent.compact_above_tokens = 15
        await turn(scenario.COMPACTED)
        agent.compact_above_tokens = None
    await turn(scenario.OTHER, resume=False)
    if isinstance(agent, AcpRun):
        await agent.close()
