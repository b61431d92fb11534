"""The versions of the agents that the tests run with: those of package.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

_PACKAGES: Mapping[str, str] = {
    "acp-claude-code": "@agentclientprotocol/claude-agent-acp",
    "acp-gemini": "@google/gemini-cli",
    "acp-opencode": "opencode-ai",
    "claude-code": "@anthropic-ai/claude-code",
    "codex": "@openai/codex",
    "gemini": "@google/gemini-cli",
    "opencode": "opencode-ai",
}

_installed = json.loads((Path(__file__).parent / "package.json").read_text())["dependencies"]

VERSIONS: Mapping[str, str] = {name: _installed[package] for name, package in _PACKAGES.items()}
"""By source."""
