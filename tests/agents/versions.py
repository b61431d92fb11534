"""The agents' packages that the tests run with. `make agents` installs them."""

from __future__ import annotations

from collections.abc import Mapping

VERSIONS: Mapping[str, str] = {
    "claude-code": "2.1.328",
    "codex": "0.171.0",
    "gemini": "0.61.0",
    "opencode": "1.18.33",
    "aider": "0.86.2",
}
"""By source."""
