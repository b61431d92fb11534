"""The versions of the agents that the tests run with: those of package.json and aider.txt."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

_PACKAGES: Mapping[str, str] = {
    "acp-claude-code": "@agentclientprotocol/claude-agent-acp",
    "acp-gemini": "@google/gemini-cli",
    "acp-opencode": "opencode-linux-x64",
    "claude-code": "@anthropic-ai/claude-code",
    "codex": "@openai/codex",
    "gemini": "@google/gemini-cli",
    "opencode": "opencode-linux-x64",
}

_HERE = Path(__file__).parent
_installed = json.loads((_HERE / "package.json").read_text())["dependencies"]
_aider = (_HERE / "aider.txt").read_text().strip().rpartition("==")[2]

VERSIONS: Mapping[str, str] = {
    **{name: _installed[package] for name, package in _PACKAGES.items()},
    "aider": _aider,
}
"""By agent."""
