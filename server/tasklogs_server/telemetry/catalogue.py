"""Every metric of a server, for the documentation and for tests of dashboards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from tasklogs_server.telemetry.calls import Call
from tasklogs_server.telemetry.gauges import LiveMetrics
from tasklogs_server.telemetry.metrics import Metrics
from tasklogs_server.telemetry.state import State
from tasklogs_server.telemetry.workers import WorkersState, supervisor_metrics


@dataclass(frozen=True, slots=True)
class Described:
    """A metric as Prometheus sees it. `series` are the names of its samples."""

    name: str
    kind: str
    labels: Sequence[str]
    documentation: str
    series: Sequence[str]


def catalogue() -> list[Described]:
    """Return all metrics of the server's own, sorted by name."""
    registry = CollectorRegistry()
    _observe_all(Metrics(registry, [""]))
    registry.register(LiveMetrics(_nothing()))
    workers = supervisor_metrics(WorkersState(0, lambda: 0, lambda: {1: 0}, dict), 0)
    found = [*registry.collect(), *workers]
    return sorted((_described(one) for one in found), key=lambda one: one.name)


def _described(metric: Metric) -> Described:
    # Queries name a counter with `_total`, a histogram by the common start of its series.
    name = f"{metric.name}_total" if metric.type == "counter" else metric.name
    kept = [one for one in metric.samples if not one.name.endswith("_created")]
    labels = dict.fromkeys(label for one in kept for label in one.labels if label != "le")
    series = dict.fromkeys(one.name for one in kept)
    return Described(name, metric.type, list(labels), metric.documentation, list(series))


def _observe_all(metrics: Metrics) -> None:
    # A metric with labels has no samples before its first observation.
    call = Call("", ())
    metrics.calls.began(call)
    metrics.calls.ended(call, "")
    metrics.shook_hands("", 0)
    metrics.synced("", 0)
    metrics.committed(0, 0, 0)
    metrics.commit_failed()
    metrics.stored(0)


class _NoConnections:
    in_use = 0
    waiting = 0


def _nothing() -> State:
    def none() -> int:
        return 0

    def no() -> bool:
        return False

    def once() -> datetime:
        return datetime.now(UTC)

    return State(
        sessions=none,
        followers=none,
        waiting_follows=none,
        tail_bytes=none,
        page_cache_bytes=none,
        page_cache_hits=none,
        page_cache_misses=none,
        handshakes=none,
        held_commits=none,
        unacknowledged_bytes=none,
        upload_bytes=none,
        untaken_bytes=none,
        purge_backlog=none,
        purge_set_aside=none,
        retirement_backlog=none,
        store_is_up=no,
        is_draining=no,
        bus_processes=none,
        bus_gaps=none,
        connections={"": _NoConnections()},
        certificate_expires_at=once,
    )
