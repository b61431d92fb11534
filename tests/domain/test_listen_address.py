"""Addresses to listen on are PORT or HOST:PORT, and nothing else."""

import pytest

from tasklogs_server.domain.listen_address import host_and_port


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ("0", ("127.0.0.1", 0)),
        (":9090", ("127.0.0.1", 9090)),
        ("0.0.0.0:65535", ("0.0.0.0", 65535)),
        ("[::1]:9090", ("[::1]", 9090)),
    ],
)
def test_a_port_alone_is_on_loopback(listen: str, expected: tuple[str, int]) -> None:
    assert host_and_port(listen) == expected


@pytest.mark.parametrize("listen", ["", "host", "host:", "65536", "-1", "٣", "1 "])
def test_everything_else_is_refused(listen: str) -> None:
    with pytest.raises(ValueError, match="PORT or HOST:PORT"):
        host_and_port(listen)
