"""The messages of the agent stream, as plain data."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import timedelta

from tasklogs.log.append import Append
from tasklogs.log.continuation import Position
from tasklogs_server.domain.status import AgentLifecycle, AppHealth

# The cost of an entry or a piece in addition to its content. Without it, empty entries would not
# fill a window.
_COST_BYTES = 256


@dataclass(frozen=True, slots=True)
class Hello:
    """The agent's first message.

    `build_number` None: the session belongs to the latest START build, also after a new one.
    """

    agent_version: str
    task_app: str
    build_number: int | None


def cost_bytes(append: Append) -> int:
    """Return what an append costs in memory: content, names, and a fixed cost for each entry.

    The first piece of a delta is in the fixed cost of the append.
    """
    pieces = 1 if append.tail is None else len(append.tail.delta.pieces)
    return append.size_bytes + _COST_BYTES * (pieces + len(append.entries))


@dataclass(frozen=True, slots=True)
class AgentState:
    """The agent's report about itself and the task app. None: unchanged."""

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
    """The server's first message: the session's fence and limits, and the stored position."""

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
    """Bring the store up to date. `traceparent` names the trace of the sync, if there is one."""

    id: int
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class ReportState:
    """Report lifecycle and health again."""


@dataclass(frozen=True, slots=True)
class Drain:
    """Disconnect, and connect again after `retry_after`."""

    retry_after: timedelta


ServerEvent = Ack | Sync | ReportState | Drain
