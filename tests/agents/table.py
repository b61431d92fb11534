"""All agents by name: those with a transcript of their own, and those that speak ACP."""

from __future__ import annotations

from collections.abc import Mapping

from tests.agents import runs
from tests.agents.acp_runs import AcpClaudeCode, AcpGemini, AcpOpenCode

Run = runs.Run | AcpClaudeCode | AcpGemini | AcpOpenCode

AGENTS: Mapping[str, type[Run]] = {
    **runs.AGENTS,
    **{kind.name: kind for kind in (AcpClaudeCode, AcpGemini, AcpOpenCode)},
}


def source(name: str) -> str:
    """Return the source that reads what an agent writes."""
    return "acp" if name.startswith("acp-") else name
