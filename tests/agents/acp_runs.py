"""The real agents over ACP: one process for one turn after another, until it is killed or closed.

What a host would log is in one file. It has the messages of all processes, one after the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from tests.agents import runs
from tests.agents.acp_host import MAX_LINE_BYTES, AcpHost
from tests.agents.runs import Home
from tests.support.model_server import Call

_TURN_SECONDS = 240
_EXIT_SECONDS = 60


@dataclass(frozen=True)
class Turn:
    """A prompt that is being answered."""

    run: AcpRun
    stop_reason: asyncio.Task[str]

    async def ended(self) -> str:
        """Wait for the answer; return why it ended."""
        async with asyncio.timeout(_TURN_SECONDS):
            return await self.stop_reason

    async def kill(self) -> None:
        """Kill the agent once it has said something of its answer."""
        assert self.run.host is not None
        async with asyncio.timeout(_TURN_SECONDS):
            await self.run.host.said.wait()
        await self.run.kill()
        await asyncio.wait({self.stop_reason})
        self.stop_reason.exception()


@dataclass
class AcpRun:
    """One agent over ACP."""

    at: Home
    host: AcpHost | None = None
    name: ClassVar[str]
    loads_again: ClassVar[bool] = True
    """Whether it can load a session that was loaded before."""
    _process: Process | None = None
    _session: str | None = None
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    @property
    def transcript(self) -> Path:
        return self.at.root / "record" / "acp.jsonl"

    def command(self) -> list[str]:
        """Return the agent's command in its ACP mode, and write its settings."""
        raise NotImplementedError

    def variables(self) -> Mapping[str, str]:
        """Return the agent's environment variables."""
        return {}

    async def may_load(self) -> None:
        """Wait until the agent can load a session again."""

    async def start(self, prompt: str, *, resume: bool, fork: bool = False) -> Turn:
        assert not fork, "forks are no stable part of the protocol"
        async with asyncio.timeout(_TURN_SECONDS):
            if self.host is None:
                if resume:
                    await self.may_load()
                await self._connect()
                self._session = await self._host.begin(
                    self.at.work, self._session if resume else None
                )
            elif not resume:
                self._session = await self._host.new_session(self.at.work)
        assert self._session is not None
        return Turn(self, asyncio.create_task(self._host.prompt(self._session, prompt)))

    @property
    def _host(self) -> AcpHost:
        assert self.host is not None
        return self.host

    async def _connect(self) -> None:
        await asyncio.to_thread(self.transcript.parent.mkdir, exist_ok=True)
        self._process = await asyncio.create_subprocess_exec(
            *self.command(),
            cwd=self.at.work,
            env=self.at.environment(self.variables()),
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            limit=MAX_LINE_BYTES,
            start_new_session=True,
        )
        self.host = await self._stack.enter_async_context(AcpHost(self._process, self.transcript))

    async def close(self) -> None:
        """End the agent, if it runs: it exits when its input ends."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(_EXIT_SECONDS):
                await self._process.wait()
        finally:
            await self.kill()

    async def kill(self) -> None:
        """Kill the agent and its own children, which are in its session."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()
        await self._stack.aclose()
        self.host = self._process = None


class AcpClaudeCode(AcpRun):
    name = "acp-claude-code"
    read_call = staticmethod(runs.ClaudeCode.read_call)

    @staticmethod
    def write_call(path: Path) -> Call:
        return Call("Write", {"file_path": str(path), "content": "written\n"})

    def command(self) -> list[str]:
        return [str(self.at.installed / "node_modules/.bin/claude-agent-acp")]

    def variables(self) -> Mapping[str, str]:
        return runs.ClaudeCode(self.at).variables


class AcpGemini(AcpRun):
    name = "acp-gemini"
    loads_again = False  # the start after a load deletes the session
    read_call = staticmethod(runs.Gemini.read_call)

    @staticmethod
    def write_call(path: Path) -> Call:
        return Call("write_file", {"file_path": str(path), "content": "written\n"})

    def command(self) -> list[str]:
        gemini = runs.Gemini(self.at)
        gemini.configure()
        return [*gemini.command, "--acp"]

    def variables(self) -> Mapping[str, str]:
        return runs.Gemini(self.at).variables

    async def may_load(self) -> None:
        # Its files are named by the minute: in the same one it writes over the session it loads.
        await asyncio.sleep(60 - time.time() % 60)


class AcpOpenCode(AcpRun):
    name = "acp-opencode"
    read_call = staticmethod(runs.OpenCode.read_call)

    @staticmethod
    def write_call(path: Path) -> Call:
        return Call("write", {"filePath": str(path), "content": "written\n"})

    def command(self) -> list[str]:
        opencode = runs.OpenCode(self.at)
        opencode.configure(permission={"edit": "ask"})
        return [opencode.binary, "acp"]

    def variables(self) -> Mapping[str, str]:
        return runs.OpenCode(self.at).variables
