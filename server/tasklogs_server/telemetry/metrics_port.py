"""A small HTTP server in threads, for whoever reads metrics and for strangers who get that far."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from socketserver import ThreadingMixIn
from threading import Lock, Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

_CONNECTIONS = 16
_SECONDS = 5.0
"""From a connection's begin to its end: an answer takes milliseconds."""


class _Handler(WSGIRequestHandler):
    """Writes nothing of requests to the log."""

    timeout = _SECONDS

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (its name there)
        """Log nothing."""


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each connection, for few of them, and for none for long."""

    daemon_threads = True
    request_queue_size = 32

    def __init__(self, family: socket.AddressFamily, address: tuple[str, int]) -> None:
        self.address_family = family
        self._open: dict[socket.socket, float] = {}
        self._changing = Lock()
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind without asking a name server what the address is called."""
        self.allow_reuse_address = True
        socket_address = self.server_address
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(socket_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "", self.server_address[1]
        self.setup_environ()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether there is room for one more."""
        with self._changing:
            if len(self._open) >= _CONNECTIONS:
                return False
            self._open[request] = time.monotonic() + _SECONDS
            return True

    def service_actions(self) -> None:
        """Hang up on who takes too long; called twice a second."""
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
        """Let no thread wait for its peer any longer."""
        with self._changing:
            for connection in self._open:
                _hang_up(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that break: strangers could fill the log with them."""


def _hang_up(connection: socket.socket) -> None:
    with suppress(OSError):  # it may be gone already
        connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def served(app: Callable[..., Any], host: str, port: int) -> Iterator[int]:
    """Serve a WSGI application in threads as long as the block lasts; lend the port.

    Raises OSError where it cannot be listened on.
    """
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
