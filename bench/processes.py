"""Child processes of a run: servers that print their address. bench/clients.py has the clients."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import cast

_START_TIMEOUT_SECONDS = 60
_END_TIMEOUT_SECONDS = 20
_LOOK_SECONDS = 0.05
_SERVING = re.compile(r"serving on (\S+?);?$|serving on (\S+?);")


class Server:
    """A server process under test. `address` is where it serves."""

    def __init__(self, pid: int, address: str) -> None:
        self.pid = pid
        self.address = address


def port_of(server: Server) -> int:
    """Return the loopback port that a server has."""
    return int(server.address.rpartition(":")[2])


@asynccontextmanager
async def our_server(
    dsn: str, *, log: Path | None = None, variables: Mapping[str, str] | None = None
) -> AsyncIterator[Server]:
    """Run `tasklogs serve` on a database, as a user would, and end it with SIGTERM.

    Its log goes to the file `log`, if there is one; otherwise errors are shown.
    """
    command = Path(sys.executable).with_name("tasklogs")
    arguments = ["serve", "--listen", "127.0.0.1:0", "--database-url", dsn]
    environment = {"TASKLOGS_LOG_LEVEL": "error", **(variables or {})}
    async with _server([str(command), *arguments], environment, log) as server:
        yield server


@asynccontextmanager
async def bare_server(dsn: str, *, constant_bytes: int) -> AsyncIterator[Server]:
    """Run the bare server, see bench/bare_server.py."""
    arguments = ["-m", "bench.bare_server", dsn, str(constant_bytes)]
    async with _server([sys.executable, *arguments]) as server:
        yield server


@asynccontextmanager
async def _server(
    command: Sequence[str], variables: Mapping[str, str] | None = None, log: Path | None = None
) -> AsyncIterator[Server]:
    with ExitStack() as stack:
        said = asyncio.subprocess.PIPE if log is None else stack.enter_context(log.open("wb"))
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stderr=said,
            env=environment() | dict(variables or {}),
        )
    try:
        async with asyncio.timeout(_START_TIMEOUT_SECONDS):
            address = await (
                _address(process.stderr)
                if process.stderr is not None
                else _address_in(cast("Path", log), process)
            )
        rest = None if process.stderr is None else asyncio.create_task(_forward(process.stderr))
        try:
            yield Server(process.pid, address)
        finally:
            if rest is not None:
                rest.cancel()
    finally:
        await end(process)


async def _address_in(log: Path, process: asyncio.subprocess.Process) -> str:
    while True:
        said = await asyncio.to_thread(log.read_text)
        for line in said.splitlines():
            if found := _SERVING.search(line.strip()):
                return found.group(1) or found.group(2)
        if process.returncode is not None:
            raise RuntimeError("a server did not start: " + " ".join(said.split()))
        await asyncio.sleep(_LOOK_SECONDS)


async def _address(lines: asyncio.StreamReader) -> str:
    said = []
    while line := (await lines.readline()).decode():
        said.append(line)
        if found := _SERVING.search(line.strip()):
            return found.group(1) or found.group(2)
    raise RuntimeError("a server did not start: " + " ".join("".join(said).split()))


async def _forward(lines: asyncio.StreamReader) -> None:
    """Print the server's errors. An unread pipe would block it."""
    async for line in lines:
        if b"error" in line.lower():
            sys.stderr.write(line.decode(errors="replace"))


async def end(process: asyncio.subprocess.Process) -> None:
    """End a child process, and wait for it."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(_END_TIMEOUT_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def environment() -> dict[str, str]:
    """Return the environment of a child process."""
    # Otherwise gRPC would print the end of each stream on stderr.
    return {**os.environ, "GRPC_VERBOSITY": "NONE"}
