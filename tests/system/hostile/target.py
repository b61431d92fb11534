"""The target of an attack, and the credentials for it."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

AGENT_TOKENS = (
    "uploads",
    "refused uploads",
    "uploads in parts",
    "first messages",
    "appends",
    "busy",
)
PROMPT = "p" * 64_000
LABELS = {f"label-{number}": "v" * 255 for number in range(64)}
"""The longest prompt and labels of a task."""


@dataclass(frozen=True)
class Target:
    """A server's port, and the credentials of a malicious user of it."""

    port: int
    task: str
    """A task of the attacker with a large log."""
    agent_token: str
    """An agent token of another task of the attacker."""
    ca: str | None = None
    """The CA of the server's certificate. None means plain text."""
    user_token: str | None = None
    """None if the server requires none."""
    admin_token: str | None = None
    """The token of a second attacker, who is an admin."""
    agent_tokens: Mapping[str, str] = field(default_factory=dict)
    """Agent tokens of more tasks of the attacker, by what they are for."""
    half_open: int = 1000
    """How many connections each half-open behaviour keeps."""

    @property
    def tls(self) -> ssl.SSLContext | None:
        if self.ca is None:
            return None
        context = ssl.create_default_context(cafile=self.ca)
        context.set_alpn_protocols(["h2"])
        return context

    @property
    def scheme(self) -> str:
        return "http" if self.ca is None else "https"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, given: dict[str, Any]) -> Self:
        return cls(**given)
