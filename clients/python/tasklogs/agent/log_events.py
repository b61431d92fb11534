"""Every event of the agent's own log. A test holds this list against the code."""

from __future__ import annotations

from collections.abc import Sequence

from tasklogs.log_output import LIBRARY_LOGGED, RECORDS_LOST, LogEvent

LOG_EVENTS: Sequence[LogEvent] = (
    LogEvent(
        "agent.started",
        "info",
        ("version", "server", "tls", "source", "place", "build_number"),
        "The agent has started. It reads `source` at `place`, and connects now.",
    ),
    LogEvent(
        "source.ended",
        "info",
        (),
        "The source has ended: standard input was closed. The agent sends the rest and exits.",
    ),
    LogEvent(
        "agent.leaving",
        "info",
        ("reason",),
        "The agent stops: `PAUSING` (SIGTERM, or its source has ended) or `STOPPING` (SIGINT,"
        " SIGHUP).",
    ),
    LogEvent(
        "stream.opened",
        "info",
        ("session", "epoch", "entries"),
        "The session with the server is open. `epoch` and `entries` (their number) describe the"
        " stored log.",
    ),
    LogEvent(
        "entries.omitted",
        "warning",
        ("count", "types"),
        "The server does not store entries of these types. The agent does not send them. It logs"
        " this once per stream, when it finds the first ones. Update the server.",
    ),
    LogEvent(
        "stream.ended",
        "warning",
        ("code", "reason", "info", "again_in_seconds"),
        "The agent stream ended or did not open. `code`, `reason` and `info` say why."
        " `again_in_seconds` is the wait before the next attempt.",
    ),
    LogEvent(
        "stream_limit.found",
        "warning",
        ("limit_bytes", "sent_bytes", "stored_bytes"),
        "The stream broke after `sent_bytes`. The first `stored_bytes` of them were stored. A proxy"
        " may limit the size of a request, and count a stream as one request (nginx:"
        " `client_max_body_size`). From now on a stream carries at most `limit_bytes`. The limit"
        " doubles every 10 minutes.",
    ),
    LogEvent(
        "stream.used_up",
        "info",
        (),
        "The stream has carried as many bytes as the limit that was found allows. All of them are"
        " stored. The agent continues on a new stream at once.",
    ),
    LogEvent(
        "token.refused",
        "warning",
        ("reason",),
        "The server refused the agent token. The agent waits for a new token in `--token-file`.",
    ),
    LogEvent("token.changed", "info", (), "The agent found a new token and connects with it."),
    LogEvent(
        "task_app.ready",
        "info",
        (),
        "The task app reported the status `stable`, or showed a message of a user. From now on the"
        " agent sends the conversation.",
    ),
    LogEvent(
        "task_app.failed",
        "warning",
        ("reason",),
        "The agent could not read the task app. It keeps trying, and logs this again when the"
        " reason changes.",
    ),
    LogEvent(
        "transcript.changed",
        "info",
        ("change",),
        "Something happened to the transcript. `missing`: there is no file yet; the agent waits."
        " `refused`: it is no regular file, or a symbolic link that leads out of its directory."
        " `moved`: another file has taken its place and begins with all that was read; the agent"
        " reads on. `started_over`: it was truncated or replaced; the agent opens an epoch."
        " `ended`: standard input was closed.",
    ),
    LogEvent(
        "transcript.failed",
        "warning",
        ("reason",),
        "The agent could not read the transcript. It keeps trying, and logs this again when the"
        " reason changes.",
    ),
    LogEvent(
        "transcript.left_out",
        "info",
        ("count", "kinds"),
        "These lines of the transcript, or parts of lines, are not sent: the source does not know"
        " their type, or they are no JSON, or longer than 8 MiB. The agent logs this once, and the"
        " totals when it exits.",
    ),
    LogEvent(
        "transcript.reread",
        "warning",
        ("reason",),
        "The stored log is not what the agent has sent. The agent reads the transcript from its"
        " start, and opens an epoch if the stored log does not match.",
    ),
    LogEvent(
        "last_sync.failed",
        "warning",
        ("reason",),
        "The agent stops, and could not read its source once more. It ends its session without that"
        " last read.",
    ),
    LIBRARY_LOGGED,
    RECORDS_LOST,
)
