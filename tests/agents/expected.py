"""What the log must have after the scenario, by agent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tasklogs import TaskLogType
from tests.agents import scenario
from tests.agents.play import COMPACTED, KILLED, TURNS, script
from tests.agents.recording import DATABASE, STAND_IN, WORKSPACE
from tests.agents.scenario import Said


def turns(name: str, *prompts: str) -> Iterator[Said]:
    said = script(name, Path(WORKSPACE))
    for prompt in prompts:
        yield from scenario.turn(as_written(name, prompt), said[prompt])


def notice(content: str) -> Said:
    return Said(TaskLogType.NOTICE, content)


def expected(name: str, summary: str = STAND_IN) -> list[list[Said]]:
    """Return the entries of each epoch. `summary`: what a compaction says."""
    # The prompt of the answer that a kill cut short is there, and nothing of the answer.
    cut = Said(TaskLogType.INPUT, as_written(name, scenario.HELD))
    first = [*turns(name, *TURNS), cut, *turns(name, scenario.GO_ON)]
    compacted = list(turns(name, scenario.COMPACTED))
    other = list(turns(name, scenario.OTHER))
    if name == "claude-code":
        compaction = [notice(summary), notice("/compact")]
        # A fork begins with the summary, and repeats what came before it and was kept.
        kept = [compaction[0], Said(TaskLogType.OUTPUT, "I go on."), compaction[1]]
        forked = [*kept, *compacted, *turns(name, scenario.FORKED)]
        return [[*first, *compaction, *compacted], forked, other]
    if name == "codex":
        return [[*first, notice(summary), *compacted], other]
    if name == "opencode":
        return [first, [*first, *turns(name, scenario.FORKED)], other]
    return [first, other]


def as_written(name: str, prompt: str) -> str:
    """Return a prompt as the agent's program writes it."""
    return f'"{prompt}"' if name == "opencode" else prompt


def as_scripted(name: str, entries: Sequence[Said]) -> list[Said]:
    """Leave out what the script does not say: arguments and results of tools, Aider's notices."""
    tools = (TaskLogType.TOOL_CALL, TaskLogType.TOOL_RESULT)
    said = [Said(one.type, "", one.name) if one.type in tools else one for one in entries]
    return [one for one in said if name != "aider" or one.type is not TaskLogType.NOTICE]


def place(name: str, transcripts: Path) -> Path:
    return transcripts / DATABASE if name == "opencode" else transcripts


def last_said(name: str, phase: str) -> str:
    """Return the content of the last entry after a phase."""
    if phase == KILLED:
        return as_written(name, scenario.HELD)
    if phase == COMPACTED:
        return "/compact"
    return [one.content for one in turns(name, phase)][-1]
