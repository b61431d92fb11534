"""Children do not outlive the harness, and a child that ends by itself is started again."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from tests.support.fixtures.conditions import until
from tests.system.soak.child import Child, Spawner
from tests.system.soak.journal import Journal, read_journal

_ROOT = Path(__file__).parents[3]


@pytest.fixture
async def spawner(tmp_path: Path) -> AsyncIterator[Spawner]:
    async with Spawner(Journal(tmp_path / "processes.jsonl")) as running:
        yield running


def sleeper(spawner: Spawner, said: Path, *, code: str = "import time; time.sleep(60)") -> Child:
    return Child(spawner, "sleeper", said, lambda _: (sys.executable, "-c", code))


async def test_a_child_that_ends_by_itself_is_started_again(
    spawner: Spawner, tmp_path: Path
) -> None:
    child = sleeper(spawner, tmp_path / "said", code="print('here', flush=True)")
    await child.start()
    await until(lambda: child.starts > 1)
    assert child.gave_up >= 1
    assert (tmp_path / "said").read_text().startswith("here\n")


async def test_a_killed_child_stays_stopped_until_it_is_started(
    spawner: Spawner, tmp_path: Path
) -> None:
    child = sleeper(spawner, tmp_path / "said")
    await child.start()
    first = child.pid
    await child.kill()
    assert not psutil.pid_exists(first)
    assert (child.code, child.gave_up) == (-signal.SIGKILL, 0)
    await child.start()
    assert child.pid != first
    notes = [(one["what"], one["pid"]) for one in read_journal(tmp_path / "processes.jsonl")]
    assert notes[:3] == [("started", first), ("SIGKILL", first), ("ended", first)]


async def test_nothing_outlives_a_killed_harness(tmp_path: Path) -> None:
    harness = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-m",
            "tests.system.soak",
            "--tasks=2",
            "--only=none",
            f"--keep={tmp_path}",
        ),
        cwd=_ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert harness.stdout is not None
        async with asyncio.timeout(90):
            while not (await harness.stdout.readline()).startswith(b"up after"):
                assert harness.returncode is None
        below = psutil.Process(harness.pid).children(recursive=True)
        names = {one["name"] for one in read_journal(tmp_path / "processes.jsonl")}
        assert names == {
            *("postgres", "server 1", "agent 1", "agent 2", "task app 1", "task app 2")
        }
        assert len(below) > len(names)
        assert os.getpid() not in {one.pid for one in below}
    finally:
        harness.kill()
        await harness.wait()
    await until(lambda: not any(map(_lives, below)), seconds=60)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
