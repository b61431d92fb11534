"""What a source is to the agent: a session's source, and the work of reading it."""

from __future__ import annotations

from typing import Protocol

from tasklogs.publish.source import Source


class AgentSource(Source, Protocol):
    """A source that the agent runs. A new source is one class with these methods."""

    @property
    def place(self) -> str:
        """What is read, for the agent's log: a host and port, or a path. No secrets."""
        ...

    async def run(self) -> None:
        """Read until cancelled. An end, for example of standard input, lets the agent leave."""
        ...

    async def aclose(self) -> None:
        """Release what `run` opened."""
        ...
