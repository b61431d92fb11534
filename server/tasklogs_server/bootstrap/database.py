"""The database: the operator's Postgres, or an embedded one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

import structlog

from tasklogs_server.concurrency.background import background
from tasklogs_server.domain.errors import StoreUnavailable
from tasklogs_server.postgres import EmbeddedPostgres, EmbeddedPostgresError
from tasklogs_server.process.lifecycle import StartupError, StopSignals
from tasklogs_server.settings import ServerSettings
from tasklogs_server.store import SchemaRefused, Store, UnknownSchema, migrate
from tasklogs_server.store.errors import STORE_ERRORS, in_words
from tasklogs_server.store.preflight import why_unusable

# Beside those for reads, a process has up to ten. `_SPARE`: psql, backups, those of the superuser.
_OTHER_CONNECTIONS = 10
_SPARE = 20
_LEAST_CONNECTIONS = 100

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
    postgres = EmbeddedPostgres(
        settings.data_dir, settings=_room_for(settings), on_progress=on_progress
    )
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


def _room_for(settings: ServerSettings) -> Mapping[str, str]:
    """Let the embedded Postgres have the connections of all workers."""
    needed = settings.workers * (settings.read_connections + _OTHER_CONNECTIONS) + _SPARE
    return {"max_connections": str(max(_LEAST_CONNECTIONS, needed))}


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
    await ready_schema(dsn)
    with _as_startup_error():
        return await Store.open(
            dsn,
            read_connections=settings.read_connections,
            acquire_timeout=settings.store_wait,
            lease=settings.lease,
        )


async def ready_schema(dsn: str) -> None:
    """Bring the schema up to date, if the database can be used. Raises StartupError."""
    reason = await why_unusable(dsn)
    if reason is not None:
        raise StartupError(f"the database cannot be used: {reason}")
    with _as_startup_error():
        await migrate(dsn)


@contextmanager
def _as_startup_error() -> Iterator[None]:
    try:
        yield
    except (SchemaRefused, UnknownSchema) as error:
        raise StartupError(f"the database cannot be used: {error}") from error
    except (StoreUnavailable, *STORE_ERRORS) as error:
        raise StartupError(f"the database cannot be used: {in_words(error)}") from error
