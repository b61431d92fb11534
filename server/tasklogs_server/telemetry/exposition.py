"""The port on which Prometheus reads the metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, make_wsgi_app

from tasklogs_server.telemetry.gauges import LiveMetrics
from tasklogs_server.telemetry.metrics import Metrics
from tasklogs_server.telemetry.metrics_port import served
from tasklogs_server.telemetry.state import State


class Exposition:
    """The metrics of one server, and where they are read. Port 0 picks one."""

    def __init__(self, host: str, port: int, limits: Iterable[str]) -> None:
        self._host = host
        self._port = port
        self._registry = CollectorRegistry()
        # What holds for any process: memory, processor time, files, garbage.
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self.metrics = Metrics(self._registry, limits)

    @contextmanager
    def serving(self, state: State) -> Iterator[str]:
        """Answer `GET /metrics` in a thread as long as the block lasts; lend the address.

        Raises OSError where it cannot be listened on.
        """
        self._registry.register(LiveMetrics(state))
        with served(make_wsgi_app(self._registry), self._host, self._port) as port:
            yield f"{self._host}:{port}"
