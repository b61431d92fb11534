"""The counters and histograms, updated as things happen. The gauges are in `gauges`.

They are prometheus_client's and not OpenTelemetry's: an observation costs 1 us here, 26 us there.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram

from tasklogs_server.telemetry.call_metrics import CallMetrics

_SHORT_SECONDS = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
_BATCH_TASKS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
_BATCH_BYTES = tuple(float(4**power * 256) for power in range(10))


class Metrics:
    """The counters and histograms of one server, in a registry of their own."""

    def __init__(self, registry: CollectorRegistry, limits: Iterable[str]) -> None:
        """`limits`: the names of the limits that calls may hit."""
        self.calls = CallMetrics()
        registry.register(self.calls)
        self._limits = Counter(
            "tasklogs_limited",
            "Calls that a limit refused or ended, and responses that the server discarded because"
            " the caller did not read them. The label names the limit",
            ["limit"],
            registry=registry,
        )
        for limit in limits:  # from 0 on: a rate does not see the step to a first value
            self._limits.labels(limit)
        self._handshakes = Counter(
            "tasklogs_handshakes",
            "Session handshakes, by outcome: done or failed",
            ["outcome"],
            registry=registry,
        )
        self._handshake_seconds = Histogram(
            "tasklogs_handshake_duration_seconds",
            "Duration of session handshakes, without the wait in the queue",
            buckets=_SHORT_SECONDS,
            registry=registry,
        )
        self._syncs = Histogram(
            "tasklogs_sync_duration_seconds",
            "Duration of syncs, including the commit of what they brought, by outcome: done or"
            " failed",
            ["outcome"],
            buckets=_SHORT_SECONDS,
            registry=registry,
        )
        self._commits = Histogram(
            "tasklogs_commit_duration_seconds",
            "Duration of a batch of commits. A batch is one transaction",
            buckets=_SHORT_SECONDS,
            registry=registry,
        )
        self._commit_failures = Counter(
            "tasklogs_commit_failures",
            "Batches of commits that failed in a way that leaves their outcome unknown",
            registry=registry,
        )
        self._batch_tasks = Histogram(
            "tasklogs_commit_batch_tasks",
            "Tasks in one batch of commits",
            buckets=_BATCH_TASKS,
            registry=registry,
        )
        self._batch_bytes = Histogram(
            "tasklogs_commit_batch_bytes",
            "Bytes in one batch of commits",
            buckets=_BATCH_BYTES,
            registry=registry,
        )
        self._lag = Histogram(
            "tasklogs_ingest_lag_seconds",
            "Time from when an agent saw a change until the change was committed, without the time"
            " on the network between agent and server",
            buckets=_SHORT_SECONDS,
            registry=registry,
        )

    def limited(self, limit: str) -> None:
        """Count a call that a limit refused or ended, or a response that it gave up."""
        self._limits.labels(limit).inc()

    def shook_hands(self, outcome: str, seconds: float) -> None:
        """Count a handshake."""
        self._handshakes.labels(outcome).inc()
        self._handshake_seconds.observe(seconds)

    def synced(self, outcome: str, seconds: float) -> None:
        """Count a sync."""
        self._syncs.labels(outcome).observe(seconds)

    def committed(self, tasks: int, size_bytes: int, seconds: float) -> None:
        """Count a batch."""
        self._commits.observe(seconds)
        self._batch_tasks.observe(tasks)
        self._batch_bytes.observe(size_bytes)

    def commit_failed(self) -> None:
        """Count a batch whose outcome is unknown."""
        self._commit_failures.inc()

    def stored(self, lag_seconds: float) -> None:
        """Count a change that was committed `lag_seconds` after its agent saw it."""
        self._lag.observe(lag_seconds)
