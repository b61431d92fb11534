"""Whom to attack, and with what in hand."""

from __future__ import annotations

import ssl
from dataclasses import asdict, dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Target:
    """A server's port, and the credentials of a user of it who means harm."""

    port: int
    task: str
    """A task of the attacker's own, with a large log."""
    agent_token: str
    """Of another task of the attacker's own."""
    ca: str | None = None
    """The authority that signed the server's certificate; None: plain text."""
    user_token: str | None = None
    """None: the server asks for none."""
    half_open: int = 1000
    """How many connections stop half way, of each kind."""

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
