"""The messages of the agent stream, as plain data."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import timedelta

from tasklogs.log.append import Append
from tasklogs.log.continuation import Position
from tasklogs_server.domain.status import AgentLifecycle, AppHealth

# What an entry costs beyond its content. Without it, empty entries would never fill a window.
_COST_BYTES = 256


@dataclass(frozen=True, slots=True)
class Hello:
    """The agent's first message.

    `build_number` None: the session follows the latest START build, also a later one.
    """

    agent_version: str
    task_app: str
    build_number: int | None


def cost_bytes(append: Append) -> int:
    """Return what holding it costs: the content, and so much for each entry, however short."""
    return append.content_bytes + _COST_BYTES * (1 + len(append.entries))


@dataclass(frozen=True, slots=True)
class AgentState:
    """What the agent knows of itself and of the task app. None: unchanged."""

    lifecycle: AgentLifecycle | None
    health: AppHealth | None


class GoodbyeReason(enum.Enum):
    """Why an agent says goodbye."""

    PAUSING = enum.auto()
    STOPPING = enum.auto()


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits that a session must keep to, in bytes."""

    window_bytes: int
    append_bytes: int
    entry_bytes: int


@dataclass(frozen=True, slots=True)
class Welcome:
    """The server's first message: the session's fence, limits, and where the store stands."""

    session: int
    limits: Limits
    revision: int
    position: Position


@dataclass(frozen=True, slots=True)
class Ack:
    """Everything up to this sequence number is committed."""

    sequence: int


@dataclass(frozen=True, slots=True)
class Sync:
    """Bring the store up to date. `traceparent` names the trace that this belongs to, if any."""

    id: int
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class ReportState:
    """Report lifecycle and health again."""


@dataclass(frozen=True, slots=True)
class Drain:
    """Leave, and connect again after `retry_after`."""

    retry_after: timedelta


ServerEvent = Ack | Sync | ReportState | Drain
