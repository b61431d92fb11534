"""The failures of a task app, and what each says about its health."""

from __future__ import annotations

import enum

from tasklogs.publish.source import SourceError


class Fault(enum.Enum):
    """The kinds of failure that the agent tells apart."""

    DOWN = enum.auto()
    """A refused connection or 5xx. Only this counts towards UNHEALTHY."""
    TORN = enum.auto()
    """A broken connection, or a list that changed while it was read: worth one retry."""
    TIMEOUT = enum.auto()
    """No response. AgentAPI blocks while it handles a POST, so this does not show its health."""
    NONSENSE = enum.auto()
    """A response that AgentAPI does not give: bad JSON, an unknown role, a 4xx."""
    STARTING = enum.auto()
    """A good response, but no `stable` and no user message yet: it may be the banner that is shown
    before the saved state is loaded."""


class TaskAppError(SourceError):
    """The task app could not be read. `str()` is one line without content of the conversation."""

    def __init__(self, fault: Fault, reason: str) -> None:
        super().__init__(reason)
        self.fault = fault
