"""The server's settings: flags override `TASKLOGS_*` variables, which override the defaults."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le
from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from tasklogs_server.domain.admin_subjects import parse_admin_subjects

_MIB = 1024 * 1024


def _from_seconds(value: object) -> object:
    # Of a string, pydantic accepts ISO 8601 only. A variable that says 5 means 5 seconds.
    with suppress(ValueError):
        if isinstance(value, str):
            return timedelta(seconds=float(value))
    return value


def _with_clear_subjects(text: str) -> str:
    parse_admin_subjects(text)
    return text


def _with_known_bus(text: str) -> str:
    urls = text.split(",")
    if text != "postgres" and not all(url.startswith(("nats://", "tls://")) for url in urls):
        raise ValueError("must be postgres, or URLs that begin with nats:// or tls://")
    return text


Seconds = Annotated[timedelta, Ge(timedelta(0)), BeforeValidator(_from_seconds)]


class ServerSettings(BaseSettings):
    """Every setting of `tasklogs serve`. Lengths of time are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix="TASKLOGS_", frozen=True)

    listen: str = Field(
        "127.0.0.1:50051",
        description="Address to listen on: HOST:PORT. With port 0, the server picks a free port.",
    )
    workers: int = Field(
        1,
        ge=0,
        le=256,
        description="Processes that serve the same port. 0: one per processor core. With several,"
        " a supervisor starts them and replaces those that end or freeze. Every other setting of"
        " memory, limits and connections applies to each worker: the service may use so many"
        " times as much.",
    )
    worker_timeout: Annotated[Seconds, Ge(timedelta(seconds=1))] = Field(
        timedelta(seconds=4),
        description="With several workers: how long the event loop of a worker may stand still."
        " After that, the supervisor kills the worker and starts another one.",
    )
    # `repr=False` keeps it out of what is printed of the settings: it may hold a password.
    database_url: str | None = Field(
        None,
        repr=False,
        description="URL of your own Postgres server, version 15 or newer, with the encoding UTF8."
        " It may name several hosts. Unset: the server runs an embedded Postgres in the data"
        " directory.",
    )
    # It may hold a password, too.
    bus: Annotated[str, AfterValidator(_with_known_bus)] = Field(
        "postgres",
        repr=False,
        description="How the server processes on one database tell each other what changed."
        " `postgres`: by notifications of the database. Or the URLs of the nodes of a NATS"
        " cluster, separated by commas: nats://HOST:4222. All processes need the same.",
    )
    data_dir: Path = Field(
        Path("tasklogs-data"),
        description="Directory of the embedded Postgres and of the key for --auth dev.",
    )
    insecure: bool = Field(
        False, description="Allow a non-loopback address without TLS or authentication."
    )
    tls_cert: Path | None = Field(
        None,
        description="File with the server's certificate chain (PEM). The server loads a changed"
        " file without a restart.",
    )
    tls_key: Path | None = Field(
        None, description="File with the private key of the certificate (PEM)."
    )
    tls_client_ca: Path | None = Field(
        None,
        description="File with certificate authorities (PEM). Every client must then present a"
        " certificate that one of these authorities signed.",
    )
    auth: Literal["none", "jwt", "mtls", "dev"] = Field(
        "none",
        description="How the server authenticates callers. `none`: not at all. `jwt`: by tokens"
        " of an issuer. `mtls`: by client certificates. `dev`: by tokens from `tasklogs token`,"
        " for development. Agents always use the token of their task.",
    )
    jwt_issuer: str | None = Field(None, description="Required `iss` claim of tokens.")
    jwt_audience: str | None = Field(None, description="Required `aud` claim of tokens.")
    jwks_file: Path | None = Field(
        None,
        description="File with the issuer's keys (JWKS). The server loads a changed file without a"
        " restart.",
    )
    jwks_url: str | None = Field(None, repr=False, description="URL of the issuer's keys (JWKS).")
    # The issuer is somebody else's server. Callers must not be able to make this one flood it.
    jwks_refresh: Annotated[Seconds, Ge(timedelta(seconds=1))] = Field(
        timedelta(minutes=5), description="Interval at which the server reads the JWKS URL."
    )
    jwks_unknown_key: Annotated[Seconds, Ge(timedelta(seconds=1))] = Field(
        timedelta(seconds=10),
        description="Minimum time between two extra reads of the JWKS URL. The server makes an"
        " extra read when a token names an unknown key.",
    )
    jwt_shared_secret_file: Path | None = Field(
        None,
        description="File with a secret that the server and the issuer share (HS256, HS384,"
        " HS512). Use it instead of a JWKS. Every process that has this secret can make tokens.",
    )
    jwt_leeway: Annotated[Seconds, Le(timedelta(minutes=5))] = Field(
        timedelta(seconds=10),
        description="Largest difference between the clocks of issuer and server that the server"
        " accepts.",
    )
    admin_subjects: Annotated[str, AfterValidator(_with_clear_subjects)] = Field(
        "",
        description="Comma-separated subjects with admin rights, in addition to tokens that carry"
        " the scope tasklogs:admin. Or a JSON list of subjects, which may then contain commas:"
        ' ["alice", "CN=bob,O=example"].',
    )
    log_format: Literal["console", "json"] = Field(
        "console", description="Format of the server's own log, on stderr."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest level that the server logs."
    )
    agent_wait: Seconds = Field(
        timedelta(seconds=3),
        description="How long a live read waits for the task's agent to connect. After that, the"
        " server refuses the read (AGENT_UNREACHABLE). If the agent comes and goes, all waits of"
        " one read count together.",
    )
    sync_timeout: Seconds = Field(
        timedelta(seconds=10),
        description="How long a live read waits for the agent to bring the log up to date. After"
        " that, the server refuses the read (TASK_APP_ERROR). If the agent comes and goes, all"
        " syncs of one read count together. So a read waits for its agent at most"
        " TASKLOGS_AGENT_WAIT plus TASKLOGS_SYNC_TIMEOUT, and never beyond its caller's deadline.",
    )
    lease: Seconds = Field(
        timedelta(seconds=30),
        description="How long a standalone task (without an orchestrator) stays active after it"
        " loses its agent stream. After that, its status is unknown.",
    )
    drain_timeout: Seconds = Field(
        timedelta(seconds=8),
        description="How long the server waits for open calls after SIGTERM or Ctrl-C. After"
        " that, it ends them.",
    )
    page_bytes: int = Field(
        1_000_000, ge=1, le=1_500_000, description="Approximate size of one page of a log."
    )
    message_bytes: int = Field(
        4 * _MIB,
        ge=2 * _MIB,
        description="Maximum size of one message from a client or an agent. The server refuses"
        " larger messages.",
    )
    window_bytes: int = Field(
        4 * _MIB,
        ge=_MIB,
        description="Maximum unacknowledged bytes on one agent stream. While there are more, the"
        " server does not read the stream.",
    )
    append_bytes: int = Field(
        2 * _MIB,
        ge=_MIB,
        description="Maximum size of one append: a message of an agent with changes of the log."
        " The server tells agents this limit and does not check it. It refuses only messages"
        " above TASKLOGS_MESSAGE_BYTES.",
    )
    ingest_bytes: int = Field(
        256 * _MIB,
        ge=4 * _MIB,
        description="Maximum unacknowledged bytes on all agent streams together. An append that"
        " would exceed it waits, and the server does not read its stream meanwhile.",
    )
    tail_bytes: int = Field(
        256 * _MIB,
        ge=0,
        description="Memory for tails. A tail is the last entry of a log, which may still grow."
        " The server holds the tails of agent streams and of followed tasks, and removes a tail"
        " from memory 30 s after its last change. If all tails together are above this limit, it"
        " removes those that have been idle longest, within 5 s. When a removed tail grows again,"
        " the server reads it from Postgres.",
    )
    page_cache_bytes: int = Field(
        64 * _MIB,
        ge=0,
        description="Memory for pages of logs that were read, in the form in which they are sent."
        " Every read checks in Postgres that its page has not changed since. Pages that were not"
        " read for longest are removed first. 0: no page is kept.",
    )
    handshakes: int = Field(
        4,
        ge=1,
        description="Maximum agents that connect (session handshakes) at the same time. Further"
        " agents wait in a queue for up to 5 s. After that, the server refuses them.",
    )
    log_bytes: int = Field(
        1024 * _MIB,
        ge=16 * _MIB,
        description="Maximum bytes of content of one log, over all epochs. Above it, the server"
        " evicts the oldest entries.",
    )
    log_entries: int = Field(
        1_000_000,
        ge=100,
        description="Maximum entries of one log, over all epochs. The start of an epoch and a"
        " withdrawal each count as one entry. Above it, the server evicts the oldest entries.",
    )
    min_retention: Seconds = Field(
        timedelta(days=7),
        description="Minimum age of an entry before the server may evict it. If no entry is old"
        " enough, the server refuses appends (LOG_FULL).",
    )
    epochs_per_hour: int = Field(
        60,
        ge=1,
        description="Maximum new epochs (conversations) of one task in an hour. Above it, the"
        " server refuses appends and uploads that open an epoch (TOO_MANY_REQUESTS).",
    )
    retention: Seconds | None = Field(
        None,
        description="Delete tasks that have been paused for this long, without an agent stream"
        " or a change of the log. The server never does this to tasks with another status. Unset:"
        " only DeleteTask deletes tasks.",
    )
    reads: int = Field(
        128,
        ge=1,
        description="Maximum concurrent reads. Each read may hold one page in memory. Further"
        " reads wait in a queue.",
    )
    queued_reads: int = Field(
        2000,
        ge=0,
        description="Maximum reads in that queue, and lists of tasks in theirs. In a full queue the"
        " caller with the most calls makes room; the server refuses other calls.",
    )
    waiting_reads: int = Field(
        10_000,
        ge=1,
        description="Maximum live reads that wait for an agent at the same time. They do not"
        " count as concurrent reads.",
    )
    writes: int = Field(
        256,
        ge=1,
        description="Maximum concurrent calls that change a task.",
    )
    follows: int = Field(5000, ge=1, description="Maximum concurrent follows.")
    agents: int = Field(5000, ge=1, description="Maximum concurrent agent streams.")
    uploads: int = Field(
        4,
        ge=1,
        description="Maximum concurrent uploads in parts. Each may hold a conversation of 64 MiB"
        " in memory. If all are in use, a new upload takes the place of one that sends less than"
        " 64 KiB per second.",
    )
    uploads_at_work: int = Field(
        2,
        ge=1,
        description="Maximum uploads that the server decodes and stores at the same time. Further"
        " uploads wait for their turn, at most 20 s.",
    )
    queued_upload_bytes: int = Field(
        64 * _MIB,
        ge=4 * _MIB,
        description="Maximum bytes of all UploadLogSnapshot requests that wait for their turn or"
        " are being stored. Above it, the server refuses further ones.",
    )
    calls_per_second: float = Field(
        200.0,
        gt=0,
        description="Maximum average calls per second of one caller. A task's agent is one"
        " caller. Without --auth, this limits only agents.",
    )
    calls_at_once: int = Field(
        400,
        ge=1,
        description="Maximum calls in one burst of one caller (token bucket). Without --auth, this"
        " limits only agents.",
    )
    agent_connects_per_second: float = Field(
        1.0, gt=0, description="Maximum average stream opens per second of one agent."
    )
    agent_connects_at_once: int = Field(
        20,
        ge=1,
        description="Maximum stream opens in one burst of one agent (token bucket).",
    )
    streams_per_caller: int = Field(
        500,
        ge=1,
        description="Maximum concurrent follows of one caller. Streams of server reflection count"
        " too. Without --auth there is no limit.",
    )
    health_watches: int = Field(
        5000,
        ge=1,
        description="Maximum concurrent watches of the health service, over all clients. A watch"
        " needs no credentials.",
    )
    connections: int = Field(
        10_000,
        ge=1,
        description="Maximum concurrent connections. The server closes further connections at"
        " once. The process's limit on open files may allow fewer.",
    )
    streams_per_connection: int = Field(
        600,
        ge=1,
        description="Maximum concurrent calls on one connection. An open follow and an open agent"
        " stream count as a call.",
    )
    pending_calls: int = Field(
        3000,
        ge=1,
        description="Maximum calls that have arrived and that the server has not accepted yet, over"
        " all connections: of each of the seven methods that are called the most, and of all other"
        " methods together. Cancelled calls count too. Each call takes 17 KB. Further calls end as"
        " CANCELLED.",
    )
    handshake_timeout: Annotated[Seconds, Gt(timedelta(0))] = Field(
        timedelta(seconds=10),
        description="How long a new connection may take to complete the TLS and HTTP/2 handshakes.",
    )
    connection_idle: Annotated[Seconds, Gt(timedelta(0))] = Field(
        timedelta(minutes=5),
        description="The server closes a connection that had no open call for this time.",
    )
    request_timeout: Annotated[Seconds, Gt(timedelta(0))] = Field(
        timedelta(seconds=30),
        description="How long one request may take to arrive. After that, the server ends the"
        " call.",
    )
    upload_timeout: Annotated[Seconds, Gt(timedelta(0))] = Field(
        timedelta(minutes=10),
        description="How long all messages of an upload in parts may take to arrive.",
    )
    answer_bytes: int = Field(
        256 * _MIB,
        ge=16 * _MIB,
        description="Maximum bytes of responses that callers have not read yet. One caller may"
        " use half of it. Above it, the server refuses calls and discards the responses that have"
        " waited longest. Follows may use half of it for their messages, and three quarters for"
        " small messages. One caller may use half of these shares. Above that, follows wait, and"
        " the server ends the follows of callers that do not read.",
    )
    answer_timeout: Annotated[Seconds, Gt(timedelta(0))] = Field(
        timedelta(seconds=30),
        description="How long a caller may take to read one response, or one message of a follow."
        " After that, the server discards the response, or ends the follow.",
    )
    default_deadline: Annotated[Seconds, Gt(timedelta(0))] = Field(
        timedelta(seconds=60),
        description="Default deadline for unary calls that arrive without one.",
    )
    connection_age: Seconds | None = Field(
        None,
        description="Maximum age of a connection. After that, the client must connect again and"
        " present its certificate again. Unset: no limit, or 30 minutes with several workers, so"
        " that connections spread over them again.",
    )
    connection_age_grace: Seconds = Field(
        timedelta(seconds=30),
        description="How long open calls may continue on a connection that has reached its"
        " maximum age.",
    )
    ping_interval: Seconds = Field(
        timedelta(seconds=5),
        description="Minimum time between two HTTP/2 pings of a client. The server disconnects"
        " clients that ping more often.",
    )
    read_connections: int = Field(
        8,
        ge=1,
        description="Maximum connections to Postgres for reads and for changes of tasks. The server"
        " opens up to ten more: four for commits, one for large uploads, one for evictions, two to"
        " delete tasks, one for its monitor, one for notes to other servers.",
    )
    store_wait: Seconds = Field(
        timedelta(seconds=2),
        description="Maximum wait of a read in the queue, and of a call for a connection to"
        " Postgres. After that, the server refuses the call.",
    )
    health_listen: str | None = Field(
        None,
        description="PORT or HOST:PORT of a plain-text port that serves only grpc.health.v1, for"
        " probes without TLS. PORT alone: on 127.0.0.1. Unset: no such port.",
    )
    metrics_listen: str | None = Field(
        None,
        description="PORT or HOST:PORT of an HTTP port for Prometheus. PORT alone: on 127.0.0.1."
        " Unset: no metrics.",
    )
    log_calls: Literal["none", "failed", "all"] = Field(
        "none",
        description="Which calls the server logs when they end. `failed`: all calls except OK and"
        " CANCELLED.",
    )
    traces: bool = Field(
        False, description="Export traces with OTLP. The OTEL_* variables set the destination."
    )
    channelz: bool = Field(
        False,
        description="Serve grpc.channelz, which shows all connections and their addresses to"
        " admins.",
    )
    loop: Literal["uvloop", "asyncio"] = Field(
        "uvloop", description="Event loop. If uvloop is not installed, the server uses asyncio."
    )

    @property
    def is_worker(self) -> bool:
        """Whether these are the settings of one of several workers."""
        return self.workers > 1
