"""Every event of the agent's own log. A test holds this list against the code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One kind of line: its name (noun.verb), its level, its fields, and what it means."""

    name: str
    level: Literal["debug", "info", "warning", "error"]
    fields: tuple[str, ...]
    meaning: str


LOG_EVENTS = (
    LogEvent(
        "agent.started",
        "info",
        ("version", "server", "tls", "source", "task_app", "build_number"),
        "The agent runs and is about to connect.",
    ),
    LogEvent(
        "agent.leaving",
        "info",
        ("reason",),
        "A signal asked the agent to leave: `PAUSING` (SIGTERM) or `STOPPING` (SIGINT).",
    ),
    LogEvent(
        "stream.opened",
        "info",
        ("session", "epoch", "entries"),
        "The server accepted the agent; `epoch` and `entries` are those of the stored log.",
    ),
    LogEvent(
        "stream.ended",
        "warning",
        ("code", "reason", "info", "again_in_seconds"),
        "There is no stream, or no more: the status that ended it, and the wait before the next.",
    ),
    LogEvent(
        "token.refused",
        "warning",
        ("reason",),
        "The server refused the token; the agent waits for another one in its `--token-file`.",
    ),
    LogEvent("token.changed", "info", (), "Another token was found; the agent connects with it."),
    LogEvent(
        "task_app.ready",
        "info",
        (),
        "The task app said `stable`, or showed what a user said: its conversation is sent.",
    ),
    LogEvent(
        "task_app.failed",
        "warning",
        ("reason",),
        "The task app could not be read. Logged when the reason changes; the agent keeps trying.",
    ),
    LogEvent(
        "last_sync.failed",
        "warning",
        ("reason",),
        "The agent says goodbye without having read the task app once more.",
    ),
)
