"""Starts the drivers of the client libraries, and talks to them."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from tasklogs import (
    CaughtUp,
    EntriesChanged,
    EntryChange,
    EntryWithdrawn,
    EpochStarted,
    FollowEvent,
    LogEntry,
    Progress,
    StatusChanged,
    TaskLogsRpcError,
    TaskLogType,
    TaskStatus,
)
from tasklogs.client import decode
from tasklogs.v1 import types_pb2

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = ("python", "go", "typescript")
_TYPESCRIPT = ROOT / "clients/typescript"
_TSC = _TYPESCRIPT / "node_modules/.bin/tsc"
_LEAST_GO = (1, 25)
_BUILD_SECONDS = 600
_MOST_LINE_BYTES = 16 * 1024 * 1024


def missing(language: str) -> str | None:
    """Return why the driver of `language` cannot run here; None if it can."""
    if language == "go" and _go_version() < _LEAST_GO:
        return "no Go 1.25 or newer here: the Go client is not tested"
    if language == "typescript" and not _TSC.exists():
        return "`make check-ts` has installed nothing here: the TypeScript client is not tested"
    return None


def _go_version() -> tuple[int, ...]:
    if shutil.which("go") is None:
        return ()
    version = subprocess.run(
        ("go", "env", "GOVERSION"), capture_output=True, text=True, check=True
    ).stdout
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def command(language: str, directory: Path) -> Sequence[str]:
    """Return the command of a driver. If it must be built, it is built in `directory`."""
    if language == "python":
        return (sys.executable, "-m", "tests.conformance.python_driver")
    if language == "typescript":
        build = (str(_TSC), "-p", "tsconfig.test.json", "--outDir", str(directory))
        subprocess.run(build, cwd=_TYPESCRIPT, check=True, timeout=_BUILD_SECONDS)
        (directory / "package.json").write_text('{"type": "module"}')
        (directory / "node_modules").symlink_to(_TYPESCRIPT / "node_modules")
        return ("node", str(directory / "test/driver.js"))
    program = directory / "driver"
    build = ("go", "build", "-o", str(program), "./internal/conformance")
    subprocess.run(build, cwd=ROOT / "clients/go", check=True, timeout=_BUILD_SECONDS)
    return (str(program),)


class Driver:
    """A driver that runs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def start(self, target: str, **order: Any) -> None:
        """Tell it to follow. `lines` has what it prints."""
        assert self._process.stdin is not None
        order = {"task": "local/demo", "first_wait_ms": 1, "most_wait_ms": 2, **order}
        self._process.stdin.write(json.dumps({"target": target, **order}).encode() + b"\n")
        await self._process.stdin.drain()

    async def lines(self) -> AsyncIterator[dict[str, Any]]:
        """Yield what it prints, up to the line that says how the follow ended."""
        assert self._process.stdout is not None
        while True:
            text = await self._process.stdout.readline()
            assert text, "the driver ended"
            line: dict[str, Any] = json.loads(text)
            for change in line.get("changes", ()):
                # Text, where the language's JSON has no integers of this size.
                change["time_ns"] = int(change["time_ns"])
            yield line
            if line["event"] in ("left", "error"):
                return

    async def follow(self, target: str, **order: Any) -> list[dict[str, Any]]:
        """Return all that it prints for one follow."""
        await self.start(target, **order)
        return [line async for line in self.lines()]

    async def events(
        self, target: str, on_break: Callable[[bool], None], **order: Any
    ) -> AsyncIterator[FollowEvent]:
        """Yield what it prints for one follow as events. Raises the error that ends the follow.

        `on_break` is called at each break, and with True when the follow continues.
        """
        await self.start(target, **order)
        async for line in self.lines():
            match line["event"]:
                case "reconnecting" | "reconnected" as what:
                    on_break(what == "reconnected")
                case "error":
                    code = next(one for one in grpc.StatusCode if one.value[0] == line["code"])
                    raise TaskLogsRpcError(code=code, message=line["message"])
                case "left":
                    return
                case _:
                    yield event_of(line)


def event_of(line: dict[str, Any]) -> FollowEvent:
    """Return the event of a line. Without the facts of a status, which no driver prints."""
    cursor = line["cursor"]
    match line["event"]:
        case "status":
            nothing = decode.status_detail(types_pb2.StatusDetail())
            return StatusChanged(cursor=cursor, status=TaskStatus[line["status"]], detail=nothing)
        case "entries":
            changes = tuple(map(_change_of, line["changes"]))
            return EntriesChanged(cursor=cursor, epoch=line["epoch"], changes=changes)
        case "withdrawn":
            return EntryWithdrawn(
                cursor=cursor, epoch=line["epoch"], id=line["id"], revision=line["revision"]
            )
        case "epoch":
            return EpochStarted(cursor=cursor, epoch=line["epoch"], revision=line["revision"])
        case "caught_up":
            return CaughtUp(cursor=cursor)
        case "progress":
            return Progress(cursor=cursor)
        case what:
            raise AssertionError(f"an event of no kind: {what}")


_ENTRY = ("id", "content", "time_ns", "revision", "dropped_bytes", "source_id", "name", "call_id")


def _change_of(change: dict[str, Any]) -> EntryChange:
    fields = {name: change[name] for name in _ENTRY}
    return EntryChange(
        entry=LogEntry(type=TaskLogType(change["type"]), **fields),
        replaces=change["replaces"] or None,
        kept=len(change["content"].encode()[: change["kept_bytes"]].decode()),
        appended=change["appended"],
    )


@asynccontextmanager
async def running(command: Sequence[str]) -> AsyncIterator[Driver]:
    """Run a driver."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_MOST_LINE_BYTES,
    )
    try:
        yield Driver(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
