"""What the log must have after the scenario, by agent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tasklogs import TaskLogType
from tests.agents import scenario
from tests.agents.play import COMPACTED, KILLED, TURNS, script
from tests.agents.recording import DATABASE, STAND_IN, WORKSPACE
from tests.agents.scenario import Said
from tests.support.model_server.script import CHUNK

_PERMISSION = "Permission asked, and allowed."
_KINDS = {"read_file": "read", "write_file": "edit", "write": "edit"}
"""The names of tools where ACP has only their kind."""


def turns(name: str, *prompts: str) -> Iterator[Said]:
    said = script(name, Path(WORKSPACE))
    for prompt in prompts:
        for entry in scenario.turn(as_written(name, prompt), said[prompt]):
            yield _over_acp(name, entry) if name.startswith("acp-") else entry
            if prompt == scenario.WRITE and entry.type is TaskLogType.TOOL_CALL:
                yield Said(TaskLogType.NOTICE, _PERMISSION, _over_acp(name, entry).name)


def _over_acp(name: str, entry: Said) -> Said:
    is_named = name == "acp-claude-code"
    return entry if is_named else replace(entry, name=_KINDS.get(entry.name, entry.name))


def notice(content: str) -> Said:
    return Said(TaskLogType.NOTICE, content)


def expected(name: str, summary: str = STAND_IN) -> list[list[Said]]:
    """Return the entries of each epoch. `summary`: what a compaction says."""
    # The prompt of the answer that a kill cut short is there, and nothing of the answer.
    cut = Said(TaskLogType.INPUT, as_written(name, scenario.HELD))
    first = [*turns(name, *TURNS), cut, *turns(name, scenario.GO_ON)]
    if name.startswith("acp-"):
        # What arrived of the answer is there.
        cut_short = [cut, Said(TaskLogType.OUTPUT, scenario.LONG)]
        rest = turns(name, scenario.GO_ON, scenario.WRITE, scenario.FORKED)
        return [[*turns(name, *TURNS), *cut_short, *rest], list(turns(name, scenario.OTHER))]
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
    said = [_without_own_text(one) for one in entries]
    return [one for one in said if name != "aider" or one.type is not TaskLogType.NOTICE]


def _without_own_text(entry: Said) -> Said:
    match entry.type:
        case TaskLogType.TOOL_CALL | TaskLogType.TOOL_RESULT:
            return replace(entry, content="")
        case TaskLogType.NOTICE if entry.content.startswith("Permission asked: "):
            is_allowed = "\nAnswer: A" in entry.content
            return replace(entry, content=_PERMISSION if is_allowed else "Permission asked")
        case TaskLogType.OUTPUT if _is_cut_short(entry.content):
            return replace(entry, content=scenario.LONG)
    return entry


def _is_cut_short(content: str) -> bool:
    """Whether it is what arrived of the answer that a kill cut short: a chunk at least."""
    return len(content) >= CHUNK and scenario.LONG.startswith(content)


def begins(said: Sequence[Said], wanted: Sequence[Said]) -> bool:
    """Whether a log may be `said` while it grows to `wanted`. Its last entry may grow, too."""
    if not said or len(said) > len(wanted):
        return not said
    last, whole = said[-1], wanted[len(said) - 1]
    grows = (last.type, last.name) == (whole.type, whole.name)
    return said[:-1] == wanted[: len(said) - 1] and grows and whole.content.startswith(last.content)


def place(name: str, transcripts: Path) -> Path:
    if name.startswith("acp-"):
        return transcripts / "acp.jsonl"
    return transcripts / DATABASE if name == "opencode" else transcripts


def last_said(name: str, phase: str) -> str:
    """Return the content of the last entry after a phase."""
    if phase == KILLED:
        return scenario.LONG if name.startswith("acp-") else as_written(name, scenario.HELD)
    if phase == COMPACTED:
        return "/compact"
    return [one.content for one in turns(name, phase)][-1]
