"""The metrics: what is counted as it happens. What merely is, like open sessions, is in `live`.

prometheus_client and not OpenTelemetry's metrics: an observation costs 1 us here and 26 us there.
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
        """`limits` are the names of those that calls may hit."""
        self.calls = CallMetrics()
        registry.register(self.calls)
        self._limits = Counter(
            "tasklogs_limited",
            "Calls that were refused or ended for a limit, and answers that were given up because"
            " nobody took them, by limit: a setting, without its TASKLOGS_",
            ["limit"],
            registry=registry,
        )
        for limit in limits:  # from 0: a rate does not see a counter's first value
            self._limits.labels(limit)
        self._handshakes = Counter(
            "tasklogs_handshakes",
            "Handshakes of agents, done or failed",
            ["outcome"],
            registry=registry,
        )
        self._handshake_seconds = Histogram(
            "tasklogs_handshake_duration_seconds",
            "From Hello to a held fence",
            buckets=_SHORT_SECONDS,
            registry=registry,
        )
        self._syncs = Histogram(
            "tasklogs_sync_duration_seconds",
            "Syncs with task apps, until their appends are committed, by outcome",
            ["outcome"],
            buckets=_SHORT_SECONDS,
            registry=registry,
        )
        self._commits = Histogram(
            "tasklogs_commit_duration_seconds",
            "One batch of commits, one transaction",
            buckets=_SHORT_SECONDS,
            registry=registry,
        )
        self._commit_failures = Counter(
            "tasklogs_commit_failures",
            "Batches of which nothing is known: the store went away",
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
            "From the moment an agent saw a change to its commit, by the agent's clock until it"
            " was sent and the server's from its arrival; the way between them is left out",
            buckets=_SHORT_SECONDS,
            registry=registry,
        )

    def limited(self, limit: str) -> None:
        """Count what a limit did."""
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
        """Count a batch of which nothing is known."""
        self._commit_failures.inc()

    def stored(self, lag_seconds: float) -> None:
        """Count a change that is committed."""
        self._lag.observe(lag_seconds)
