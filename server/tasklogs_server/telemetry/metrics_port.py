"""The port on which Prometheus reads the metrics: a small HTTP server in threads.

Anybody who reaches the port may connect. So connections are few and short, and what a client sends
gets into no log.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from socketserver import ThreadingMixIn
from threading import Lock, Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, make_wsgi_app

from tasklogs_server.telemetry.families import Family, families_of
from tasklogs_server.telemetry.gauges import LiveMetrics
from tasklogs_server.telemetry.metrics import Metrics
from tasklogs_server.telemetry.state import State

_CONNECTIONS = 16
_SECONDS = 5.0
"""How long a connection may last. An answer takes milliseconds."""


class Exposition:
    """The metrics of one server, and the port that serves them. Port 0 takes a free one."""

    def __init__(self, host: str, port: int, limits: Iterable[str]) -> None:
        """`limits`: see `Metrics`."""
        self._host = host
        self._port = port
        self._registry = CollectorRegistry()
        # What every Python process has: memory, processor time, open files, garbage.
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self.metrics = Metrics(self._registry, limits)

    @contextmanager
    def serving(self, state: State) -> Iterator[str]:
        """Answer `GET /metrics` in threads as long as the block lasts; lend the address.

        Raises OSError where it cannot listen there.
        """
        self.read_from(state)
        with served(self._registry, self._host, self._port) as address:
            yield address

    def read_from(self, state: State) -> None:
        """Take the gauges from this server."""
        self._registry.register(LiveMetrics(state))

    def collect(self) -> list[Family]:
        """Return all metrics as they are now."""
        return families_of(self._registry)


@contextmanager
def served(registry: CollectorRegistry, host: str, port: int) -> Iterator[str]:
    """Answer `GET /metrics` in threads as long as the block lasts; lend the address.

    Raises OSError where it cannot listen there.
    """
    with _listening(make_wsgi_app(registry), host, port) as bound:
        yield f"{host}:{bound}"


@contextmanager
def _listening(app: Callable[..., Any], host: str, port: int) -> Iterator[int]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    server = _Server(family, (str(address[0]), port))
    server.set_app(app)
    thread = Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.hang_up_on_all()
        server.server_close()
        thread.join()


class _Handler(WSGIRequestHandler):
    """Answers one request."""

    timeout = _SECONDS

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (its name there)
        """Log nothing: a client could fill the log."""


class _Server(ThreadingMixIn, WSGIServer):
    """One thread for each connection: at most 16 connections, each for at most 5 s."""

    daemon_threads = True
    request_queue_size = 32

    def __init__(self, family: socket.AddressFamily, address: tuple[str, int]) -> None:
        self.address_family = family
        self._open: dict[socket.socket, float] = {}
        self._changing = Lock()
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind. The method of the base class asks a name server for the host name first."""
        self.allow_reuse_address = True
        socket_address = self.server_address
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(socket_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "", self.server_address[1]
        self.setup_environ()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether the server takes one more connection."""
        with self._changing:
            if len(self._open) >= _CONNECTIONS:
                return False
            self._open[request] = time.monotonic() + _SECONDS
            return True

    def service_actions(self) -> None:
        """Close connections that last too long. `serve_forever` calls this twice a second."""
        now = time.monotonic()
        with self._changing:
            for connection, due in self._open.items():
                if due < now:
                    _hang_up(connection)

    def shutdown_request(self, request: Any) -> None:
        """Forget a connection that has ended."""
        with self._changing:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def hang_up_on_all(self) -> None:
        """Close all connections, so that no thread waits for its peer."""
        with self._changing:
            for connection in self._open:
                _hang_up(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing of connections that break: a client could fill the log."""


def _hang_up(connection: socket.socket) -> None:
    with suppress(OSError):  # it may be closed already
        connection.shutdown(socket.SHUT_RDWR)
