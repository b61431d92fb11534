"""The failures of a task app, and what each says about its health."""

from __future__ import annotations

import enum
import re

_MAX_REASON = 200
_CONTROL = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029]+")


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


class TaskAppError(Exception):
    """The task app could not be read. `str()` is one line without content of the conversation."""

    def __init__(self, fault: Fault, reason: str) -> None:
        super().__init__(one_line(reason))
        self.fault = fault


def one_line(text: str) -> str:
    """Return `text` on one line of at most 200 characters."""
    line = _CONTROL.sub(" ", text).strip()
    return line if len(line) <= _MAX_REASON else line[: _MAX_REASON - 1] + "…"
