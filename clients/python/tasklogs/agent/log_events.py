"""Every event of the agent's own log. A test holds this list against the code."""

from __future__ import annotations

from collections.abc import Sequence

from tasklogs.log_output import LIBRARY_LOGGED, LogEvent

LOG_EVENTS: Sequence[LogEvent] = (
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
    LIBRARY_LOGGED,
)
