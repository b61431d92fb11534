"""Every event of the server's log, for the documentation. A test holds it to what the code logs."""

from __future__ import annotations

from collections.abc import Sequence

from tasklogs.log_output import LIBRARY_LOGGED, LogEvent

LOG_EVENTS: Sequence[LogEvent] = (
    LogEvent(
        "certificate.expired",
        "warning",
        ("expired_at",),
        "The server's certificate was loaded and has expired. Renew it.",
    ),
    LogEvent(
        "certificate.rejected",
        "error",
        ("reason",),
        "The certificate files changed and cannot be used. The server keeps the certificate it"
        " had. Mend the files.",
    ),
    LogEvent(
        "certificate.reloaded",
        "info",
        (),
        "The certificate files changed. New connections get the new certificate.",
    ),
    LogEvent(
        "commit.failed",
        "error",
        ("tasks", "exception"),
        "A batch of commits failed in an unexpected way. Its agents send it again. Report a bug.",
    ),
    LogEvent(
        "commit.refused",
        "error",
        ("task", "error"),
        "Postgres refused the rows of one task. Its stream ends; other tasks go on. Look at "
        "the log of Postgres.",
    ),
    LogEvent(
        "commit.undecided",
        "warning",
        ("tasks",),
        "The connection to Postgres broke during a batch of commits. The agents of the batch "
        "ask what was stored and go on from there. Nothing to do if it is rare.",
    ),
    LogEvent(
        "connections.reduced",
        "warning",
        ("connections", "fix"),
        "The hard limit of open files is too low for TASKLOGS_CONNECTIONS. The server takes "
        "fewer connections. Raise the limit.",
    ),
    LogEvent(
        "feed.commit_refused",
        "error",
        ("task", "exception"),
        "A commit could not be handed to followers directly. They read it from the store "
        "instead. Report a bug.",
    ),
    LogEvent(
        "feed.failed",
        "error",
        ("task", "exception"),
        "The follows of one task ended in an unexpected way. Their callers are told INTERNAL. "
        "Report a bug.",
    ),
    LogEvent(
        "flush.failed",
        "warning",
        (),
        "The store was away when the server ended. When the last changes were seen is not "
        "stored; no entry is lost.",
    ),
    LogEvent(
        "grpc.workaround_missing",
        "warning",
        ("workaround", "consequence"),
        "This version of grpcio lacks something that a workaround needs. The server works, "
        "with the consequence that the line names. Use a tested version of grpcio.",
    ),
    LogEvent(
        "keys.kept",
        "warning",
        ("source", "reason"),
        "The JWKS could not be read. The server keeps the keys it had. Look at the issuer, or "
        "mend the file.",
    ),
    LogEvent(
        "keys.loaded",
        "info",
        ("source", "keys", "skipped"),
        "The JWKS was read. `skipped` says which of its keys are not used, and why.",
    ),
    LogEvent(
        "keys.missing",
        "warning",
        ("source", "reason"),
        "There is no key to check tokens with: every token is refused, or answered UNAVAILABLE"
        " if no key was ever read. Look at the issuer, or mend the file.",
    ),
    LIBRARY_LOGGED,
    LogEvent(
        "log.evicted",
        "debug",
        ("task", "revision"),
        "Entries up to this revision left a log that was at its limits.",
    ),
    LogEvent(
        "log.not_evicted",
        "error",
        ("task", "error"),
        "Postgres refused an eviction from one log. Look at the log of Postgres.",
    ),
    LogEvent(
        "losses.failed",
        "error",
        ("exception",),
        "The sessions that ended could not be marked in the store. It is tried again at the "
        "next tick. Report a bug.",
    ),
    LogEvent(
        "postgres.ended",
        "error",
        ("how",),
        "The embedded Postgres ended by itself. The server ends too, with exit code 1. Start "
        "it again, and look at the log of Postgres.",
    ),
    LogEvent(
        "purge.failed",
        "error",
        ("exception",),
        "The rows of deleted tasks could not be deleted. It is tried again. Report a bug.",
    ),
    LogEvent(
        "purge.postponed",
        "info",
        ("reason",),
        "The rows of deleted tasks stay until the store is back.",
    ),
    LogEvent(
        "retention.failed",
        "error",
        ("work", "exception"),
        "A piece of the retention work failed. It is tried again. Report a bug.",
    ),
    LogEvent(
        "rpc.ended",
        "info",
        ("request_id", "method", "task", "code", "duration_ms"),
        "A call ended. Written as TASKLOGS_LOG_CALLS says.",
    ),
    LogEvent(
        "rpc.failed",
        "error",
        ("method", "exception"),
        "A call failed in an unexpected way. Its caller is told INTERNAL. Report a bug.",
    ),
    LogEvent(
        "secret.exposed",
        "warning",
        ("path", "fix"),
        "Every user of this machine can read a private key or a shared secret. Take the right "
        "away.",
    ),
    LogEvent(
        "server.aborted",
        "warning",
        (),
        "A second signal came. The server ended at once, with exit code 1, without a drain.",
    ),
    LogEvent(
        "server.draining",
        "info",
        (),
        "A signal came. The server refuses new calls and waits for open ones.",
    ),
    LogEvent(
        "server.interrupted",
        "info",
        (),
        "A signal came before the server was ready. It ended.",
    ),
    LogEvent(
        "server.started",
        "info",
        (
            "version",
            "address",
            "health_address",
            "metrics_address",
            "auth",
            "tls",
            "database",
            "read_connections",
            "reads",
            "follows",
            "agents",
        ),
        "The server is ready. The numbers are those of the settings.",
    ),
    LogEvent(
        "server.stopped",
        "info",
        (),
        "The drain is over and everything is closed.",
    ),
    LogEvent(
        "sessions.tick_failed",
        "error",
        ("exception",),
        "What changed without a commit could not be stored. It is tried again. Report a bug.",
    ),
    LogEvent(
        "store.found",
        "info",
        (),
        "Postgres answers again.",
    ),
    LogEvent(
        "store.heartbeat_refused",
        "warning",
        (),
        "Postgres answers, but takes no writes: its disk may be full, or it may be a replica.",
    ),
    LogEvent(
        "store.lost",
        "warning",
        (),
        "Postgres does not answer. Calls are told UNAVAILABLE until it does. Look at Postgres.",
    ),
    LogEvent(
        "store.monitor_failed",
        "error",
        ("exception",),
        "The look at Postgres failed in an unexpected way. It is tried again. Report a bug.",
    ),
    LogEvent(
        "store.row_refused",
        "error",
        ("task", "error"),
        "Postgres refused a change of one task. Other tasks go on. Look at the log of Postgres.",
    ),
    LogEvent(
        "store.writes_refused",
        "warning",
        ("tasks",),
        "Postgres takes no commit: its disk may be full, or it is read-only. Agents keep what "
        "they have. Look at Postgres.",
    ),
    LogEvent(
        "task.not_purged",
        "error",
        ("task", "error"),
        "Postgres refused to delete the rows of one deleted task. Look at the log of Postgres.",
    ),
    LogEvent(
        "task.not_retired",
        "error",
        ("task", "error"),
        "Postgres refused to delete a task that is past TASKLOGS_RETENTION. Look at the log of"
        " Postgres.",
    ),
    LogEvent(
        "task.retired",
        "info",
        ("task",),
        "A task was paused for longer than TASKLOGS_RETENTION and is deleted.",
    ),
    LogEvent(
        "token.refused",
        "debug",
        ("reason",),
        "A bearer token was refused. Its caller is told UNAUTHENTICATED without the reason.",
    ),
    LogEvent(
        "writer.failed",
        "error",
        ("task", "exception"),
        "One stream failed while its commit was prepared or confirmed. It ends; other tasks go"
        " on. Report a bug.",
    ),
)
