"""What a source is to the agent: what a session reads, and the work of reading."""

from __future__ import annotations

from typing import Protocol

from tasklogs.publish.source import Source


class AgentSource(Protocol):
    """A source that the agent runs."""

    @property
    def feed(self) -> Source:
        """What a session reads."""
        ...

    @property
    def place(self) -> str:
        """What is read, for the agent's log: a host and port, or a path. No secrets."""
        ...

    async def run(self) -> None:
        """Read until cancelled. An end (of standard input) lets the agent leave."""
        ...

    async def aclose(self) -> None:
        """Release what `run` opened."""
        ...
