"""Rate, errors and duration of calls: counted here by hand, made into metrics when asked for.

A call would cost four of prometheus_client's observations, each with a lock. Here one thread, the
loop's, adds up, and the thread that Prometheus waits for may read one call of two halves.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from tasklogs_server.telemetry.calls import Call

# Reads take milliseconds, a stream that follows or an agent's hours.
_BOUNDS_SECONDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
    *(60.0, 600.0, 3600.0, 21600.0),
)
_BOUNDS = [*(str(bound) for bound in _BOUNDS_SECONDS), "+Inf"]
_OTHER = "other"


class _Method:
    """What is known of one method."""

    __slots__ = ("buckets", "codes", "seconds", "under_way")

    def __init__(self) -> None:
        self.under_way = 0
        self.seconds = 0.0
        self.buckets = [0] * len(_BOUNDS)
        self.codes: dict[str, int] = {}

    def ended(self, code: str) -> None:
        """Count an end."""
        self.codes[code] = self.codes.get(code, 0) + 1


class CallMetrics(Collector):
    """The metrics of all calls, by method: those that are served, and one for all others."""

    def __init__(self) -> None:
        self._methods: dict[str, _Method] = {}

    def began(self, call: Call) -> None:
        """Count a call as under way."""
        method = self._methods.get(call.method)
        if method is None:
            method = self._methods[call.method] = _Method()
        method.under_way += 1

    def ended(self, call: Call, code: str) -> None:
        """Count a call that has ended."""
        seconds = time.perf_counter() - call.began
        method = self._methods[call.method]
        method.under_way -= 1
        method.seconds += seconds
        method.buckets[bisect_left(_BOUNDS_SECONDS, seconds)] += 1
        method.ended(code)

    def unknown_method(self) -> None:
        """Count a call of what is not served: whatever its name, under one label."""
        if _OTHER not in self._methods:
            self._methods[_OTHER] = _Method()
        self._methods[_OTHER].ended("UNIMPLEMENTED")

    def collect(self) -> Iterator[Metric]:
        """Make the metrics as they are now."""
        ends = CounterMetricFamily(
            "tasklogs_rpcs",
            "RPCs that have ended, by method and status code",
            labels=["method", "code"],
        )
        durations = HistogramMetricFamily(
            "tasklogs_rpc_duration_seconds",
            "How long RPCs took; a stream lasts as long as it is open",
            labels=["method"],
        )
        under_way = GaugeMetricFamily(
            "tasklogs_rpcs_under_way", "RPCs that are open now", labels=["method"]
        )
        for name, method in list(self._methods.items()):
            for code, count in list(method.codes.items()):
                ends.add_metric([name, code], count)
            if name != _OTHER:
                counts = accumulate(method.buckets)
                buckets = [(bound, float(n)) for bound, n in zip(_BOUNDS, counts, strict=True)]
                durations.add_metric([name], buckets, method.seconds)
                under_way.add_metric([name], method.under_way)
        yield from (ends, durations, under_way)
