"""The metrics of all workers in one answer: the supervisor asks each of them.

prometheus_client's own way for several processes writes each value to a file. It knows neither
metrics that are read when they are asked for, nor those of a process: memory, CPU, open files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tasklogs_server.telemetry.families import Family, families_of, merged

_SUPERVISOR = "supervisor"


@dataclass(frozen=True, slots=True)
class WorkersState:
    """What the supervisor knows. The functions run in the scrape's thread."""

    wanted: int
    """How many workers there should be."""
    serving: Callable[[], int]
    restarts: Callable[[], Mapping[int, int]]
    """By the number of the worker."""
    families: Callable[[], Mapping[str, Sequence[Family]]]
    """The metrics of the workers that answered in time, by their numbers."""


def registry_of(state: WorkersState) -> CollectorRegistry:
    """Return what the supervisor's port serves."""
    registry = CollectorRegistry()
    registry.register(_WorkersMetrics(state))
    return registry


class _WorkersMetrics(Collector):
    """The supervisor's gauges, and the metrics of all workers with a label `worker`."""

    def __init__(self, state: WorkersState) -> None:
        self._state = state
        self._own = CollectorRegistry()
        ProcessCollector(registry=self._own)
        GCCollector(registry=self._own)

    def collect(self) -> Iterator[Metric]:
        """Ask all workers."""
        families = self._state.families()
        yield from supervisor_metrics(self._state, len(families))
        yield from merged({**families, _SUPERVISOR: families_of(self._own)})


def supervisor_metrics(state: WorkersState, answered: int) -> Iterator[Metric]:
    """Return the supervisor's own metrics. `answered`: how many workers this scrape contains."""
    yield GaugeMetricFamily(
        "tasklogs_workers_wanted", "Workers that should serve: --workers", value=state.wanted
    )
    yield GaugeMetricFamily(
        "tasklogs_workers_serving", "Workers that take calls", value=state.serving()
    )
    yield GaugeMetricFamily(
        "tasklogs_workers_scraped",
        "Workers whose metrics are in this answer: those that answered within 2 s",
        value=answered,
    )
    restarts = CounterMetricFamily(
        "tasklogs_worker_restarts",
        "Workers that ended by themselves, or were killed because their event loop stood still, and"
        " were replaced",
        labels=["worker"],
    )
    for worker, count in state.restarts().items():
        restarts.add_metric([str(worker)], count)
    yield restarts
