"""Turns tracing on, with OpenTelemetry if it is installed."""

from __future__ import annotations

from tasklogs.extras import how_to_install
from tasklogs.tracing.base import Tracing


class TracingUnavailable(Exception):
    """Tracing cannot be turned on. `str()` is one line that says why and what to do."""


def open_tracing(service: str, *, sampled: float) -> Tracing:
    """Return a tracing that exports, set up by the OTEL_* variables. Raises TracingUnavailable.

    `service` is the service's name and `sampled` the share of new traces that are kept; the
    variables override both.
    """
    try:
        from tasklogs.tracing.opentelemetry import OpenTelemetry
    except ModuleNotFoundError as error:
        raise TracingUnavailable(
            f"traces are on, but the module {error.name} is missing; {how_to_install('telemetry')}"
        ) from error
    return OpenTelemetry(service, sampled=sampled)
