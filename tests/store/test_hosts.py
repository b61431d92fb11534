"""Which hosts a database URL names."""

from __future__ import annotations

import pytest

from tasklogs_server.store.hosts import Host, says_which_host, several_hosts

A, B = Host("a", 5432), Host("b", 5432)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGPORT", "PGTARGETSESSIONATTRS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgresql://u:p@a/x", []),
        ("postgresql:///x?host=/run/postgresql", []),
        ("postgresql://u:p@a,b/x", [A, B]),
        ("postgresql://a,b", [A, B]),
        ("postgresql://u@a:1,b:2/x", [Host("a", 1), Host("b", 2)]),
        ("postgresql://u@[::1]:1,[::2]/x", [Host("::1", 1), Host("::2", 5432)]),
        ("postgresql:///x?host=a,b", [A, B]),
        ("postgresql:///x?host=a,b&port=7", [Host("a", 7), Host("b", 7)]),
        ("postgresql:///x?host=/run/a,/run/b&port=1,2", [Host("/run/a", 1), Host("/run/b", 2)]),
        ("postgresql://u@%2Frun%2Fa,b/x", [Host("/run/a", 5432), B]),
    ],
)
def test_a_list_of_hosts_is_read_as_the_driver_reads_it(url: str, hosts: list[Host]) -> None:
    assert several_hosts(url) == hosts


def test_the_environment_names_hosts_and_ports_that_the_url_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PGHOST", "a,b")
    monkeypatch.setenv("PGPORT", "1,2")
    assert several_hosts("postgresql:///x") == [Host("a", 1), Host("b", 2)]
    assert several_hosts("postgresql://c/x") == []


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:secret@a,,b/x",
        "postgresql://u:secret@a:x,b/x",
        "postgresql:///x?host=a,b&port=1,2,3&password=secret",
    ],
)
def test_a_list_that_cannot_be_read_is_an_error_without_the_password(url: str) -> None:
    with pytest.raises(ValueError, match=r"host|argument") as raised:
        several_hosts(url)
    assert "secret" not in str(raised.value)


def test_the_url_or_the_environment_may_say_which_kind_of_server_to_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not says_which_host("postgresql://a,b/x")
    assert says_which_host("postgresql://a,b/x?target_session_attrs=any")
    monkeypatch.setenv("PGTARGETSESSIONATTRS", "primary")
    assert says_which_host("postgresql://a,b/x")
