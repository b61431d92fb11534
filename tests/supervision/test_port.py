from __future__ import annotations

import socket
from contextlib import closing

import pytest

from tasklogs_server.process.lifecycle import StartupError
from tasklogs_server.supervision.port import reserved_port


def shared(host: str, port: int) -> socket.socket:
    """Listen as a worker does."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    one = socket.socket(family, socket.SOCK_STREAM)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    one.bind((host, port))
    one.listen()
    return one


def refuses(host: str, port: int, why: str) -> None:
    with pytest.raises(StartupError, match=why), reserved_port(host, port):
        pass


@pytest.mark.parametrize(
    ("host", "reached"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("localhost", "127.0.0.1")],
)
def test_workers_share_a_reserved_port_and_nobody_else(host: str, reached: str) -> None:
    with reserved_port(host, 0) as port:
        assert port
        with (
            pytest.raises(StartupError, match="is another server there"),
            reserved_port(host, port),
        ):
            pass
        with closing(shared(reached, port)), closing(shared(reached, port)):
            socket.create_connection((reached, port)).close()
            refuses(host, port, "is another server there")
            with socket.socket() as other:
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                with pytest.raises(OSError, match="in use"):
                    other.bind((reached, port))


def test_nothing_listens_on_a_port_that_is_only_reserved() -> None:
    with reserved_port("127.0.0.1", 0) as port, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_a_port_can_be_reserved_again_right_after_its_connections_have_ended() -> None:
    with reserved_port("127.0.0.1", 0) as port, closing(shared("127.0.0.1", port)) as listener:
        client = socket.create_connection(("127.0.0.1", port))
        listener.accept()[0].close()  # this side remembers the connection (TIME_WAIT)
        client.close()
    with reserved_port("127.0.0.1", port) as again:
        assert again == port


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1", 64 * "x"])
def test_an_address_that_is_not_here_is_refused_in_one_line(host: str) -> None:
    with (
        pytest.raises(StartupError, match=f"^cannot listen on {host}:1: .+"),
        reserved_port(host, 1),
    ):
        pass
