"""The output of --help, and what it imports."""

from __future__ import annotations

import asyncio
import sys

import pytest

from tests.cli.command import environment, run

HEAVY = ("grpc", "google.protobuf", "rich.table", "rich.console", "httpx")
HEAVY_AT_THE_ROOT = (*HEAVY, "pydantic")
"""Typer itself imports pydantic when it reads the options of a command."""

SHOW_MODULES = """
import sys
from tasklogs.cli.main import app
try:
    app(sys.argv[1:], prog_name="tasklogs")
finally:
    print(*sys.modules, file=sys.stderr)
"""

COMMANDS = (
    ("serve",),
    ("agent",),
    ("logs",),
    ("upload",),
    ("server-info",),
    ("task",),
    ("task", "create"),
    ("task", "list"),
    ("task", "get"),
    ("task", "delete"),
    ("task", "update"),
    ("task", "report-build"),
    ("task", "report-agent"),
    ("task", "rotate-token"),
)


@pytest.mark.parametrize("command", [(), *COMMANDS], ids=" ".join)
async def test_help_imports_nothing_that_only_the_work_needs(command: tuple[str, ...]) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SHOW_MODULES,
        *command,
        "--help",
        env=environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    stdout, stderr = await process.communicate()

    assert stdout.startswith(" ".join(("Usage: tasklogs", *command)).encode())
    unwanted = HEAVY if command else HEAVY_AT_THE_ROOT
    assert [module for module in unwanted if module in stderr.decode().split()] == []


async def test_the_root_lists_every_command() -> None:
    finished = await run("--help")

    assert finished.code == 0
    for name in ("serve", "agent", "logs", "task"):
        assert f"\n  {name} " in finished.stdout


@pytest.mark.parametrize(
    ("command", "variables"),
    [
        (
            "serve",
            (
                "TASKLOGS_LISTEN",
                "TASKLOGS_DATABASE_URL",
                "TASKLOGS_DATA_DIR",
                "TASKLOGS_LOG_FORMAT",
                "TASKLOGS_LOG_LEVEL",
            ),
        ),
        ("logs", ("TASKLOGS_SERVER", "TASKLOGS_TIMEOUT")),
    ],
)
async def test_help_shows_the_variables_that_set_an_option(
    command: str, variables: tuple[str, ...]
) -> None:
    help_text = " ".join((await run(command, "--help")).stdout.split())

    for variable in variables:
        assert f"env var: {variable}" in help_text


async def test_version_is_the_packages() -> None:
    from importlib.metadata import version

    finished = await run("--version")

    assert (finished.code, finished.stdout) == (0, f"tasklogs {version('tasklogs')}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("logs",),
        ("logs", "local/demo", "--source", "yesterday"),
        ("logs", "local/demo", "-n", "-1"),
        ("logs", "local/demo", "-n", "2147483648"),
        ("logs", "local/demo", "--epoch", "0"),
        ("logs", "local/demo", "--max-staleness", "-1"),
        ("logs", "local/demo", "--max-staleness", "nan"),
        ("logs", "local/demo", "--timeout", "inf"),
        ("logs", "local/demo", "--server", "localhost"),
        ("logs", "local/demo", "--server", "localhost:99999"),
        ("task", "create", "demo", "--label", "env"),
        ("task", "create", "demo", "--label", "env=a", "--label", "env=b"),
        ("task", "update", "local/demo"),
        ("task", "update", "local/demo", "--label", "env"),
        ("task", "update", "local/demo", "--label", "env=a", "--remove-label", "env"),
        ("task", "list", "--view", "whole"),
        ("task", "report-agent", "local/demo", "--build-number", "1"),
        ("task", "report-build", "local/demo", "--build-number", "0"),
        ("serve", "--listen", "50051"),
        ("serve", "--log-level", "loud"),
    ],
    ids=" ".join,
)
async def test_bad_usage_exits_2_with_a_reason_and_without_a_traceback(
    arguments: tuple[str, ...],
) -> None:
    finished = await run(*arguments)

    assert finished.code == 2
    assert finished.stdout == ""
    assert "Error: " in finished.stderr
    assert "Traceback" not in finished.stderr
