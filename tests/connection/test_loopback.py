"""Which hosts are this machine."""

from __future__ import annotations

import pytest

from tasklogs.connection.loopback import is_loopback, is_loopback_address

HERE = (
    "127.0.0.1",
    "127.8.9.10",
    "::1",
    "[::1]",
    "::ffff:127.0.0.1",
    "[::ffff:127.0.0.1]",
    "[::FFFF:7f00:1]",
    "localhost",
    "LOCALHOST",
    "Localhost",
    "localhost.",
    "LOCALHOST.",
)
ELSEWHERE = (
    "",
    ".",
    "0.0.0.0",
    "::",
    "[::]",
    "10.0.0.1",
    "128.0.0.1",
    "::2",
    "::ffff:10.0.0.1",
    "[::ffff:10.0.0.1]",
    "127.0.0.1.",
    "127.1",
    "127.0.0.1.example.com",
    "127.example.com",
    "localhost.example.com",
    "localhost..",
    "xlocalhost",
    "local host",
    "[localhost",
    "[::1",
    "::1]",
)


@pytest.mark.parametrize("host", HERE)
def test_a_loopback_host(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ELSEWHERE)
def test_a_host_that_is_not_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("host", [host for host in HERE if ":" not in host or "[" in host])
def test_an_address_on_loopback(host: str) -> None:
    assert is_loopback_address(f"{host}:50051")


@pytest.mark.parametrize("host", [host for host in ELSEWHERE if ":" not in host or "[" in host])
def test_an_address_that_is_not_on_loopback(host: str) -> None:
    assert not is_loopback_address(f"{host}:50051")
