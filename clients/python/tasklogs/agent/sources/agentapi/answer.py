"""What AgentAPI answered: the whole conversation, and what the next request needs."""

from __future__ import annotations

from dataclasses import dataclass

from tasklogs.agent.sources.agentapi.listing import Prefix
from tasklogs.publish.source import Shown


@dataclass(frozen=True, slots=True)
class Answer(Shown):
    """The whole conversation as the task app showed it."""

    status: str | None = None
    prefix: Prefix | None = None
    """The prefix for the next read."""
