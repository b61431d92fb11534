"""Rate, errors and duration of calls: counted by hand, and made into metrics on a scrape.

With prometheus_client's own types a call would cost four observations, each with a lock. Here the
event loop's thread counts without a lock. A scrape runs in another thread, and may see a call
counted in one metric and not yet in the next.
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

# Reads take milliseconds. Follows and agent streams last for hours.
_BOUNDS_SECONDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
    *(60.0, 600.0, 3600.0, 21600.0),
)
_BOUNDS = [*(str(bound) for bound in _BOUNDS_SECONDS), "+Inf"]
_OTHER = "other"


class _Method:
    """The counts of one method."""

    __slots__ = ("buckets", "codes", "seconds", "under_way")

    def __init__(self) -> None:
        self.under_way = 0
        self.seconds = 0.0
        self.buckets = [0] * len(_BOUNDS)
        self.codes: dict[str, int] = {}

    def ended(self, code: str) -> None:
        """Count a call that ended with this code."""
        self.codes[code] = self.codes.get(code, 0) + 1


class CallMetrics(Collector):
    """The metrics of all calls, by method. All unknown methods share the label `other`."""

    def __init__(self) -> None:
        self._methods: dict[str, _Method] = {}

    def began(self, call: Call) -> None:
        """Count a call that begins."""
        method = self._methods.get(call.method)
        if method is None:
            method = self._methods[call.method] = _Method()
        method.under_way += 1

    def ended(self, call: Call, code: str) -> None:
        """Count a call that ends."""
        seconds = time.perf_counter() - call.began
        method = self._methods[call.method]
        method.under_way -= 1
        method.seconds += seconds
        method.buckets[bisect_left(_BOUNDS_SECONDS, seconds)] += 1
        method.ended(code)

    def unknown_method(self) -> None:
        """Count a call of a method that is not served. Its name is a client's choice: no label."""
        if _OTHER not in self._methods:
            self._methods[_OTHER] = _Method()
        self._methods[_OTHER].ended("UNIMPLEMENTED")

    def collect(self) -> Iterator[Metric]:
        """Return the metrics as they are now."""
        ends = CounterMetricFamily(
            "tasklogs_rpcs",
            "RPCs that ended, by method and status code",
            labels=["method", "code"],
        )
        durations = HistogramMetricFamily(
            "tasklogs_rpc_duration_seconds",
            "Duration of RPCs. For a stream, the time that it was open",
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
