"""The supervisor: it owns the port, the database and the signals, and keeps the workers running.

It never loads gRPC, and it does none of the service's work.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from importlib.metadata import version
from typing import Any

import structlog

from tasklogs_server.bootstrap.database import database, ready_schema
from tasklogs_server.bootstrap.listening import listen_address
from tasklogs_server.bootstrap.metrics_of_workers import metrics_of_workers
from tasklogs_server.concurrency.background import background
from tasklogs_server.domain.listen_address import host_and_port
from tasklogs_server.process import log_output
from tasklogs_server.process.lifecycle import StartupError, StoppedEarly, StopSignals
from tasklogs_server.settings import ServerSettings
from tasklogs_server.supervision.port import reserved_port
from tasklogs_server.supervision.slot import Slot

# Prometheus gives up after 10 s.
_SCRAPE_SECONDS = 2.0

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
                # Each worker looks, too: there is nothing left to do for it.
                await ready_schema(dsn)
                address = f"{host}:{port}"
                health_address = stack.enter_context(_reserved_health_port(settings))
                of_workers = settings.model_copy(
                    update={
                        "listen": address,
                        "health_listen": health_address,
                        "database_url": dsn,
                    }
                )
                slots = [Slot(number + 1, of_workers) for number in range(settings.workers)]
                signals.on_abort(lambda: _kill(slots))
                metrics_address = stack.enter_context(_metrics(settings, slots))
                await stack.enter_async_context(_running(slots))
        except StoppedEarly:
            _log.info("server.interrupted")
            return
        on_ready(address)
        _log_started(settings, address, health_address, metrics_address)
        await signals.stop.wait()
        _log.info("server.draining")
    _log.info("server.stopped")


@contextmanager
def _reserved_health_port(settings: ServerSettings) -> Iterator[str | None]:
    """Lend the address for probes, which all workers answer."""
    listen = settings.health_listen
    if listen is None:
        yield None
        return
    try:
        host, port = host_and_port(listen)
    except ValueError as error:
        raise StartupError(f"TASKLOGS_HEALTH_LISTEN={listen}: {error}") from error
    with reserved_port(host, port) as bound:
        yield f"{host}:{bound}"


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


def _metrics(settings: ServerSettings, slots: Sequence[Slot]) -> AbstractContextManager[str | None]:
    loop = asyncio.get_running_loop()

    def ask_all() -> Mapping[str, Sequence[Any]]:
        # In the thread of a scrape.
        return asyncio.run_coroutine_threadsafe(_metrics_of(slots), loop).result(
            _SCRAPE_SECONDS + 1
        )

    return metrics_of_workers(
        settings,
        serving=lambda: sum(slot.process is not None for slot in slots),
        restarts=lambda: {slot.worker: slot.restarts for slot in slots},
        families=ask_all,
    )


async def _metrics_of(slots: Sequence[Slot]) -> Mapping[str, Sequence[Any]]:
    """Return the metrics of the workers that answer in time. One may be frozen."""
    serving = {str(slot.worker): slot.process for slot in slots}
    asked = {
        asyncio.create_task(process.ask_for_metrics()): worker
        for worker, process in serving.items()
        if process is not None
    }
    if not asked:
        return {}
    done, late = await asyncio.wait(asked, timeout=_SCRAPE_SECONDS)
    for one in late:
        one.cancel()
    return {asked[one]: one.result() for one in asked if one in done and one.exception() is None}


def _log_started(
    settings: ServerSettings,
    address: str,
    health_address: str | None,
    metrics_address: str | None,
) -> None:
    """Log what serves here. The database's URL is left out: it may hold a password."""
    _log.info(
        "server.started",
        version=version("tasklogs"),
        address=address,
        health_address=health_address,
        metrics_address=metrics_address,
        workers=settings.workers,
        auth=settings.auth,
        tls=settings.tls_cert is not None,
        database="embedded" if settings.database_url is None else "external",
        bus="postgres" if settings.bus == "postgres" else "nats",
        read_connections=settings.read_connections,
        reads=settings.reads,
        follows=settings.follows,
        agents=settings.agents,
    )
