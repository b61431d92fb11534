"""Passes reports on to metrics, the log of calls and traces, whichever are on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tasklogs.tracing.base import Tracing
from tasklogs_server.telemetry.call_log import CallLog
from tasklogs_server.telemetry.calls import Call
from tasklogs_server.telemetry.observer import Observer

if TYPE_CHECKING:
    from tasklogs_server.telemetry.metrics import Metrics  # its library may not be there


class Recorder(Observer):
    """Telemetry that is on."""

    def __init__(
        self, *, metrics: Metrics | None, call_log: CallLog | None, tracing: Tracing
    ) -> None:
        self._metrics = metrics
        self._call_log = call_log
        self._tracing = tracing
        self._traces = type(tracing) is not Tracing

    def began(self, call: Call) -> None:
        """Begin the call's span, and count the call."""
        if self._metrics is not None:
            self._metrics.calls.began(call)
        if self._traces:
            call.span = self._tracing.begin(call.method.lstrip("/"), call.traceparent)

    def ended(self, call: Call, code: str) -> None:
        """End the span, count the call, write its line."""
        if call.span is not None:
            service, _, method = call.method.lstrip("/").rpartition("/")
            attributes = {
                "rpc.system": "grpc",
                "rpc.service": service,
                "rpc.method": method,
                "tasklogs.code": code,
                "tasklogs.request_id": call.request_id,
            }
            if call.task_id is not None:
                attributes["tasklogs.task_id"] = str(call.task_id)
            self._tracing.end(call.span, attributes, failed=code not in ("OK", "CANCELLED"))
        if self._metrics is not None:
            self._metrics.calls.ended(call, code)
        if self._call_log is not None:
            self._call_log.ended(call, code)

    def unknown_method(self) -> None:
        """Count the call."""
        if self._metrics is not None:
            self._metrics.calls.unknown_method()

    def limited(self, limit: str) -> None:
        """Count the call."""
        if self._metrics is not None:
            self._metrics.limited(limit)

    @contextmanager
    def shaking_hands(self) -> Iterator[None]:
        """Time and trace a handshake."""
        began = time.perf_counter()
        outcome = "failed"
        try:
            with self._tracing.span("handshake"):
                yield
            outcome = "done"
        finally:
            if self._metrics is not None:
                self._metrics.shook_hands(outcome, time.perf_counter() - began)

    @contextmanager
    def syncing(self) -> Iterator[str]:
        """Time and trace a sync."""
        began = time.perf_counter()
        outcome = "failed"
        try:
            with self._tracing.span("sync") as traceparent:
                yield traceparent
            outcome = "done"
        finally:
            if self._metrics is not None:
                self._metrics.synced(outcome, time.perf_counter() - began)

    @contextmanager
    def committing(self, *, tasks: int, size_bytes: int) -> Iterator[None]:
        """Time and trace a batch of commits."""
        began = time.perf_counter()
        try:
            with self._tracing.span(
                "commit", root=True, attributes={"tasks": tasks, "bytes": size_bytes}
            ):
                yield
        except BaseException:
            if self._metrics is not None:
                self._metrics.commit_failed()
            raise
        if self._metrics is not None:
            self._metrics.committed(tasks, size_bytes, time.perf_counter() - began)

    def stored(self, lag_seconds: float) -> None:
        """Record the lag."""
        if self._metrics is not None:
            self._metrics.stored(lag_seconds)
