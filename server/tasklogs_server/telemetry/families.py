"""The metrics of one worker, as plain lists that its supervisor can be sent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

_WORKER = "worker"

Family = Sequence[Any]
"""Name, type, documentation, and the samples: name, labels, value."""


def families_of(registry: CollectorRegistry) -> list[Family]:
    """Return what a registry holds now, as JSON can carry it."""
    return [
        (
            one.name,
            one.type,
            one.documentation,
            [(sample.name, sample.labels, sample.value) for sample in one.samples],
        )
        for one in registry.collect()
    ]


def merged(of_workers: Mapping[str, Iterable[Family]]) -> Iterator[Metric]:
    """Return each metric once, with the samples of all workers. `of_workers`: by their names.

    The name is the label `worker` of each sample.
    """
    metrics: dict[str, Metric] = {}
    for worker, families in of_workers.items():
        for name, kind, documentation, samples in families:
            metric = metrics.get(name)
            if metric is None:
                metric = metrics[name] = Metric(name, documentation, kind)
            for sample, labels, value in samples:
                metric.add_sample(sample, {_WORKER: worker, **labels}, value)
    yield from metrics.values()
