"""What operators watch: metrics and traces."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tasklogs_server.auth.server_certificate import CertificateFiles
from tasklogs_server.domain.limits import Limit
from tasklogs_server.ingest.sessions import Sessions
from tasklogs_server.limits.handshake_queue import HandshakeQueue
from tasklogs_server.limits.ingest_budget import IngestBudget
from tasklogs_server.middleware.responses import Responses
from tasklogs_server.process.startup import StartupError
from tasklogs_server.reads.follower import Follows
from tasklogs_server.settings import ServerSettings
from tasklogs_server.store import Store
from tasklogs_server.telemetry.assembly import Telemetry, TelemetryUnavailable, Wanted, opened
from tasklogs_server.telemetry.state import State


@contextmanager
def telemetry_of(settings: ServerSettings) -> Iterator[Telemetry]:
    """Lend what the settings ask for. Raises StartupError where an extra is missing."""
    wanted = Wanted(
        metrics_listen=settings.metrics_listen,
        log_calls=settings.log_calls,
        log_format=settings.log_format,
        traces=settings.traces,
        limits=[limit.value for limit in Limit],
    )
    if settings.channelz and importlib.util.find_spec("grpc_channelz") is None:
        raise StartupError(
            "TASKLOGS_CHANNELZ is on, but the module grpc_channelz is missing;"
            " install it with: pip install 'tasklogs[telemetry]'"
        )
    try:
        with opened(wanted) as telemetry:
            yield telemetry
    except TelemetryUnavailable as error:
        raise StartupError(str(error)) from error


@contextmanager
def metrics_of(
    telemetry: Telemetry,
    settings: ServerSettings,
    store: Store,
    sessions: Sessions,
    follows: Follows,
    budget: IngestBudget,
    handshakes: HandshakeQueue,
    responses: Responses,
    certificate: CertificateFiles | None,
) -> Iterator[str | None]:
    """Serve metrics, where that is wanted; lend the address. Raises StartupError."""
    state = State(
        sessions=lambda: sessions.open_count,
        followers=lambda: follows.followers,
        handshakes=lambda: handshakes.wanted,
        unacknowledged_bytes=lambda: budget.held_bytes,
        untaken_bytes=lambda: responses.held_bytes,
        store_is_up=lambda: store.works,
        is_draining=lambda: sessions.is_draining,
        connections=store.connections,
        certificate_expires_at=lambda: None if certificate is None else certificate.expires_at,
    )
    with ExitStack() as stack:
        try:
            address = stack.enter_context(telemetry.exposed(state))
        except OSError as error:
            raise StartupError(
                f"TASKLOGS_METRICS_LISTEN={settings.metrics_listen}: {error.strerror}"
            ) from error
        yield address
