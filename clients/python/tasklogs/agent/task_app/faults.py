"""What can go wrong with a task app, and what it says about its health."""

from __future__ import annotations

import enum
import re

_MAX_REASON = 200
_CONTROL = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029]+")


class Fault(enum.Enum):
    """The kinds of failure that the agent tells apart."""

    DOWN = enum.auto()
    """Refused connections and 5xx: what counts towards UNHEALTHY."""
    TORN = enum.auto()
    """A connection that broke or a list that was read while it changed: worth one more try."""
    TIMEOUT = enum.auto()
    """No answer. AgentAPI blocks while it handles a POST, so this says nothing about its health."""
    NONSENSE = enum.auto()
    """An answer that is not AgentAPI's: bad JSON, an unknown role, a 4xx."""
    STARTING = enum.auto()
    """A good answer, but maybe the banner before the saved state: neither `stable` nor a user
    yet."""


class TaskAppError(Exception):
    """The task app could not be read. `str()` is one line without any content of the
    conversation."""

    def __init__(self, fault: Fault, reason: str) -> None:
        super().__init__(one_line(reason))
        self.fault = fault


def one_line(text: str) -> str:
    """Return `text` on one line of at most 200 characters."""
    line = _CONTROL.sub(" ", text).strip()
    return line if len(line) <= _MAX_REASON else line[: _MAX_REASON - 1] + "…"
