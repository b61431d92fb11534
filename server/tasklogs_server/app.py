"""The composition root: builds the server, starts it, and takes it down in reverse order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.metadata import version
from typing import Any

import grpc
import structlog

from tasklogs_server.bootstrap.calls import CallPath, call_path_of
from tasklogs_server.bootstrap.database import database, open_store
from tasklogs_server.bootstrap.limits import limits_of
from tasklogs_server.bootstrap.listening import listen_address
from tasklogs_server.bootstrap.monitoring import metrics_of, state_of, telemetry_of
from tasklogs_server.bootstrap.security import Security, prepare
from tasklogs_server.bootstrap.service import Service, service_of
from tasklogs_server.bus.unheard import UnheardProcesses
from tasklogs_server.concurrency.background import background
from tasklogs_server.domain.errors import ServerDraining, StoreUnavailable
from tasklogs_server.ingest.sessions import Sessions
from tasklogs_server.middleware.failures import is_disconnect
from tasklogs_server.process import log_output
from tasklogs_server.process.clock import utc_now
from tasklogs_server.process.lifecycle import StartupError as StartupError
from tasklogs_server.process.lifecycle import StoppedEarly, StopSignals
from tasklogs_server.process.tuning import connections_within_open_files, freeze_garbage_collection
from tasklogs_server.services.server_info import server_info
from tasklogs_server.services.task_agents import TaskAgentsService
from tasklogs_server.services.task_logs import TaskLogsService
from tasklogs_server.services.tasks import TasksService
from tasklogs_server.settings import ServerSettings
from tasklogs_server.transport import call_acceptor, grpc_workarounds
from tasklogs_server.transport.call_acceptor import CallAcceptor
from tasklogs_server.transport.health import Health
from tasklogs_server.transport.health_port import probes
from tasklogs_server.transport.listener import bind, options
from tasklogs_server.transport.registration import register, set_serving

_TICK_SECONDS = 5.0
_DRAIN_RETRY_AFTER = timedelta(seconds=1)
_QUIET_SECONDS = 0.1
_QUIET_WITHIN_SECONDS = 1.0
# For connections that the kernel has accepted and gRPC does not know yet.
_ACCEPTED_SECONDS = 0.05
# For the statuses of the ended calls to be sent. A peer that does not read delays no longer.
_ENDED_SECONDS = 0.5
# For the bus. Without it the server starts, too: then it hears of other servers later.
_JOIN_SECONDS = 2.0
# For the cleanup of calls and the last writes of sessions. The store may hang.
_CLEANUP_SECONDS = 3.0

_log = structlog.get_logger(__name__)


async def serve(
    settings: ServerSettings,
    *,
    on_progress: Callable[[str], None],
    on_ready: Callable[[str], None],
    clock: Callable[[], datetime] = utc_now,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain. A second signal ends the process at once.

    `on_progress` is given a line for each slow step of the start, `on_ready` the address. `clock`:
    see `run`. Raises StartupError.
    """
    # A client that leaves in the middle of a call is no error of the server.
    log_output.configure(settings.log_format, settings.log_level, is_ignored=is_disconnect)
    # First: an address that is refused needs no database.
    listen_address(settings)
    async with AsyncExitStack() as stack:
        signals = stack.enter_context(StopSignals())
        try:
            async with signals.while_starting():
                security = await prepare(settings)
                dsn = await stack.enter_async_context(database(settings, on_progress, signals))
                running = await stack.enter_async_context(run(settings, dsn, security, clock=clock))
        except StoppedEarly:
            _log.info("server.interrupted")
            return
        freeze_garbage_collection()
        on_ready(running.address)
        _log_started(settings, running)
        await signals.stop.wait()
        await running.drain()
    _log.info("server.stopped")


