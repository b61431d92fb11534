"""What operators see: metrics, traces and the log of calls."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tasklogs.extras import how_to_install
from tasklogs_server.auth.server_certificate import CertificateFiles
from tasklogs_server.bootstrap.calls import CallPath
from tasklogs_server.bootstrap.limits import ServerLimits
from tasklogs_server.bootstrap.service import Service
from tasklogs_server.domain.limits import Limit
from tasklogs_server.process.lifecycle import StartupError
from tasklogs_server.settings import ServerSettings
from tasklogs_server.telemetry.assembly import Telemetry, TelemetryUnavailable, Wanted, opened
from tasklogs_server.telemetry.state import State


@contextmanager
def telemetry_of(settings: ServerSettings, worker: int | None = None) -> Iterator[Telemetry]:
    """Open the telemetry that the settings ask for. Raises StartupError if an extra is missing.

    `worker`: the number of this worker; None: there is only one process.
    """
    wanted = Wanted(
        metrics_listen=settings.metrics_listen,
        log_calls=settings.log_calls,
        log_format=settings.log_format,
        traces=settings.traces,
        limits=[limit.value for limit in Limit],
        worker=worker,
    )
    if settings.channelz and importlib.util.find_spec("grpc_channelz") is None:
        raise StartupError(
            "TASKLOGS_CHANNELZ is on, but the module grpc_channelz is missing;"
            f" {how_to_install('telemetry')}"
        )
    try:
        with opened(wanted) as telemetry:
            yield telemetry
    except TelemetryUnavailable as error:
        raise StartupError(str(error)) from error


def state_of(
    limits: ServerLimits,
    service: Service,
    calls: CallPath,
    certificate: CertificateFiles | None,
) -> State:
    """Return where the gauges look when they are asked. `certificate` None: no TLS."""
    return State(
        sessions=lambda: service.sessions.open_count,
        followers=lambda: service.follows.followers,
        handshakes=lambda: limits.handshakes.wanted,
        held_commits=lambda: service.group_commit.held_tasks,
        unacknowledged_bytes=lambda: limits.budget.held_bytes,
        upload_bytes=lambda: limits.uploads.held_bytes,
        untaken_bytes=lambda: calls.responses.held_bytes,
        waiting_follows=lambda: calls.unsent.waiting,
        tail_bytes=lambda: service.tails.held_bytes,
        page_cache_bytes=lambda: service.pages.held_bytes,
        page_cache_hits=lambda: service.pages.hits,
        page_cache_misses=lambda: service.pages.misses,
        purge_backlog=lambda: service.purge.backlog,
        purge_set_aside=lambda: service.purge.set_aside,
        retirement_backlog=lambda: service.retention.backlog,
        store_is_up=lambda: service.store.works,
        is_draining=lambda: service.sessions.is_draining,
        bus_processes=lambda: service.bus.processes,
        bus_gaps=lambda: service.bus.gaps,
        connections=service.store.connections,
        certificate_expires_at=lambda: None if certificate is None else certificate.expires_at,
    )


@contextmanager
def metrics_of(
    telemetry: Telemetry, settings: ServerSettings, state: State
) -> Iterator[str | None]:
    """Serve metrics if the settings ask for it; lend the address. Raises StartupError."""
    with ExitStack() as stack:
        try:
            address = stack.enter_context(telemetry.exposed(state))
        except OSError as error:
            raise StartupError(
                f"TASKLOGS_METRICS_LISTEN={settings.metrics_listen}: {error.strerror}"
            ) from error
        yield address
