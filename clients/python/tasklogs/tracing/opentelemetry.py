"""Tracing with OpenTelemetry: exported with OTLP over HTTP, configured by the OTEL_* variables.

The SDK takes 30 us for a span that it does not sample, and 100 us for one that it does. So the
sampling decision is made here first, unless OTEL_TRACES_SAMPLER is set. The text of an exception is
never put into a span, because it may quote content.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tasklogs.tracing.base import Attributes, Tracing

_CLOSE_SECONDS = 3.0
_HEADER = "traceparent"
_PROPAGATOR = TraceContextTextMapPropagator()


class OpenTelemetry(Tracing):
    """Creates spans, and exports them in a thread of its own."""

    def __init__(
        self, service: str, *, sampled: float, exporter: SpanExporter | None = None
    ) -> None:
        # The SDK reads OTEL_TRACES_SAMPLER if no sampler is given.
        self._decides = "OTEL_TRACES_SAMPLER" not in os.environ
        self._sampled = sampled
        named = "OTEL_SERVICE_NAME" in os.environ
        self._provider = TracerProvider(
            sampler=ALWAYS_ON if self._decides else None,
            resource=Resource.create({} if named else {SERVICE_NAME: service}),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("tasklogs")

    @contextmanager
    def _traced(
        self, name: str, parent: contexts.Context | None, attributes: Attributes | None
    ) -> Iterator[str]:
        with self._tracer.start_as_current_span(
            name,
            context=parent,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield _traceparent()
            except BaseException as error:
                span.set_status(trace.StatusCode.ERROR, type(error).__name__)
                raise

    def span(
        self,
        name: str,
        *,
        traceparent: str = "",
        root: bool = False,
        attributes: Attributes | None = None,
    ) -> Any:
        """Trace the block: see `Tracing`."""
        if traceparent:
            wanted = self._wants(traceparent)
        else:
            is_inside = trace.get_current_span().get_span_context().is_valid
            wanted = is_inside or (root and self._wants(""))
        if not wanted:
            return super().span(name)
        return self._traced(name, _parent(traceparent), attributes)

    def begin(self, name: str, traceparent: str) -> trace.Span | None:
        """Begin a call's span: see `Tracing`."""
        if not self._wants(traceparent):
            return None
        span = self._tracer.start_span(
            name, context=_parent(traceparent), kind=trace.SpanKind.SERVER
        )
        # Never detached: the task and its context end with the call.
        contexts.attach(trace.set_span_in_context(span))
        return span

    def end(self, span: trace.Span, attributes: Attributes, *, failed: bool) -> None:
        """End what `begin` began."""
        span.set_attributes(attributes)
        if failed:
            span.set_status(trace.StatusCode.ERROR)
        span.end()

    def close(self) -> None:
        """Export the remaining spans, for at most 3 s: a lost collector must not delay the exit."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(_CLOSE_SECONDS)

    def _wants(self, traceparent: str) -> bool:
        if not self._decides:
            return True
        if traceparent:
            caller = trace.get_current_span(_parent(traceparent)).get_span_context()
            return caller.trace_flags.sampled
        return random.random() < self._sampled


def _parent(traceparent: str) -> contexts.Context | None:
    """Return the context for a new span; None: the current one."""
    return _PROPAGATOR.extract({_HEADER: traceparent}) if traceparent else None


def _traceparent() -> str:
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier.get(_HEADER, "")
