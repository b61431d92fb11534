"""The supervisor: it owns the port, the database and the signals, and keeps the workers running.

It never loads gRPC, and it does none of the service's work.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version

import structlog

from tasklogs_server.bootstrap.database import database, ready_schema
from tasklogs_server.bootstrap.listening import listen_address
from tasklogs_server.concurrency.background import background
from tasklogs_server.process import log_output
from tasklogs_server.process.lifecycle import StoppedEarly, StopSignals
from tasklogs_server.settings import ServerSettings
from tasklogs_server.supervision.port import reserved_port
from tasklogs_server.supervision.slot import Slot

_log = structlog.get_logger(__name__)


async def serve(
    settings: ServerSettings,
    *,
    on_progress: Callable[[str], None],
    on_ready: Callable[[str], None],
) -> None:
    """Run workers until SIGTERM or SIGINT, then let them drain. A second signal ends all at once.

    The arguments are those of `app.serve`. Raises StartupError, also if a worker cannot start.
    """
    log_output.configure(settings.log_format, settings.log_level)
    host, port = listen_address(settings)
    async with AsyncExitStack() as stack:
        signals = stack.enter_context(StopSignals())
        try:
            async with signals.while_starting():
                port = stack.enter_context(reserved_port(host, port))
                dsn = await stack.enter_async_context(database(settings, on_progress, signals))
                # Once, and not by each worker.
                await ready_schema(dsn)
                address = f"{host}:{port}"
                of_workers = settings.model_copy(update={"listen": address, "database_url": dsn})
                slots = [Slot(number + 1, of_workers) for number in range(settings.workers)]
                signals.on_abort(lambda: _kill(slots))
                await stack.enter_async_context(_running(slots))
        except StoppedEarly:
            _log.info("server.interrupted")
            return
        on_ready(address)
        _log_started(settings, address)
        await signals.stop.wait()
        _log.info("server.draining")
    _log.info("server.stopped")


@asynccontextmanager
async def _running(slots: Sequence[Slot]) -> AsyncIterator[None]:
    """Run the workers for the block; they drain at its end. Raises StartupError."""
    served = [asyncio.Event() for _ in slots]
    ended = asyncio.Event()
    async with background(_run_all(slots, served, ended)):
        for event in served:
            await event.wait()
        try:
            yield
        finally:
            for slot in slots:
                slot.end()
            await ended.wait()


async def _run_all(
    slots: Sequence[Slot], served: Sequence[asyncio.Event], ended: asyncio.Event
) -> None:
    """Run the workers. The first one starts alone: if the settings are wrong, one says so."""
    try:
        async with asyncio.TaskGroup() as group:
            for number, (slot, event) in enumerate(zip(slots, served, strict=True)):
                group.create_task(slot.run(event))
                if number == 0:
                    await event.wait()
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    finally:
        ended.set()


def _kill(slots: Sequence[Slot]) -> None:
    for slot in slots:
        slot.kill()


def _log_started(settings: ServerSettings, address: str) -> None:
    """Log what serves here. The database's URL is left out: it may hold a password."""
    _log.info(
        "server.started",
        version=version("tasklogs"),
        address=address,
        workers=settings.workers,
        auth=settings.auth,
        tls=settings.tls_cert is not None,
        database="embedded" if settings.database_url is None else "external",
        read_connections=settings.read_connections,
        reads=settings.reads,
        follows=settings.follows,
        agents=settings.agents,
    )
