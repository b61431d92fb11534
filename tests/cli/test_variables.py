"""A variable that looks like a setting and is none."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.cli.command import run

# What Kubernetes injects where a Service is called tasklogs, or tasklogs-agent.
SERVICE_LINKS = {
    f"{service}_{name}": value
    for service in ("TASKLOGS", "TASKLOGS_AGENT", "TASKLOGS_SERVER")
    for name, value in {
        "SERVICE_HOST": "10.0.0.1",
        "SERVICE_PORT": "50051",
        "SERVICE_PORT_GRPC": "50051",
        "PORT": "tcp://10.0.0.1:50051",
        "PORT_50051_TCP": "tcp://10.0.0.1:50051",
        "PORT_50051_TCP_PROTO": "tcp",
        "PORT_50051_TCP_PORT": "50051",
        "PORT_50051_TCP_ADDR": "10.0.0.1",
    }.items()
}


async def said(*arguments: str, env: Mapping[str, str]) -> str:
    return (await run(*arguments, "--server=127.0.0.1:1", env=env)).stderr


@pytest.mark.parametrize(
    ("command", "misspelt", "meant"),
    [
        (("server-info",), "TASKLOGS_SEVER", "TASKLOGS_SERVER"),
        (("server-info",), "TASKLOGS_DB_URL", "TASKLOGS_DATABASE_URL"),
        (("task", "list"), "TASKLOGS_RETENTIONS", "TASKLOGS_RETENTION"),
        (("agent", "--token=x", "--source=nothing"), "TASKLOGS_TRANSCIRPT", "TASKLOGS_TRANSCRIPT"),
    ],
    ids=["of clients", "abbreviated", "of servers", "of agents"],
)
async def test_a_misspelt_variable_is_named_with_the_nearest(
    command: tuple[str, ...], misspelt: str, meant: str
) -> None:
    lines = await said(*command, env={misspelt: "x"})
    assert f"tasklogs: there is no setting {misspelt}: did you mean {meant}?\n" in lines


async def test_serve_warns_of_a_misspelt_variable() -> None:
    env = {"TASKLOGS_DRAIN_TIMEOUTS": "3", "TASKLOGS_LISTEN": "nonsense"}
    finished = await run("serve", env=env)
    assert "no setting TASKLOGS_DRAIN_TIMEOUTS: did you mean TASKLOGS_DRAIN_TIMEOUT?" in (
        finished.stderr
    )


@pytest.mark.parametrize(
    "env",
    [
        {},
        SERVICE_LINKS,
        {"TASKLOGS_TEST_CITUS_URL": "x", "TASKLOGS_SOMETHING_ELSE_ENTIRELY": "x"},
        {"TASKLOGS_RETENTION": "3", "TASKLOGS_TIMEOUT": "1", "TASKLOGS_TRACEBACK": ""},
    ],
    ids=["nothing", "service links", "of others", "settings"],
)
async def test_other_variables_are_no_mistakes(env: Mapping[str, str]) -> None:
    assert "no setting" not in await said("server-info", env=env)


async def test_service_links_are_no_settings_of_a_server() -> None:
    finished = await run("serve", env={**SERVICE_LINKS, "TASKLOGS_LISTEN": "nonsense"})
    assert finished.code == 2
    assert finished.stderr.splitlines()[-1].endswith("'nonsense' is not HOST:PORT")
