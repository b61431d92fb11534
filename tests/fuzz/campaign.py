"""Runs each target in a process of its own, and collects the results."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.target import Engine

_ROOT = Path(__file__).parents[2]
# For the start, a slow last input, and a busy machine.
_GRACE_SECONDS = 180
_EDGES = re.compile(rb"\bcov: (\d+)")


@dataclass(frozen=True)
class Outcome:
    """The result of one target. `trouble` says why it ended early, with the path of the log."""

    name: str
    engine: Engine
    inputs: int
    seconds: float
    slowest_seconds: float
    edges: int | None
    findings: list[Path]
    trouble: str | None

    @property
    def is_good(self) -> bool:
        return not self.findings and self.trouble is None


async def fuzz(name: str, engine: Engine, *, seconds: int, seed: int, directory: Path) -> Outcome:
    """Run one target to its end. Findings of earlier runs do not count."""
    own = directory / name
    own.mkdir(parents=True, exist_ok=True)
    (own / "figures.json").unlink(missing_ok=True)
    before = set(_findings(own))
    log = own / "log.txt"
    command = [
        *(sys.executable, "-m", "tests.fuzz.child", name, engine.value),
        *("--seconds", str(seconds), "--seed", str(seed), "--directory", str(own.resolve())),
    ]
    # libFuzzer ends the process without clean-up, so files of a target stay in this directory.
    with tempfile.TemporaryDirectory(prefix="fuzz-", ignore_cleanup_errors=True) as temporary:
        Path(temporary).chmod(0o755)  # if this process is root, Postgres runs as another user
        trouble = await _ended(command, log, temporary, seconds + _GRACE_SECONDS)
    figures = _figures(own)
    if not figures["inputs"] and trouble is None:
        trouble = f"ran no input: {log}"
    return Outcome(
        name=name,
        engine=engine,
        inputs=int(figures["inputs"]),
        seconds=figures["seconds"],
        slowest_seconds=figures["slowest_seconds"],
        edges=_edges(log) if engine is Engine.COVERAGE else None,
        findings=[path for path in _findings(own) if path not in before],
        trouble=trouble,
    )


async def _ended(command: list[str], log: Path, temporary: str, seconds: float) -> str | None:
    """Run a child process to its end. Return what went wrong, if anything."""
    async with _running(command, log, temporary) as child:
        try:
            async with asyncio.timeout(seconds):
                code = await child.wait()
        except TimeoutError:
            return f"did not end within {seconds:g} s: {log}"
    return f"ended with code {code}: {log}" if code else None


@contextlib.asynccontextmanager
async def _running(
    command: list[str], log: Path, temporary: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    with log.open("wb") as output:
        child = await asyncio.create_subprocess_exec(
            *command,
            cwd=_ROOT,
            env={**os.environ, "TMPDIR": temporary},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


def _findings(directory: Path) -> list[Path]:
    found = directory / "findings"
    if not found.is_dir():
        return []
    return sorted(path for path in found.iterdir() if path.suffix != ".txt")


def _figures(directory: Path) -> dict[str, float]:
    figures: dict[str, float] = {"inputs": 0, "seconds": 0.0, "slowest_seconds": 0.0}
    with contextlib.suppress(FileNotFoundError):
        figures |= json.loads((directory / "figures.json").read_text())
    return figures


def _edges(log: Path) -> int | None:
    told = _EDGES.findall(log.read_bytes())
    return int(told[-1]) if told else None
