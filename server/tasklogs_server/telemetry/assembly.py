"""Builds the telemetry that was asked for. Its libraries are imported only then."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tasklogs.extras import how_to_install
from tasklogs.log_output import write_lines
from tasklogs.tracing.base import Tracing
from tasklogs.tracing.opening import TracingUnavailable, open_tracing
from tasklogs_server.domain.listen_address import host_and_port
from tasklogs_server.telemetry.call_log import CallLog
from tasklogs_server.telemetry.observer import Observer
from tasklogs_server.telemetry.recorder import Recorder

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from tasklogs_server.telemetry.families import Family
    from tasklogs_server.telemetry.metrics_port import Exposition
    from tasklogs_server.telemetry.state import State

# The share of calls that are traced if the caller does not decide. A span costs about 100 us; one
# call in a hundred shows where time goes.
_SAMPLED = 0.01


class TelemetryUnavailable(Exception):
    """A library is missing or a setting is wrong. One line that says why and what to do."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is switched on. `metrics_listen` is HOST:PORT, or a port on 127.0.0.1."""

    metrics_listen: str | None
    log_calls: Literal["none", "failed", "all"]
    log_format: Literal["console", "json"]
    traces: bool
    limits: Sequence[str] = ()
    """The names of the limits that calls may hit."""
    worker: int | None = None
    """The number of this worker: its supervisor serves the metrics. None: there is one process."""


class Telemetry:
    """The telemetry of one server."""

    def __init__(
        self, observer: Observer, exposition: Exposition | None, *, has_port: bool = True
    ) -> None:
        self.observer = observer
        self._exposition = exposition
        self._has_port = has_port

    @property
    def is_on(self) -> bool:
        """Whether calls are observed at all."""
        return type(self.observer) is not Observer

    def exposed(self, state: State) -> AbstractContextManager[str | None]:
        """Serve the metrics as long as the block lasts; lend the address, None if they are off.

        Raises OSError if the server cannot listen there.
        """
        if self._exposition is None:
            return nullcontext()
        if not self._has_port:
            self._exposition.read_from(state)
            return nullcontext()
        return self._exposition.serving(state)

    def collect(self) -> Sequence[Family]:
        """Return all metrics as they are now; none if they are off."""
        return () if self._exposition is None else self._exposition.collect()


@contextmanager
def opened(wanted: Wanted) -> Iterator[Telemetry]:
    """Open the telemetry for the block. Raises TelemetryUnavailable."""
    exposition = _exposition(wanted.metrics_listen, wanted.limits)
    call_log = None
    if wanted.log_calls != "none":
        call_log = CallLog(
            write_lines,
            wanted.log_format,
            only_failed=wanted.log_calls == "failed",
            worker=wanted.worker,
        )
    tracing = _tracing() if wanted.traces else None
    try:
        if exposition is None and call_log is None and tracing is None:
            yield Telemetry(Observer(), None)
            return
        recorder = Recorder(
            metrics=None if exposition is None else exposition.metrics,
            call_log=call_log,
            tracing=tracing or Tracing(),
        )
        yield Telemetry(recorder, exposition, has_port=wanted.worker is None)
    finally:
        if call_log is not None:
            call_log.flush()
        if tracing is not None:
            tracing.close()


def _tracing() -> Tracing:
    try:
        return open_tracing("tasklogs-server", sampled=_SAMPLED)
    except TracingUnavailable as error:
        raise TelemetryUnavailable(str(error)) from error


def _exposition(listen: str | None, limits: Sequence[str]) -> Exposition | None:
    if listen is None:
        return None
    with needs_prometheus():
        from tasklogs_server.telemetry.metrics_port import Exposition
    return Exposition(*metrics_address(listen), limits)


@contextmanager
def needs_prometheus() -> Iterator[None]:
    """Turn the failure to import it into TelemetryUnavailable."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise TelemetryUnavailable(
            f"TASKLOGS_METRICS_LISTEN is set, but the module {error.name} is missing;"
            f" {how_to_install('telemetry')}"
        ) from error


def metrics_address(listen: str) -> tuple[str, int]:
    """Return host and port of TASKLOGS_METRICS_LISTEN. Raises TelemetryUnavailable."""
    try:
        host, port = host_and_port(listen)
    except ValueError as error:
        raise TelemetryUnavailable(f"TASKLOGS_METRICS_LISTEN={listen}: {error}") from error
    return host.strip("[]"), port
