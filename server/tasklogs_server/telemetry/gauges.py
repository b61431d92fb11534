"""The gauges: read from the server's state when Prometheus asks, so they cost nothing before."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tasklogs_server.telemetry.state import State


class LiveMetrics(Collector):
    """The gauges of one server."""

    def __init__(self, state: State) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        """Return the gauges as they are now."""
        state = self._state
        yield _gauge(
            "tasklogs_sessions_open",
            "Open sessions: agent streams that have completed their session handshake",
            state.sessions(),
        )
        yield _gauge("tasklogs_followers", "Open follows", state.followers())
        yield _gauge(
            "tasklogs_handshakes_under_way",
            "Agents in a session handshake, or in the queue for one",
            state.handshakes(),
        )
        yield _gauge(
            "tasklogs_held_commits",
            "Tasks whose commits wait for rows that another transaction holds",
            state.held_commits(),
        )
        yield _gauge(
            "tasklogs_unacknowledged_bytes",
            "Bytes that agents have sent and the server has not committed yet",
            state.unacknowledged_bytes(),
        )
        yield _gauge(
            "tasklogs_upload_bytes",
            "Bytes of requests of uploads that the server works on, or that wait for their turn."
            " An upload in parts has none",
            state.upload_bytes(),
        )
        yield _gauge(
            "tasklogs_untaken_answer_bytes",
            "Bytes of responses, and of messages of follows, that callers have not read yet",
            state.untaken_bytes(),
        )
        yield _gauge(
            "tasklogs_follows_waiting",
            "Follows that wait for memory before they send what is new, because other callers do"
            " not read",
            state.waiting_follows(),
        )
        yield _gauge(
            "tasklogs_tail_bytes",
            "Bytes of tails in memory: those of agent streams, and those of followed tasks",
            state.tail_bytes(),
        )
        yield _gauge(
            "tasklogs_page_cache_bytes",
            "Bytes of pages of logs that the server keeps in memory",
            state.page_cache_bytes(),
        )
        yield self._page_cache_reads()
        yield _gauge(
            "tasklogs_purge_backlog_tasks",
            "Deleted tasks in the database whose rows the servers still have to delete. Counted"
            " every 10 s while the server deletes rows, and up to 100,000",
            state.purge_backlog(),
        )
        yield _gauge(
            "tasklogs_purge_set_aside_tasks",
            "Deleted tasks whose rows this server could not delete, because they were locked or"
            " Postgres refused. It tries again within 10 minutes",
            state.purge_set_aside(),
        )
        yield _gauge(
            "tasklogs_retirement_backlog_tasks",
            "Tasks in the database that seem to be past TASKLOGS_RETENTION. Counted before and"
            " after each round of deletions, and up to 100,000. After a round, these are the tasks"
            " that were locked or that Postgres refused to delete",
            state.retirement_backlog(),
        )
        yield _gauge(
            "tasklogs_store_up",
            "1 while Postgres answers and accepts writes, else 0",
            int(state.store_is_up()),
        )
        yield _gauge(
            "tasklogs_draining",
            "1 while the server drains, else 0",
            int(state.is_draining()),
        )
        yield _gauge(
            "tasklogs_bus_processes",
            "Other server processes on the same database whose notes arrive here",
            state.bus_processes(),
        )
        yield CounterMetricFamily(
            "tasklogs_bus_gaps",
            "Times when notes of other server processes may have been lost. The server then looks"
            " at the database",
            value=state.bus_gaps(),
        )
        expires_at = state.certificate_expires_at()
        if expires_at is not None:
            yield _gauge(
                "tasklogs_tls_certificate_expiry_timestamp_seconds",
                "Expiry of the certificate that new connections get, in Unix time. Absent"
                " without TLS",
                expires_at.timestamp(),
            )
        yield self._connections()
        build = GaugeMetricFamily(
            "tasklogs_build_info", "Always 1. The label is the server's version", labels=["version"]
        )
        build.add_metric([version("tasklogs")], 1)
        yield build

    def _page_cache_reads(self) -> Metric:
        family = CounterMetricFamily(
            "tasklogs_page_cache_reads",
            "Pages that reads of logs needed, by where they came from: from memory (hit), after a"
            " check that the log had not changed, or from the database (miss)",
            labels=["result"],
        )
        family.add_metric(["hit"], self._state.page_cache_hits())
        family.add_metric(["miss"], self._state.page_cache_misses())
        return family

    def _connections(self) -> Metric:
        family = GaugeMetricFamily(
            "tasklogs_store_connections",
            "For each pool (reads, commits): connections to Postgres that are in use (in_use), and"
            " calls that wait for a connection (waiting)",
            labels=["pool", "state"],
        )
        for pool, counts in self._state.connections.items():
            family.add_metric([pool, "in_use"], counts.in_use)
            family.add_metric([pool, "waiting"], counts.waiting)
        return family


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(name, documentation, value=value)
