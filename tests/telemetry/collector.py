"""A collector of traces that speaks OTLP over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.fakes.http_server import HttpServer, Request, Response


@dataclass(frozen=True)
class Span:
    """One exported span. Ids are in hexadecimal digits."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, str]
    failed: bool


class Collector:
    """Keeps all spans."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.raw = b""
        self._http = HttpServer(self._receive)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.port}"

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    async def _receive(self, request: Request) -> Response:
        assert request.path == "/v1/traces"
        self.raw += request.body
        for resource in ExportTraceServiceRequest.FromString(request.body).resource_spans:
            [service] = [
                one.value.string_value
                for one in resource.resource.attributes
                if one.key == "service.name"
            ]
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans.append(
                        Span(
                            service,
                            span.name,
                            span.trace_id.hex(),
                            span.span_id.hex(),
                            span.parent_span_id.hex(),
                            {one.key: one.value.string_value for one in span.attributes},
                            span.status.code == 2,
                        )
                    )
        return Response(content_type="application/x-protobuf")


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """Run a collector on loopback."""
    collector = Collector()
    await collector._http.start()
    try:
        yield collector
    finally:
        await collector._http.stop()
