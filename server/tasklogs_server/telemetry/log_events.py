"""Every event of the server's log, for the documentation. A test holds it to what the code logs."""

from __future__ import annotations

from collections.abc import Sequence

from tasklogs.log_output import LIBRARY_LOGGED, RECORDS_LOST, LogEvent

LOG_EVENTS: Sequence[LogEvent] = (
    LogEvent(
        "agent_message.refused",
        "warning",
        ("task", "unsupported"),
        "An agent sent something that this version of the server does not know. The stream ended,"
        " and nothing of the message was stored. Update the server, or correct the agent: it sends"
        " what Welcome does not name.",
    ),
    LogEvent(
        "bus.found",
        "info",
        (),
        "Notes of other server processes arrive again.",
    ),
    LogEvent(
        "bus.lost",
        "warning",
        ("reason",),
        "The connection to the bus (Postgres or NATS) ended, or could not be opened. The server"
        " tries again every 0.5 s. Until then it hears of other server processes within 10 s only,"
        " and refuses live reads of tasks whose agents are connected to them. One server alone"
        " needs no bus.",
    ),
    LogEvent(
        "bus.payload_refused",
        "warning",
        ("size_bytes",),
        "Something other than a server process sends on the channel or the subject of the bus."
        " This is logged once. Find the sender.",
    ),
    LogEvent(
        "bus.process_lost",
        "info",
        ("process",),
        "Another server process was not heard for 3 s: it was killed, hangs, or is cut off.",
    ),
    LogEvent(
        "bus.process_unheard",
        "warning",
        ("process",),
        "Another server process works on the same database, and is not heard on the bus. Live reads"
        " at this server do not find its agents, and changes there are seen here within 10 s only."
        " Give all servers the same `TASKLOGS_BUS`.",
    ),
    LogEvent(
        "bus.server_found",
        "info",
        ("host", "pid", "version"),
        "Another server works on the same database, and is heard on the bus. It is logged at both"
        " of them, when they meet.",
    ),
    LogEvent(
        "certificate.expired",
        "warning",
        ("expired_at",),
        "The server loaded a certificate that has expired. Renew it.",
    ),
    LogEvent(
        "certificate.rejected",
        "error",
        ("reason",),
        "The certificate files changed, but the server cannot use them. It keeps the previous"
        " certificate. Fix the files.",
    ),
    LogEvent(
        "certificate.reloaded",
        "info",
        (),
        "The certificate files changed. New connections get the new certificate.",
    ),
    LogEvent(
        "commit.abandoned",
        "warning",
        ("task", "held_seconds"),
        "The server gave up a commit that waited for rows of its task. It had waited for a minute,"
        " or other tasks needed its memory. The agent stream of that task ended. The agent connects"
        " again and sends what is missing. Find the transaction that holds the rows.",
    ),
    LogEvent(
        "commit.delayed",
        "warning",
        ("task",),
        "A commit has waited for a second for rows of its task that another transaction holds."
        " Other tasks continue. Find that transaction.",
    ),
    LogEvent(
        "commit.failed",
        "error",
        ("tasks", "exception"),
        "A batch of commits failed unexpectedly. The agents of the batch connect again and send"
        " what is missing. Report a bug.",
    ),
    LogEvent(
        "commit.refused",
        "error",
        ("task", "error"),
        "Postgres refused the rows of one task. The server ended the agent stream of that task."
        " Other tasks continue. Check the Postgres log.",
    ),
    LogEvent(
        "commit.undecided",
        "warning",
        ("tasks",),
        "The connection to Postgres broke during a batch of commits, so the server does not know"
        " whether the batch was stored. The agents of the batch connect again and send what is"
        " missing. If this is rare, do nothing.",
    ),
    LogEvent(
        "connections.reduced",
        "warning",
        ("connections", "fix"),
        "The hard limit on open files is too low for TASKLOGS_CONNECTIONS. The server accepts"
        " fewer connections. Raise the limit.",
    ),
    LogEvent(
        "feed.commit_refused",
        "error",
        ("task", "exception"),
        "The server could not pass a commit to the follows of a task directly. The follows read"
        " it from Postgres instead. Report a bug.",
    ),
    LogEvent(
        "feed.failed",
        "error",
        ("task", "exception"),
        "The follows of one task ended unexpectedly. Their callers get INTERNAL. Report a bug.",
    ),
    LogEvent(
        "flush.failed",
        "warning",
        (),
        "Postgres was unavailable when the server stopped, so the server could not store the"
        " latest `snapshot_at` times. No entry is lost.",
    ),
    LogEvent(
        "generation.changed",
        "warning",
        ("former", "generation"),
        "Postgres has another history: it failed over to a standby, or a backup was restored. It"
        " may lack commits that it had acknowledged. All agents connect again and send what is"
        " missing. See *Failover*.",
    ),
    LogEvent(
        "generation.listener_failed",
        "error",
        ("exception",),
        "A part of the server could not handle a change of Postgres' history. Restart the server"
        " and report a bug.",
    ),
    LogEvent(
        "generation.refused",
        "warning",
        ("generation", "current"),
        "The database URL led to a standby (`generation` is null) or to a former primary that still"
        " answers. The server does not use this connection. Check where the address leads, and stop"
        " the former primary.",
    ),
    LogEvent(
        "generation.withheld",
        "warning",
        (),
        "The database user may not call `pg_control_system()` or `pg_walfile_name()`, or this"
        " Postgres lacks them. The server cannot notice that a failover lost commits. See"
        " *Failover*.",
    ),
    LogEvent(
        "grpc.workaround_missing",
        "warning",
        ("workaround", "consequence"),
        "The installed version of grpcio lacks something that a workaround of the server needs."
        " The server runs without the workaround. `consequence` says what that means. Install a"
        " tested version of grpcio.",
    ),
    LogEvent(
        "keys.kept",
        "warning",
        ("source", "reason"),
        "The server could not read the JWKS. It keeps the previous keys. Check the issuer or the"
        " file.",
    ),
    LogEvent(
        "keys.loaded",
        "info",
        ("source", "keys", "skipped"),
        "The server read the JWKS. `skipped` lists the keys that the server does not use, and why.",
    ),
    LogEvent(
        "keys.missing",
        "warning",
        ("source", "reason"),
        "The server has no key to check tokens with, so it refuses every token: with UNAVAILABLE"
        " if it has never read a key, else with UNAUTHENTICATED. Check the issuer or the file.",
    ),
    LIBRARY_LOGGED,
    LogEvent(
        "log.evicted",
        "debug",
        ("task", "revision"),
        "The server evicted entries up to this revision from a log that was at its limits.",
    ),
    LogEvent(
        "log.not_evicted",
        "error",
        ("task", "error"),
        "Postgres refused an eviction from one log. Check the Postgres log.",
    ),
    LogEvent(
        "losses.failed",
        "error",
        ("exception",),
        "The server could not record in Postgres which sessions have ended. It tries again within"
        " 5 s. Report a bug.",
    ),
    LogEvent(
        "migration.blocked",
        "warning",
        ("holder",),
        "The start waits for a lock that another session of Postgres holds: another server that"
        " brings the schema up to date, or a long transaction. `holder` is its process in"
        " pg_stat_activity. After 20 s the server exits.",
    ),
    LogEvent(
        "postgres.ended",
        "error",
        ("how",),
        "The embedded Postgres exited unexpectedly. The server exits too, with code 1. Check the"
        " Postgres log, and start the server again.",
    ),
    LogEvent(
        "purge.failed",
        "error",
        ("exception",),
        "The server could not delete the rows of deleted tasks. It tries again within 5 s. Report"
        " a bug.",
    ),
    LogEvent(
        "purge.postponed",
        "info",
        ("reason",),
        "Postgres is unavailable. The server deletes the rows of deleted tasks later. Logged once"
        " while Postgres stays away.",
    ),
    RECORDS_LOST,
    LogEvent(
        "retention.failed",
        "error",
        ("work", "exception"),
        "The hourly check of the log limits (`work`: sweep) or the deletion of paused tasks"
        " (`work`: retire) failed. The server tries again after a minute. Report a bug.",
    ),
    LogEvent(
        "rpc.ended",
        "info",
        ("request_id", "method", "task", "code", "duration_ms"),
        "A call ended. TASKLOGS_LOG_CALLS sets which calls are logged.",
    ),
    LogEvent(
        "rpc.failed",
        "error",
        ("method", "exception"),
        "A call failed unexpectedly. Its caller gets INTERNAL. Report a bug.",
    ),
    LogEvent(
        "secret.exposed",
        "warning",
        ("path", "fix"),
        "Every user of this machine can read a private key or a shared secret. Run the command in"
        " `fix`.",
    ),
    LogEvent(
        "server.aborted",
        "warning",
        (),
        "The server got a second signal. It exited at once, with code 1 and without a drain.",
    ),
    LogEvent(
        "server.draining",
        "info",
        (),
        "The server got a signal. It refuses new calls and waits for open calls.",
    ),
    LogEvent(
        "server.interrupted",
        "info",
        (),
        "The server got a signal before it was ready, and exited.",
    ),
    LogEvent(
        "server.started",
        "info",
        (
            "version",
            "address",
            "health_address",
            "metrics_address",
            "workers",
            "auth",
            "tls",
            "database",
            "bus",
            "read_connections",
            "reads",
            "follows",
            "agents",
        ),
        "The server is ready. `read_connections`, `reads`, `follows` and `agents` are the values"
        " of the settings, for each of the `workers`.",
    ),
    LogEvent(
        "server.stopped",
        "info",
        (),
        "The drain is over, and the server has ended all its work. It exits now.",
    ),
    LogEvent(
        "session.outdated",
        "info",
        ("task", "reason"),
        "The server ended an agent stream, because the database says that it is not the task's"
        " session any more: the task was deleted, its token rotated, a newer build started, another"
        " agent connected to another server, or the database lost commits.",
    ),
    LogEvent(
        "session_audit.failed",
        "error",
        ("exception",),
        "The server could not compare its agent streams with the store. It tries again within"
        " 5 s. Report a bug.",
    ),
    LogEvent(
        "sessions.tick_failed",
        "error",
        ("exception",),
        "The server could not store the latest `snapshot_at` times. It tries again within 5 s."
        " Report a bug.",
    ),
    LogEvent(
        "store.awaited",
        "warning",
        ("reason", "seconds"),
        "The start waits for a Postgres that is starting up or is a standby, at most `seconds`.",
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
        ("reason",),
        "Postgres answers but refuses writes. `reason` is what Postgres says: its disk may be full,"
        " or it may be read-only. Logged again when the reason changes.",
    ),
    LogEvent(
        "store.lost",
        "warning",
        ("reason",),
        "Postgres cannot be used. Calls get UNAVAILABLE until it can. `reason` is what Postgres, a"
        " pooler or the network says, for each host of the URL. Logged again when the reason"
        " changes. Check Postgres.",
    ),
    LogEvent(
        "store.monitor_failed",
        "error",
        ("exception",),
        "The check of Postgres failed unexpectedly. The server tries again. Report a bug.",
    ),
    LogEvent(
        "store.row_refused",
        "error",
        ("task", "error"),
        "Postgres refused a change of one task. Other tasks continue. Check the Postgres log.",
    ),
    LogEvent(
        "store.writes_refused",
        "warning",
        ("tasks",),
        "Postgres refuses all commits: its disk may be full, or it is read-only. The agents send"
        " their changes again later. Check Postgres.",
    ),
    LogEvent(
        "task.blocked",
        "warning",
        ("task", "work"),
        "For more than a minute, the server could not delete the rows of one deleted task (`work`:"
        " purge), or a task that is past TASKLOGS_RETENTION (`work`: retire). It tries again, and"
        " other tasks do not wait. Unless the log says that Postgres refuses, another transaction"
        " has locked rows of the task: look for it in pg_stat_activity.",
    ),
    LogEvent(
        "task.not_purged",
        "error",
        ("task", "error"),
        "Postgres refused to delete the rows of one deleted task. The server tries again, after"
        " ten minutes at most. Check the Postgres log.",
    ),
    LogEvent(
        "task.not_retired",
        "error",
        ("task", "error"),
        "Postgres refused to delete a task that is past TASKLOGS_RETENTION. The server tries"
        " again, after ten minutes at most. Check the Postgres log.",
    ),
    LogEvent(
        "task.retired",
        "info",
        ("task",),
        "The server deleted a task that was paused for longer than TASKLOGS_RETENTION.",
    ),
    LogEvent(
        "token.refused",
        "debug",
        ("reason",),
        "The server refused a bearer token. The caller gets UNAUTHENTICATED without the reason.",
    ),
    LogEvent(
        "worker.aborted",
        "warning",
        ("worker", "pid", "how"),
        "A worker did not end in time after the drain, and the supervisor killed it. Or it died in"
        " the drain.",
    ),
    LogEvent(
        "worker.ended",
        "warning",
        ("worker", "pid", "how"),
        "A worker ended by itself, could not start again, or was killed because its event loop"
        " stood still. `how` says which. The supervisor starts another one: at once after a worker"
        " that served for 10 s, else after a pause of up to 30 s.",
    ),
    LogEvent(
        "worker.metrics_failed",
        "error",
        ("exception",),
        "A worker could not collect its metrics: they are missing in one scrape. Report a bug.",
    ),
    LogEvent(
        "worker.started",
        "info",
        ("worker", "pid"),
        "A worker takes calls.",
    ),
    LogEvent(
        "writer.failed",
        "error",
        ("task", "exception"),
        "The server could not prepare or confirm the commit of one agent stream. It ended that"
        " stream. Other tasks continue. Report a bug.",
    ),
)
