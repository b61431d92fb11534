"""The composition root: builds everything, and takes it down in reverse order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

import grpc
import structlog

from tasklogs.log.truncation import MAX_CONTENT_BYTES
from tasklogs_server.bootstrap.database import database, open_store
from tasklogs_server.bootstrap.listening import listen_address
from tasklogs_server.bootstrap.monitoring import metrics_of, telemetry_of
from tasklogs_server.bootstrap.security import Security, prepare
from tasklogs_server.bus.local import LocalBus
from tasklogs_server.concurrency.background import background
from tasklogs_server.domain.errors import ServerDraining, StoreUnavailable
from tasklogs_server.ingest.group_commit import GroupCommit
from tasklogs_server.ingest.log_limits import EpochLimiter, LogLimiter
from tasklogs_server.ingest.messages import Limits
from tasklogs_server.ingest.session import SessionResources
from tasklogs_server.ingest.sessions import Sessions
from tasklogs_server.ingest.syncs import Syncs
from tasklogs_server.ingest.upload import Uploads
from tasklogs_server.ingest.write_behind import WriteBehind
from tasklogs_server.limits.admission import Admission, Capacity
from tasklogs_server.limits.caller_limits import Allowance, CallerLimits
from tasklogs_server.limits.handshake_queue import HandshakeQueue
from tasklogs_server.limits.ingest_budget import IngestBudget
from tasklogs_server.middleware.authentication import Authentication
from tasklogs_server.middleware.failures import Failures, is_disconnect
from tasklogs_server.middleware.interceptor import CallInterceptor
from tasklogs_server.middleware.observation import CallObserver
from tasklogs_server.middleware.open_calls import OpenCalls
from tasklogs_server.middleware.requests import RequestBodies
from tasklogs_server.middleware.responses import Responses
from tasklogs_server.process import log_output
from tasklogs_server.process.garbage import spare_what_stays
from tasklogs_server.process.lifecycle import StoppedEarly, StopSignals
from tasklogs_server.process.startup import StartupError as StartupError
from tasklogs_server.process.tuning import connections_within_open_files
from tasklogs_server.reads.follower import Follows
from tasklogs_server.reads.reader import LogReader
from tasklogs_server.services.task_agents import TaskAgentsService
from tasklogs_server.services.task_logs import TaskLogsService
from tasklogs_server.services.tasks import TasksService
from tasklogs_server.settings import ServerSettings
from tasklogs_server.store.evictions import LogLimits
from tasklogs_server.tasks.agent_tokens import AgentTokens
from tasklogs_server.tasks.directory import Directory
from tasklogs_server.tasks.retention import Housekeeping
from tasklogs_server.transport import grpc_workarounds
from tasklogs_server.transport.health import Health
from tasklogs_server.transport.health_port import probes
from tasklogs_server.transport.listener import bind, options
from tasklogs_server.transport.registration import register, set_serving

_TICK_SECONDS = 5.0
_DRAIN_RETRY_AFTER = timedelta(seconds=1)
# Agents wait 15 s for their Welcome, and may have to wait twice: to be known, and to be let in.
_HANDSHAKE_PATIENCE = timedelta(seconds=5)
_QUIET_SECONDS = 0.1
_QUIET_WITHIN_SECONDS = 1.0
# For connections that the kernel has and gRPC does not know yet.
_ACCEPTED_SECONDS = 0.05
# For the statuses of the calls that are ended to be sent; somebody may not read.
_ENDED_SECONDS = 0.5
# What calls clean up and sessions write at the very end; the store may hang.
_LAST_WORDS_SECONDS = 3.0

_log = structlog.get_logger(__name__)


async def serve(
    settings: ServerSettings,
    *,
    on_progress: Callable[[str], None],
    on_ready: Callable[[str], None],
) -> None:
    """Serve until SIGTERM or SIGINT, then drain. A second signal ends the process at once.

    `on_ready` is given the address. Raises StartupError.
    """
    log_output.configure(settings.log_format, settings.log_level, is_ignored=is_disconnect)
    # What is refused is refused before a database is started for it.
    listen_address(settings)
    async with AsyncExitStack() as stack:
        signals = stack.enter_context(StopSignals())
        try:
            async with signals.while_starting():
                security = await prepare(settings)
                dsn = await stack.enter_async_context(database(settings, on_progress, signals))
                running = await stack.enter_async_context(run(settings, dsn, security))
        except StoppedEarly:
            _log.info("server.stopped_while_starting")
            return
        spare_what_stays()
        on_ready(running.address)
        await signals.stop.wait()
        await running.drain()


@dataclass(slots=True)
class Running:
    """A server that answers at `address`."""

    address: str
    metrics_address: str | None
    health_address: str | None
    _server: grpc.aio.Server
    _sessions: Sessions
    _follows: Follows
    _health: Health
    _calls: OpenCalls
    _timeout: timedelta

    async def drain(self) -> None:
        """Ask everyone to leave, and wait for that within `drain_timeout`."""
        _log.info("server.draining")
        self._health.leave()
        self._calls.refuse(lambda: ServerDraining(_DRAIN_RETRY_AFTER))
        self._sessions.drain(_DRAIN_RETRY_AFTER)
        self._follows.drain(ServerDraining(_DRAIN_RETRY_AFTER))
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout.total_seconds()):
                await self._calls.over()
        # Whoever calls meanwhile is told to come later; then there is a moment when nobody calls.
        with suppress(TimeoutError):
            async with asyncio.timeout(_QUIET_WITHIN_SECONDS):
                await self._calls.quiet(_QUIET_SECONDS)


@asynccontextmanager
async def run(
    settings: ServerSettings, dsn: str, security: Security | None = None
) -> AsyncIterator[Running]:
    """Serve on a database as long as the block lasts. Raises StartupError.

    `security` is what the settings come to, where that was prepared before.
    """
    host, port = listen_address(settings)
    async with AsyncExitStack() as stack:
        security = security or await prepare(settings)
        telemetry = stack.enter_context(telemetry_of(settings))
        observer = telemetry.observer
        store = await open_store(settings, dsn)
        stack.push_async_callback(store.close)

        admission = Admission(_capacity(settings))
        budget = IngestBudget(settings.ingest_bytes)
        handshakes = HandshakeQueue(settings.handshakes, _HANDSHAKE_PATIENCE)
        bus = LocalBus()
        group_commit = GroupCommit(store.writes, bus, observer=observer)
        log_limits = LogLimits(settings.log_entries, settings.log_bytes, settings.min_retention)
        log_limiter = LogLimiter(store.evictions, log_limits)
        resources = SessionResources(
            limits=Limits(settings.window_bytes, settings.append_bytes, MAX_CONTENT_BYTES),
            group_commit=group_commit,
            budget=budget,
            log_limiter=log_limiter,
            epoch_limiter=EpochLimiter(store.sessions, settings.epochs_per_hour),
            write_behind=WriteBehind(store.writes),
            load_tail=store.sessions.tail_content,
            observer=observer,
        )
        sessions = Sessions(
            resources,
            store=store.sessions,
            tasks=store.tasks,
            bus=bus,
            handshakes=handshakes,
            tail_bytes=settings.tail_bytes,
            circuit_breaker=store.circuit_breaker,
        )
        directory = Directory(store.tasks, sessions, bus)
        housekeeping = Housekeeping(
            evictions=store.evictions,
            directory=directory,
            log_limiter=log_limiter,
            limits=log_limits,
            retention=settings.retention,
        )
        syncs = Syncs(
            sessions,
            agent_wait=settings.agent_wait,
            sync_timeout=settings.sync_timeout,
        )
        reader = LogReader(
            store.reads,
            sync=syncs.sync,
            aside=admission.aside,
            confirmed_at=sessions.confirmed_at,
            evicted=store.evictions.evicted,
            page_bytes=settings.page_bytes,
        )
        follows = Follows(store.changes, bus, sync=syncs.sync, lease=settings.lease)
        uploads = Uploads(resources, store=store.sessions, sessions=sessions)

        agent_tokens = AgentTokens(store.tasks, handshakes)
        allowance = Allowance(
            settings.calls_per_second,
            settings.calls_at_once,
            settings.streams_per_caller,
            settings.health_watches,
            settings.agent_connects_per_second,
            settings.agent_connects_at_once,
        )
        caller_limits = CallerLimits(allowance, clock=time.monotonic)
        authentication = Authentication(
            security.users(agent_tokens, caller_limits.count_call), agent_tokens, caller_limits
        )
        calls = OpenCalls()
        bodies = RequestBodies(settings.request_timeout)
        responses = Responses(
            settings.answer_bytes,
            settings.answer_timeout,
            reset=grpc_workarounds.reset_calls,
            observer=observer,
        )
        interceptors: list[grpc.aio.ServerInterceptor] = [
            CallInterceptor(
                authentication.of,
                calls=calls,
                bodies=bodies,
                responses=responses,
                admission=admission,
                failures=Failures(observer),
                default_deadline=settings.default_deadline,
            )
        ]
        if telemetry.is_on:
            interceptors.insert(0, CallObserver(observer))
        connections = connections_within_open_files(settings.connections)
        server = grpc.aio.server(interceptors=interceptors, options=options(settings, connections))
        health_servicer = register(
            server,
            task_logs=TaskLogsService(reader, follows),
            tasks=TasksService(directory),
            task_agents=TaskAgentsService(agent_tokens, sessions, uploads),
            channelz=settings.channelz,
        )
        bound = bind(server, host, port, security.certificate)
        grpc_workarounds.check(bound)

        metrics_address = stack.enter_context(
            metrics_of(
                telemetry,
                settings,
                store,
                sessions,
                follows,
                budget,
                handshakes,
                responses,
                security.certificate,
            )
        )

        health_address = await stack.enter_async_context(probes(settings, health_servicer))

        # Leaving: calls end before what they stand on; the group commit outlives the last session.
        await stack.enter_async_context(background(group_commit.run()))
        await stack.enter_async_context(background(directory.purge_deleted()))
        await stack.enter_async_context(background(housekeeping.run()))
        await stack.enter_async_context(background(_persist(sessions)))
        await stack.enter_async_context(background(bodies.cut_off()))
        await stack.enter_async_context(background(responses.cut_off()))
        await stack.enter_async_context(
            background(store.watch(lambda works: set_serving(health_servicer, serving=works)))
        )
        if security.key_ring is not None:
            await stack.enter_async_context(background(security.key_ring.run()))
        await set_serving(health_servicer, serving=True)
        await server.start()
        stack.push_async_callback(_stop, server, bound, sessions, follows, calls)
        yield Running(
            address=f"{host}:{bound}",
            metrics_address=metrics_address,
            health_address=health_address,
            _server=server,
            _sessions=sessions,
            _follows=follows,
            _health=health_servicer,
            _calls=calls,
            _timeout=settings.drain_timeout,
        )


async def _stop(
    server: grpc.aio.Server,
    port: int,
    sessions: Sessions,
    follows: Follows,
    calls: OpenCalls,
) -> None:
    # An open call would hold `stop` for its whole grace: those of ours end first.
    calls.refuse(lambda: ServerDraining(_DRAIN_RETRY_AFTER))
    sessions.end_all()
    follows.drain(ServerDraining(_DRAIN_RETRY_AFTER))
    grpc_workarounds.drop_new_connections(port)
    calls.end()
    with suppress(TimeoutError):
        async with asyncio.timeout(_ENDED_SECONDS):
            await asyncio.sleep(_ACCEPTED_SECONDS)
            await calls.over()
    grpc_workarounds.close_connections(port)
    await server.stop(grace=0.5)
    # `stop` returns before the handlers' cleanup has run, and that needs the store.
    with suppress(TimeoutError):
        async with asyncio.timeout(_LAST_WORDS_SECONDS):
            await calls.finished()
            await sessions.flush()


async def _persist(sessions: Sessions) -> None:
    """Let sessions write what changed without a commit. Apart from the heartbeat: it may wait."""
    while True:
        try:
            await sessions.tick()
        except StoreUnavailable:
            pass  # the store's watch tells
        except Exception:
            _log.exception("sessions.tick_failed")
        await asyncio.sleep(_TICK_SECONDS)


def _capacity(settings: ServerSettings) -> Capacity:
    return Capacity(
        reads=settings.reads,
        queued_reads=settings.queued_reads,
        queue_time=settings.store_wait,
        waiting_reads=settings.waiting_reads,
        writes=settings.writes,
        follows=settings.follows,
        agents=settings.agents,
    )
