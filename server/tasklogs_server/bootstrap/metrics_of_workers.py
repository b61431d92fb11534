"""The metrics port of the supervisor, which shows all workers. Without gRPC."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from tasklogs_server.process.lifecycle import StartupError
from tasklogs_server.settings import ServerSettings
from tasklogs_server.telemetry.assembly import (
    TelemetryUnavailable,
    metrics_address,
    needs_prometheus,
)


@contextmanager
def metrics_of_workers(
    settings: ServerSettings,
    *,
    serving: Callable[[], int],
    restarts: Callable[[], Mapping[int, int]],
    families: Callable[[], Mapping[str, Sequence[Any]]],
) -> Iterator[str | None]:
    """Serve metrics if the settings ask for it; lend the address. Raises StartupError.

    For the functions see `WorkersState`.
    """
    listen = settings.metrics_listen
    if listen is None:
        yield None
        return
    try:
        with needs_prometheus():
            from tasklogs_server.telemetry.metrics_port import served
            from tasklogs_server.telemetry.workers import WorkersState, registry_of
        host, port = metrics_address(listen)
    except TelemetryUnavailable as error:
        raise StartupError(str(error)) from error
    registry = registry_of(WorkersState(settings.workers, serving, restarts, families))
    with ExitStack() as stack:
        try:
            address = stack.enter_context(served(registry, host, port))
        except OSError as error:
            raise StartupError(f"TASKLOGS_METRICS_LISTEN={listen}: {error.strerror}") from error
        yield address
