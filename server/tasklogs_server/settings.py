"""The server's settings: from flags, else from `TASKLOGS_*` variables, else these defaults."""

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
    # From a string pydantic takes ISO 8601 only; a variable that says 5 means seconds.
    with suppress(ValueError):
        if isinstance(value, str):
            return timedelta(seconds=float(value))
    return value


def host_and_port(listen: str) -> tuple[str, int]:
    """Split PORT or HOST:PORT; a port alone is on loopback. Raises ValueError."""
    host, _, port = listen.rpartition(":")
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("must be PORT or HOST:PORT")
    return host or "127.0.0.1", int(port)


Seconds = Annotated[timedelta, Ge(timedelta(0)), BeforeValidator(_from_seconds)]


class ServerSettings(BaseSettings):
    """Every setting of `tasklogs serve`. Lengths of time are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix="TASKLOGS_", frozen=True)

    listen: str = Field("127.0.0.1:50051", description="host:port to serve on; port 0 picks one")
    # Left out of what is printed of the settings: it may hold a password.
    database_url: str | None = Field(
        None,
        repr=False,
        description="Postgres 15 or newer; unset: an embedded one in the data directory",
    )
    data_dir: Path = Field(Path("tasklogs-data"), description="where the embedded Postgres lives")
    insecure: bool = Field(
        False, description="serve beyond loopback without TLS and authentication"
    )
    tls_cert: Path | None = Field(None, description="certificate chain, PEM; followed on disk")
    tls_key: Path | None = Field(None, description="its private key, PEM")
    tls_client_ca: Path | None = Field(
        None, description="authorities whose certificates clients must have, PEM"
    )
    auth: Literal["none", "jwt", "mtls", "dev"] = Field(
        "none", description="how callers show who they are"
    )
    jwt_issuer: str | None = Field(None, description="the `iss` that tokens must have")
    jwt_audience: str | None = Field(None, description="the `aud` that tokens must have")
    jwks_file: Path | None = Field(None, description="the issuer's keys, as JWKS; followed on disk")
    jwks_url: str | None = Field(None, repr=False, description="where the issuer publishes them")
    # The issuer is another's server: it is not asked without a pause, whatever strangers bring.
    jwks_refresh: Annotated[Seconds, Ge(timedelta(seconds=1))] = Field(
        timedelta(minutes=5), description="how often the JWKS URL is read"
    )
    jwks_unknown_key: Annotated[Seconds, Ge(timedelta(seconds=1))] = Field(
        timedelta(seconds=10),
        description="how often at most tokens with an unknown key have it read as well",
    )
    jwt_shared_secret_file: Path | None = Field(
        None,
        description="a secret shared with the issuer (HS256, HS384, HS512), in place of a JWKS:"
        " whoever can check tokens with it can also make them",
    )
    jwt_leeway: Annotated[Seconds, Le(timedelta(minutes=5))] = Field(
        timedelta(seconds=10), description="how far the issuer's clock may be off"
    )
    admin_subjects: str = Field(
        "", description="subjects that may all, comma-separated, beside those of the scope"
    )
    log_format: Literal["console", "json"] = Field("console", description="how logs are written")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="what is logged"
    )
    agent_wait: Seconds = Field(
        timedelta(seconds=3), description="how long a live read waits for an agent stream"
    )
    sync_timeout: Seconds = Field(
        timedelta(seconds=10), description="how long a live read waits for the task app"
    )
    lease: Seconds = Field(
        timedelta(seconds=30), description="how long a standalone task outlives its agent stream"
    )
    drain_timeout: Seconds = Field(
        timedelta(seconds=8), description="how long open calls may take after SIGTERM"
    )
    page_bytes: int = Field(
        1_000_000, ge=1, le=1_500_000, description="about how much of a log one page holds"
    )
    message_bytes: int = Field(4 * _MIB, ge=2 * _MIB, description="largest message taken")
    window_bytes: int = Field(
        4 * _MIB, ge=_MIB, description="unacknowledged bytes of one agent stream"
    )
    append_bytes: int = Field(2 * _MIB, ge=_MIB, description="one append of an agent")
    ingest_bytes: int = Field(
        256 * _MIB, ge=4 * _MIB, description="unacknowledged bytes of all agent streams"
    )
    tail_bytes: int = Field(
        256 * _MIB, ge=0, description="growing entries held in memory, beyond which idle ones go"
    )
    handshakes: int = Field(
        4, ge=1, description="agents that are let in at the same moment; others wait in line"
    )
    log_bytes: int = Field(
        1024 * _MIB,
        ge=16 * _MIB,
        description="content that one log holds over all its epochs; past it the oldest goes",
    )
    log_entries: int = Field(
        1_000_000,
        ge=100,
        description="entries that one log holds over all its epochs, each opening of an epoch and"
        " each withdrawal counted as one; past it the oldest go",
    )
    min_retention: Seconds = Field(
        timedelta(days=7),
        description="no entry younger than this goes for a log's limits: rather no more is taken",
    )
    epochs_per_hour: int = Field(
        60, ge=1, description="times that a task may begin another epoch in an hour"
    )
    retention: Seconds | None = Field(
        None,
        description="tasks that have been paused for so long are deleted; unset: none is",
    )
    reads: int = Field(
        128, ge=1, description="calls that read at the same time; each may hold a page"
    )
    queued_reads: int = Field(
        2000, ge=0, description="reads that wait for their turn; more are refused"
    )
    waiting_reads: int = Field(
        10_000, ge=1, description="live reads that wait for an agent at the same time"
    )
    writes: int = Field(256, ge=1, description="calls that change a task at the same time")
    follows: int = Field(5000, ge=1, description="follows at the same time")
    agents: int = Field(5000, ge=1, description="agent streams at the same time")
    calls_per_second: float = Field(
        200.0, gt=0, description="calls of one caller, on average; without --auth there is no limit"
    )
    calls_at_once: int = Field(400, ge=1, description="calls of one caller after a pause")
    agent_connects_per_second: float = Field(
        1.0, gt=0, description="times that one agent may open its stream, on average"
    )
    agent_connects_at_once: int = Field(
        20, ge=1, description="times that one agent may open its stream after a pause"
    )
    streams_per_caller: int = Field(500, ge=1, description="streams of one caller at one time")
    health_watches: int = Field(
        5000, ge=1, description="watches of the health service, which needs no credential"
    )
    connections: int = Field(
        10_000,
        ge=1,
        description="connections at the same time, as far as the process may open so many files;"
        " more are closed as they come",
    )
    streams_per_connection: int = Field(
        600, ge=1, description="calls and streams of one connection at the same time"
    )
    pending_calls: int = Field(
        10_000,
        ge=1,
        description="calls of all connections that have come and are not looked at yet, reset ones"
        " too; each is 17 KB, and more are dropped (CANCELLED)",
    )
    handshake_timeout: Annotated[Seconds, Gt(timedelta(0))] = Field(
        timedelta(seconds=10),
        description="how long a connection may take until it speaks HTTP/2, TLS included",
    )
    connection_idle: Annotated[Seconds, Gt(timedelta(0))] = Field(
        timedelta(minutes=5), description="connections without a call for so long are closed"
    )
    request_timeout: Annotated[Seconds, Gt(timedelta(0))] = Field(
        timedelta(seconds=30), description="how long one request may take to come in"
    )
    answer_bytes: int = Field(
        256 * _MIB,
        ge=16 * _MIB,
        description="answers that are given and not taken yet; one caller may have half of them",
    )
    answer_timeout: Annotated[Seconds, Gt(timedelta(0))] = Field(
        timedelta(seconds=30), description="how long a caller may take to take one answer"
    )
    default_deadline: Annotated[Seconds, Gt(timedelta(0))] = Field(
        timedelta(seconds=60), description="how long a call may take whose caller set no deadline"
    )
    connection_age: Seconds | None = Field(
        None,
        description="how old a connection may get; its streams are then opened anew elsewhere, and"
        " a client's certificate is looked at again; unset: no limit",
    )
    connection_age_grace: Seconds = Field(
        timedelta(seconds=30), description="how long calls on such a connection may still take"
    )
    ping_interval: Seconds = Field(
        timedelta(seconds=5), description="peers that ping more often are disconnected"
    )
    read_connections: int = Field(8, ge=1, description="connections to Postgres, commits aside")
    store_wait: Seconds = Field(
        timedelta(seconds=2), description="how long a call waits for its turn, then is refused"
    )
    health_listen: str | None = Field(
        None,
        description="port, or host:port, that serves grpc.health.v1 alone and in plain text, for"
        " probes that cannot do TLS; unset: none",
    )
    metrics_listen: str | None = Field(
        None, description="port, or host:port, for Prometheus to read metrics on; unset: none"
    )
    log_calls: Literal["none", "failed", "all"] = Field(
        "none", description="which calls get a line in the log"
    )
    traces: bool = Field(
        False, description="export traces by OTLP; the OTEL_* variables say where to"
    )
    channelz: bool = Field(False, description="serve grpc.channelz: all connections, to callers")
    loop: Literal["uvloop", "asyncio"] = Field("uvloop", description="the event loop")
