"""The server's settings: flags override `TASKLOGS_*` variables, which override the defaults."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le
from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

_MIB = 1024 * 1024


def _from_seconds(value: object) -> object:
    # Of a string, pydantic accepts ISO 8601 only. A variable that says 5 means 5 seconds.
    with suppress(ValueError):
        if isinstance(value, str):
            return timedelta(seconds=float(value))
    return value


def host_and_port(listen: str) -> tuple[str, int]:
    """Split PORT or HOST:PORT. A port alone is on 127.0.0.1. Raises ValueError."""
    host, _, port = listen.rpartition(":")
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("must be PORT or HOST:PORT")
    return host or "127.0.0.1", int(port)


Seconds = Annotated[timedelta, Ge(timedelta(0)), BeforeValidator(_from_seconds)]


class ServerSettings(BaseSettings):
    """Every setting of `tasklogs serve`. Lengths of time are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix="TASKLOGS_", frozen=True)

    listen: str = Field(
        "127.0.0.1:50051", description="HOST:PORT to listen on. Port 0 takes a free port."
    )
    # `repr=False` keeps it out of what is printed of the settings: it may hold a password.
    database_url: str | None = Field(
        None,
        repr=False,
        description="URL of a Postgres, version 15 or newer. Unset: an embedded Postgres in the"
        " data directory.",
    )
    data_dir: Path = Field(Path("tasklogs-data"), description="Directory of the embedded Postgres.")
    insecure: bool = Field(
        False, description="Allow addresses beyond loopback without TLS or authentication."
    )
    tls_cert: Path | None = Field(
        None,
        description="File with the server's certificate chain (PEM). A changed file is loaded"
        " without a restart.",
    )
    tls_key: Path | None = Field(
        None, description="File with the private key of the certificate (PEM)."
    )
    tls_client_ca: Path | None = Field(
        None,
        description="File with certificate authorities (PEM). Clients must then have a certificate"
        " that one of them signed.",
    )
    auth: Literal["none", "jwt", "mtls", "dev"] = Field(
        "none", description="How callers are authenticated."
    )
    jwt_issuer: str | None = Field(None, description="Required `iss` claim of tokens.")
    jwt_audience: str | None = Field(None, description="Required `aud` claim of tokens.")
    jwks_file: Path | None = Field(
        None,
        description="File with the issuer's keys (JWKS). A changed file is loaded without a"
        " restart.",
    )
    jwks_url: str | None = Field(None, repr=False, description="URL of the issuer's keys (JWKS).")
    # The issuer is somebody else's server. Callers must not be able to make this one flood it.
    jwks_refresh: Annotated[Seconds, Ge(timedelta(seconds=1))] = Field(
        timedelta(minutes=5), description="Time between two reads of the JWKS URL."
    )
    jwks_unknown_key: Annotated[Seconds, Ge(timedelta(seconds=1))] = Field(
        timedelta(seconds=10),
        description="Minimum time between two extra reads of the JWKS URL, which tokens with an"
        " unknown key cause.",
    )
    jwt_shared_secret_file: Path | None = Field(
        None,
        description="File with a secret that the server shares with the issuer (HS256, HS384,"
        " HS512), instead of a JWKS. A process that can check tokens with it can also make them.",
    )
    jwt_leeway: Annotated[Seconds, Le(timedelta(minutes=5))] = Field(
        timedelta(seconds=10),
        description="Largest difference that is allowed between the clocks of issuer and server.",
    )
    admin_subjects: str = Field(
        "",
        description="Comma-separated subjects with admin rights, in addition to tokens that carry"
        " the scope.",
    )
    log_format: Literal["console", "json"] = Field(
        "console", description="Format of the server's own log, on stderr."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest level that is logged."
    )
    agent_wait: Seconds = Field(
        timedelta(seconds=3),
        description="How long a live read waits for an agent to connect. Then it is refused"
        " (AGENT_UNREACHABLE).",
    )
    sync_timeout: Seconds = Field(
        timedelta(seconds=10),
        description="How long a live read waits for the agent to bring the log up to date.",
    )
    lease: Seconds = Field(
        timedelta(seconds=30),
        description="How long a standalone task stays active after its agent stream was lost.",
    )
    drain_timeout: Seconds = Field(
        timedelta(seconds=8),
        description="How long the server waits for open calls after SIGTERM. Then it ends them.",
    )
    page_bytes: int = Field(
        1_000_000, ge=1, le=1_500_000, description="Approximate size of one page of a log."
    )
    message_bytes: int = Field(
        4 * _MIB, ge=2 * _MIB, description="Largest request message that the server accepts."
    )
    window_bytes: int = Field(
        4 * _MIB, ge=_MIB, description="Unacknowledged bytes allowed on one agent stream."
    )
    append_bytes: int = Field(
        2 * _MIB, ge=_MIB, description="Largest append that the server accepts from an agent."
    )
    ingest_bytes: int = Field(
        256 * _MIB,
        ge=4 * _MIB,
        description="Unacknowledged bytes allowed on all agent streams together.",
    )
    tail_bytes: int = Field(
        256 * _MIB,
        ge=0,
        description="Memory for entries that still grow. Past it, the server drops idle ones and"
        " reads them from the store when they grow again.",
    )
    handshakes: int = Field(
        4, ge=1, description="Agents that may connect at the same time. Others wait in a queue."
    )
    log_bytes: int = Field(
        1024 * _MIB,
        ge=16 * _MIB,
        description="Content that one log may hold, all epochs together. Past it, the oldest"
        " entries are evicted.",
    )
    log_entries: int = Field(
        1_000_000,
        ge=100,
        description="Entries that one log may hold, all epochs together. The opening of an epoch"
        " and a withdrawal count as one entry each. Past it, the oldest entries are evicted.",
    )
    min_retention: Seconds = Field(
        timedelta(days=7),
        description="Minimum age before an entry may be evicted. If nothing is old enough, appends"
        " are refused (LOG_FULL).",
    )
    epochs_per_hour: int = Field(
        60, ge=1, description="New epochs that one task may open in an hour."
    )
    retention: Seconds | None = Field(
        None,
        description="Tasks that have been paused for this long are deleted. Unset: never.",
    )
    reads: int = Field(
        128,
        ge=1,
        description="Reads at the same time. Each may hold one page in memory.",
    )
    queued_reads: int = Field(
        2000, ge=0, description="Reads that may wait in a queue. Further reads are refused."
    )
    waiting_reads: int = Field(
        10_000, ge=1, description="Live reads that may wait for an agent at the same time."
    )
    writes: int = Field(256, ge=1, description="Calls that change a task, at the same time.")
    follows: int = Field(5000, ge=1, description="Follows at the same time.")
    agents: int = Field(5000, ge=1, description="Agent streams at the same time.")
    calls_per_second: float = Field(
        200.0,
        gt=0,
        description="Average calls per second of one caller. Without --auth there is no limit.",
    )
    calls_at_once: int = Field(
        400, ge=1, description="Calls that one caller may make in a burst, after a pause."
    )
    agent_connects_per_second: float = Field(
        1.0, gt=0, description="Average times per second that one agent may open its stream."
    )
    agent_connects_at_once: int = Field(
        20,
        ge=1,
        description="Times that one agent may open its stream in a burst, after a pause.",
    )
    streams_per_caller: int = Field(
        500, ge=1, description="Open streams of one caller at the same time."
    )
    health_watches: int = Field(
        5000,
        ge=1,
        description="Watches of the health service at the same time, by all clients together."
        " They need no credentials.",
    )
    connections: int = Field(
        10_000,
        ge=1,
        description="Connections at the same time. Further connections are closed at once. The"
        " process's limit of open files may allow fewer.",
    )
    streams_per_connection: int = Field(
        600, ge=1, description="Open calls and streams of one connection at the same time."
    )
    pending_calls: int = Field(
        10_000,
        ge=1,
        description="Calls of all connections that arrived and are not started yet, cancelled ones"
        " included. Each takes 17 KB. Further calls end as CANCELLED.",
    )
    handshake_timeout: Annotated[Seconds, Gt(timedelta(0))] = Field(
        timedelta(seconds=10),
        description="How long a new connection may take to complete the TLS and HTTP/2 handshakes.",
    )
    connection_idle: Annotated[Seconds, Gt(timedelta(0))] = Field(
        timedelta(minutes=5), description="Connections without a call are closed after this time."
    )
    request_timeout: Annotated[Seconds, Gt(timedelta(0))] = Field(
        timedelta(seconds=30), description="How long one request may take to arrive."
    )
    answer_bytes: int = Field(
        256 * _MIB,
        ge=16 * _MIB,
        description="Responses that callers have not read yet. One caller may hold half of it.",
    )
    answer_timeout: Annotated[Seconds, Gt(timedelta(0))] = Field(
        timedelta(seconds=30), description="How long a caller may take to read one response."
    )
    default_deadline: Annotated[Seconds, Gt(timedelta(0))] = Field(
        timedelta(seconds=60),
        description="Deadline of unary calls that arrive without one.",
    )
    connection_age: Seconds | None = Field(
        None,
        description="Maximum age of a connection. Then its client has to connect again, and shows"
        " its certificate again. Unset: no limit.",
    )
    connection_age_grace: Seconds = Field(
        timedelta(seconds=30),
        description="How long open calls may continue on a connection that is past its maximum"
        " age.",
    )
    ping_interval: Seconds = Field(
        timedelta(seconds=5),
        description="Minimum time between two HTTP/2 pings of a client. Clients that ping more"
        " often are disconnected.",
    )
    read_connections: int = Field(
        8, ge=1, description="Connections to Postgres for everything except commits and evictions."
    )
    store_wait: Seconds = Field(
        timedelta(seconds=2),
        description="How long a call may wait for its turn or for a database connection. Then it"
        " is refused.",
    )
    health_listen: str | None = Field(
        None,
        description="PORT or HOST:PORT of a plain-text port for grpc.health.v1 alone, for probes"
        " that cannot do TLS. Unset: no such port.",
    )
    metrics_listen: str | None = Field(
        None,
        description="PORT or HOST:PORT of an HTTP port for Prometheus. Unset: no metrics.",
    )
    log_calls: Literal["none", "failed", "all"] = Field(
        "none",
        description="Which calls are logged when they end. `failed` leaves out OK and CANCELLED.",
    )
    traces: bool = Field(
        False, description="Export traces by OTLP. The OTEL_* variables say where to."
    )
    channelz: bool = Field(
        False,
        description="Serve grpc.channelz: all connections and their addresses, for admins.",
    )
    loop: Literal["uvloop", "asyncio"] = Field("uvloop", description="Event loop.")