def _log_started(settings: ServerSettings, running: Running) -> None:
    """Log what serves here. The database's URL is left out: it may hold a password."""
    _log.info(
        "server.started",
        version=version("tasklogs"),
        address=running.address,
        health_address=running.health_address,
        metrics_address=running.metrics_address,
        workers=1,
        auth=settings.auth,
        tls=settings.tls_cert is not None,
        database="embedded" if settings.database_url is None else "external",
        bus="postgres" if settings.bus == "postgres" else "nats",
        read_connections=settings.read_connections,
        reads=settings.reads,
        follows=settings.follows,
        agents=settings.agents,
    )


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers at `address`."""

    address: str
    metrics_address: str | None
    health_address: str | None
    collect_metrics: Callable[[], Sequence[Any]]
    """Returns all metrics, for the supervisor of workers."""
    _service: Service
    _calls: CallPath
    _health: Health
    _drain_timeout: timedelta

    async def drain(self) -> None:
        """Ask all callers and agents to leave, and wait for that within `drain_timeout`."""
        _log.info("server.draining")
        self._health.leave()
        _refuse_all(self._service, self._calls)
        self._service.sessions.drain(_DRAIN_RETRY_AFTER)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._drain_timeout.total_seconds()):
                await self._calls.open_calls.over()
        # Calls that come meanwhile are told to come later. Then there is a moment without calls.
        with suppress(TimeoutError):
            async with asyncio.timeout(_QUIET_WITHIN_SECONDS):
                await self._calls.open_calls.quiet(_QUIET_SECONDS)


@asynccontextmanager
async def run(
    settings: ServerSettings,
    dsn: str,
    security: Security | None = None,
    *,
    clock: Callable[[], datetime] = utc_now,
    worker: int | None = None,
) -> AsyncIterator[Running]:
    """Serve on a database as long as the block lasts. Raises StartupError.

    `security` is what `prepare` made of the settings, where that was done before. `clock` tells the
    time that logs, sessions and tokens go by. `worker`: which of several workers this is, from 1.
    """
    host, port = listen_address(settings)
    async with AsyncExitStack() as stack:
        security = security or await prepare(settings)
        telemetry = stack.enter_context(telemetry_of(settings, worker))
        store = await open_store(settings, dsn)
        stack.push_async_callback(store.close)

        limits = limits_of(settings)
        service = service_of(settings, store, limits, observer=telemetry.observer, clock=clock)
        calls = call_path_of(
            settings, security, service.agent_tokens, limits, telemetry, clock=clock
        )
        connections = connections_within_open_files(settings.connections)
        server = grpc.aio.server(
            interceptors=calls.interceptors, options=options(settings, connections)
        )
        registered = register(
            server,
            task_logs=TaskLogsService(
                service.reader,
                service.follows,
                calls.unsent,
                server_info(settings),
                page_bytes=settings.page_bytes,
            ),
            tasks=TasksService(service.directory),
            task_agents=TaskAgentsService(service.agent_tokens, service.sessions, service.uploads),
            channelz=settings.channelz,
        )
        health = registered.health
        state = state_of(limits, service, calls, security.certificate)
        metrics_address = stack.enter_context(metrics_of(telemetry, settings, state))
        if worker is None:
            health_address = await stack.enter_async_context(probes(settings, health))
            bound = bind(server, host, port, security.certificate)

        # They end in reverse order, after `_stop`: the calls first, then what the calls need. The
        # last session still commits, so the group commit ends last.
        await stack.enter_async_context(background(service.bus.run()))
        # Before the monitor says that this server serves.
        with suppress(TimeoutError):
            async with asyncio.timeout(_JOIN_SECONDS):
                await service.bus.joined()
        unheard = UnheardProcesses(service.bus, store.other_heartbeats)
        for work in (
            service.syncs_for_others.run,
            service.group_commit.run,
            service.purge.run,
            lambda: _persist(service.sessions),
            service.sessions.run_audit,
            service.tails.run,
            calls.bodies.cut_off,
            calls.responses.cut_off,
            lambda: store.watch(lambda works: set_serving(health, serving=works)),
            *([] if security.key_ring is None else [security.key_ring.run]),
            # All workers would look at the same tables.
            *([service.retention.run, unheard.run] if worker in (None, 1) else []),
        ):
            await stack.enter_async_context(background(work()))
        if worker is not None:
            # From here on the port deals connections to this worker, and others could take them.
            bound = bind(server, host, port, security.certificate)
        grpc_workarounds.check(bound)
        await set_serving(health, serving=True)
        await server.start()
        if worker is not None:
            health_address = await stack.enter_async_context(probes(settings, health))
        if call_acceptor.is_possible():
            CallAcceptor(server, registered.handlers, calls.interceptors).start()
        stack.push_async_callback(_stop, server, bound, service, calls)
        yield Running(
            address=f"{host}:{bound}",
            metrics_address=metrics_address,
            health_address=health_address,
            collect_metrics=telemetry.collect,
            _service=service,
            _calls=calls,
            _health=health,
            _drain_timeout=settings.drain_timeout,
        )


async def _stop(server: grpc.aio.Server, port: int, service: Service, calls: CallPath) -> None:
    # `server.stop` waits for open calls until its grace is over. So they are ended before it.
    _refuse_all(service, calls)
    service.sessions.end_all()
    grpc_workarounds.drop_new_connections(port)
    calls.open_calls.end()
    with suppress(TimeoutError):
        async with asyncio.timeout(_ENDED_SECONDS):
            await asyncio.sleep(_ACCEPTED_SECONDS)
            await calls.open_calls.over()
    grpc_workarounds.close_connections(port)
    await server.stop(grace=0.5)
    # `stop` returns before the handlers' cleanup has run, and that needs the store.
    with suppress(TimeoutError):
        async with asyncio.timeout(_CLEANUP_SECONDS):
            await calls.open_calls.finished()
            await service.sessions.flush()


def _refuse_all(service: Service, calls: CallPath) -> None:
    """Refuse new calls, and end the follows: both are told when to try again."""
    calls.open_calls.refuse(lambda: ServerDraining(_DRAIN_RETRY_AFTER))
    service.follows.drain(ServerDraining(_DRAIN_RETRY_AFTER))


async def _persist(sessions: Sessions) -> None:
    """Write regularly what sessions changed without a commit.

    It may wait for the store. So it is not part of the heartbeat, which must not wait.
    """
    while True:
        try:
            await sessions.tick()
        except StoreUnavailable:
            pass  # the store's monitor logs this
        except Exception:
            _log.exception("sessions.tick_failed")
        await asyncio.sleep(_TICK_SECONDS)
