"""The sources by name. A new source is one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module

from tasklogs.agent.settings import Settings
from tasklogs.agent.sources.base import AgentSource
from tasklogs.agent.sources.options import AUTO, SourceOptions, UnusableSource

# Imported on first use: one source must not need the libraries of another.
SOURCES: Mapping[str, str] = {
    "agentapi": "tasklogs.agent.sources.agentapi.source:AgentApi",
    "claude-code": "tasklogs.agent.sources.claude_code:ClaudeCode",
    "codex": "tasklogs.agent.sources.codex:Codex",
    "gemini": "tasklogs.agent.sources.gemini:Gemini",
    "opencode": "tasklogs.agent.sources.opencode:OpenCode",
    "aider": "tasklogs.agent.sources.aider:Aider",
    "acp": "tasklogs.agent.sources.acp.source:Acp",
    "jsonl": "tasklogs.agent.sources.jsonl:Jsonl",
}


def open_source(
    options: SourceOptions, settings: Settings, clock: Callable[[], float]
) -> AgentSource:
    """Make the source that `options` name. Raises UnusableSource."""
    place = SOURCES.get(options.name)
    if place is None:
        names = ", ".join([*SOURCES, AUTO])
        raise UnusableSource(f"no source {options.name!r}: choose one of {names}")
    module, name = place.split(":")
    made: AgentSource = getattr(import_module(module), name)(options, settings, clock)
    return made
