"""Runs the examples, unchanged, on a real server.

They are in docstrings, in docs/client.md and in clients/python/examples.
"""

from __future__ import annotations

import asyncio
import doctest
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tasklogs import TaskLogsClient
from tasklogs.client import client, sync
from tests.support.fixtures.conditions import DEADLINE_SECONDS

WRITTEN_ADDRESS = "127.0.0.1:50051"
ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "client.md"
PROGRAMS = ROOT / "clients" / "python" / "examples"


def run_examples(text: str, name: str, address: str) -> None:
    """Run the examples of `text` in order, in one namespace; fail with the differences."""
    test = doctest.DocTestParser().get_doctest(
        text.replace(WRITTEN_ADDRESS, address), {}, name, name, 0
    )
    assert test.examples, f"{name} has no examples"
    said: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=said.append)
    assert not said, "".join(said)


@pytest.mark.parametrize("documented", [client.TaskLogsClient, sync.SyncTaskLogsClient])
async def test_the_examples_of_a_class_work(documented: type, address: str) -> None:
    found = doctest.DocTestFinder().find(documented, globs={})
    text = "\n".join(
        each.docstring or "" for each in sorted(found, key=lambda one: one.lineno or 0)
    )

    await asyncio.to_thread(run_examples, text, documented.__name__, address)


def test_every_example_of_the_page_is_one_that_runs() -> None:
    blocks = DOCUMENT.read_text().split("```python\n")[1:]
    assert [block for block in blocks if not block.startswith(">>> ")] == []


async def test_the_examples_of_the_page_work(address: str) -> None:
    await asyncio.to_thread(run_examples, DOCUMENT.read_text(), DOCUMENT.name, address)


@asynccontextmanager
async def running(program: str, *arguments: str) -> AsyncIterator[Process]:
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, str(PROGRAMS / program), *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            yield started
    finally:
        if started.returncode is None:
            started.kill()
            await started.communicate()


async def test_watch_tasks_shows_what_is_stored_and_what_changes(address: str) -> None:
    async with (
        running("watch_tasks.py", address, f"--seconds={DEADLINE_SECONDS}") as program,
        TaskLogsClient(address) as operator,
    ):
        assert program.stdout is not None
        said = [(await program.stdout.readline()).decode() for _ in "12"]
        await operator.delete_task("local/demo")
        rest, complaints = await program.communicate()

    assert said == ["local/demo: It is 42.\n", "local/demo: PAUSED\n"]
    assert (rest, complaints) == (b"local/demo: deleted\n", b"")
    assert program.returncode == 0


async def test_watch_tasks_says_in_one_line_that_there_is_no_server() -> None:
    async with running("watch_tasks.py", "127.0.0.1:9") as program:
        said, complaints = await program.communicate()

    assert (program.returncode, said) == (1, b"")
    assert complaints.startswith(b"UNAVAILABLE: ")
    assert complaints.count(b"\n") == 1
