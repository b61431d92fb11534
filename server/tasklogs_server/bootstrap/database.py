"""The database: the operator's Postgres, or an embedded one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog

from tasklogs_server.concurrency.background import background
from tasklogs_server.domain.errors import StoreUnavailable
from tasklogs_server.postgres import EmbeddedPostgres, EmbeddedPostgresError
from tasklogs_server.process.lifecycle import StartupError, StopSignals
from tasklogs_server.settings import ServerSettings
from tasklogs_server.store import SchemaRefused, Store, UnknownSchema, migrate
from tasklogs_server.store.errors import STORE_ERRORS, in_words
from tasklogs_server.store.preflight import why_unusable

_log = structlog.get_logger(__name__)


@asynccontextmanager
async def database(
    settings: ServerSettings, on_progress: Callable[[str], None], signals: StopSignals
) -> AsyncIterator[str]:
    """Lend a DSN: the operator's, or that of an embedded Postgres. Raises StartupError.

    If the embedded one ends by itself, `signals.stop` is set: nothing would start it again.
    """
    if settings.database_url is not None:
        yield settings.database_url
        return
    postgres = EmbeddedPostgres(settings.data_dir, on_progress=on_progress)
    signals.on_abort(postgres.abandon)
    try:
        await postgres.start()
    except EmbeddedPostgresError as error:
        raise StartupError(str(error)) from error
    try:
        died: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        async with background(_watch(postgres, signals.stop, died)):
            yield postgres.dsn()
        if died.done():
            # An error, so that the supervisor of this process starts it again.
            raise StartupError(died.result())
    finally:
        await postgres.stop()


async def _watch(
    postgres: EmbeddedPostgres, stop: asyncio.Event, died: asyncio.Future[str]
) -> None:
    """Stop the server when its embedded Postgres ends: nothing would start it again."""
    ended = await postgres.wait()
    _log.error("postgres.ended", how=ended)
    died.set_result(ended)
    stop.set()


async def open_store(settings: ServerSettings, dsn: str) -> Store:
    """Bring the schema up to date and connect. Raises StartupError."""
    reason = await why_unusable(dsn)
    if reason is not None:
        raise StartupError(f"the database cannot be used: {reason}")
    try:
        await migrate(dsn)
        return await Store.open(
            dsn,
            read_connections=settings.read_connections,
            acquire_timeout=settings.store_wait,
            lease=settings.lease,
        )
    except (SchemaRefused, UnknownSchema) as error:
        raise StartupError(f"the database cannot be used: {error}") from error
    except (StoreUnavailable, *STORE_ERRORS) as error:
        raise StartupError(f"the database cannot be used: {in_words(error)}") from error
