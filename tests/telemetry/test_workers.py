"""The metrics of several workers in one answer."""

from __future__ import annotations

import json

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tasklogs_server.telemetry.families import families_of
from tasklogs_server.telemetry.workers import WorkersState, registry_of


def registry_of_a_worker(count: int) -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("calls", "Calls", ["method"], registry=registry).labels('a"b').inc(count)
    Histogram("seconds", "Seconds", buckets=(1.0,), registry=registry).observe(count)
    return registry


def test_each_sample_is_there_once_for_each_worker() -> None:
    families = {
        str(worker): json.loads(json.dumps(families_of(registry_of_a_worker(worker))))
        for worker in (1, 2)
    }
    state = WorkersState(3, lambda: 2, lambda: {1: 0, 2: 5, 3: 1}, lambda: families)

    text = generate_latest(registry_of(state)).decode()

    samples = {
        (one.name, one.labels.get("worker"), one.labels.get("le")): one
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }
    assert text.count("# TYPE calls_total counter") == 1
    assert samples["calls_total", "1", None].labels == {"worker": "1", "method": 'a"b'}
    assert [samples["calls_total", worker, None].value for worker in ("1", "2")] == [1, 2]
    assert [samples["seconds_bucket", worker, "1.0"].value for worker in ("1", "2")] == [1, 0]
    assert samples["tasklogs_workers_wanted", None, None].value == 3
    assert samples["tasklogs_workers_serving", None, None].value == 2
    assert samples["tasklogs_workers_scraped", None, None].value == 2
    assert samples["tasklogs_worker_restarts_total", "2", None].value == 5
    assert samples["process_resident_memory_bytes", "supervisor", None].value > 0
