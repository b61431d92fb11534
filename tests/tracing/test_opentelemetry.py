"""What is traced and what a span has, with the real SDK and an exporter in memory."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from tasklogs.tracing.opentelemetry import OpenTelemetry

CONTENT = "what a person wrote"
SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NOT_SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


class Exported(SpanExporter):
    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.spans += spans
        return SpanExportResult.SUCCESS

    @property
    def names(self) -> list[str]:
        return [span.name for span in self.spans]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_TRACES_SAMPLER", raising=False)


def test_the_callers_sampling_decision_overrides_the_share() -> None:
    exported = Exported()
    for sampled in (0.0, 1.0):
        tracing = OpenTelemetry("test", sampled=sampled, exporter=exported)
        with tracing.span("kept", traceparent=SAMPLED) as own:
            assert own.startswith("00-0af7651916cd43dd8448eb211c80319c-")
        with tracing.span("not kept", traceparent=NOT_SAMPLED) as none:
            assert none == ""
        tracing.close()

    assert exported.names == ["kept", "kept"]


def test_a_trace_begins_only_at_a_root_and_by_chance() -> None:
    exported = Exported()
    never = OpenTelemetry("test", sampled=0.0, exporter=exported)
    with never.span("root", root=True):
        pass
    never.close()
    always = OpenTelemetry("test", sampled=1.0, exporter=exported)
    with always.span("no root"):
        pass
    with always.span("root", root=True), always.span("child"):
        pass
    always.close()

    assert exported.names == ["child", "root"]


@pytest.mark.parametrize("broken", ["x", "00-zz-yy-01", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
def test_a_broken_traceparent_is_ignored(broken: str) -> None:
    exported = Exported()
    tracing = OpenTelemetry("test", sampled=0.0, exporter=exported)
    with tracing.span("call", traceparent=broken):
        pass
    tracing.close()

    assert exported.names == []


def test_a_failed_span_holds_the_errors_type_and_not_its_text() -> None:
    exported = Exported()
    tracing = OpenTelemetry("test", sampled=1.0, exporter=exported)
    with pytest.raises(KeyError), tracing.span("call", root=True):
        raise KeyError(CONTENT)
    tracing.close()

    [span] = exported.spans
    assert not span.status.is_ok
    assert CONTENT not in span.to_json()
    assert "KeyError" in span.to_json()


def test_the_standard_variable_for_sampling_overrides_the_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    exported = Exported()
    tracing = OpenTelemetry("test", sampled=1.0, exporter=exported)
    with tracing.span("call", root=True):
        pass
    tracing.close()

    assert exported.names == []
