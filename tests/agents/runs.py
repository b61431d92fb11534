"""The real agents, each in a home and a workspace of its own, with the scripted model.

They run offline: the model is on loopback, all else is sent to a closed port. Telemetry and updates
are off, keys are dummies, and no flag bypasses permissions.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from tests.agents.scenario import LOOK
from tests.support.model_server import Call

_RUN_SECONDS = 240
_CLOSED = "http://127.0.0.1:9"


@dataclass
class Home:
    """Where an agent runs, and what is installed."""

    root: Path
    installed: Path
    """Where `make agents` installs them: it has `node_modules`, and Aider's environment."""
    model_url: str
    home: Path = field(init=False)
    work: Path = field(init=False)

    def __post_init__(self) -> None:
        self.home, self.work = self.root / "home", self.root / "work"
        self.home.mkdir(parents=True)
        self.work.mkdir()
        (self.work / "hello.txt").write_text("hello\n")

    def environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        environment = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        environment |= {"HOME": str(self.home), "NO_PROXY": "127.0.0.1,localhost"}
        return environment | {"HTTP_PROXY": _CLOSED, "HTTPS_PROXY": _CLOSED, **variables}

    async def start(self, *command: str, **variables: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *command,
            cwd=self.work,
            env=self.environment(variables),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )


@dataclass(frozen=True)
class Running:
    process: asyncio.subprocess.Process

    async def ended(self) -> str:
        """Wait for the end; return what it printed. Raises AssertionError if it failed."""
        async with asyncio.timeout(_RUN_SECONDS):
            output, _ = await self.process.communicate()
        said = output.decode(errors="replace")
        assert self.process.returncode == 0, said[-2000:]
        return said

    async def kill(self) -> None:
        """Kill it and its own children, which are in its session."""
        os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()


@dataclass
class ClaudeCode:
    at: Home
    name: ClassVar[str] = "claude-code"

    @property
    def transcript(self) -> Path:
        return self.at.home / ".claude" / "projects"

    @staticmethod
    def read_call(path: Path) -> Call:
        return Call("Read", {"file_path": str(path)})

    async def start(self, prompt: str, *, resume: bool, fork: bool = False) -> Running:
        # The binary itself: its wrapper wants a newer Node than most machines have.
        [binary] = (self.at.installed / "node_modules" / "@anthropic-ai").glob("*-linux-*/claude")
        more = ["--continue"] * resume + ["--fork-session"] * fork
        return Running(await self.at.start(str(binary), "-p", *more, prompt, **self.variables))

    @property
    def variables(self) -> Mapping[str, str]:
        return {
            "ANTHROPIC_BASE_URL": self.at.model_url,
            "ANTHROPIC_API_KEY": "dummy",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
            "DISABLE_TELEMETRY": "1",
            "DISABLE_ERROR_REPORTING": "1",
        }


@dataclass
class Codex:
    at: Home
    compact_above_tokens: int | None = None
    name: ClassVar[str] = "codex"

    @property
    def transcript(self) -> Path:
        return self.at.home / ".codex" / "sessions"

    @staticmethod
    def read_call(path: Path) -> Call:
        return Call("exec_command", {"cmd": f"cat {path}"})

    async def start(self, prompt: str, *, resume: bool, fork: bool = False) -> Running:
        assert not fork, "only its terminal program forks"
        self._configure()
        command = [str(self.at.installed / "node_modules/.bin/codex"), "exec"]
        more = ["resume", "--last"] * resume
        return Running(
            await self.at.start(*command, "--skip-git-repo-check", *more, prompt, MODEL_KEY="dummy")
        )

    def _configure(self) -> None:
        directory = self.at.home / ".codex"
        directory.mkdir(exist_ok=True)
        compact = self.compact_above_tokens
        lines = [
            'model = "scripted"',
            'model_provider = "scripted"',
            "check_for_update_on_startup = false",
            *([] if compact is None else [f"model_auto_compact_token_limit = {compact}"]),
            "[analytics]",
            "enabled = false",
            "[model_providers.scripted]",
            'name = "scripted"',
            f'base_url = "{self.at.model_url}/v1"',
            'wire_api = "responses"',
            'env_key = "MODEL_KEY"',
        ]
        (directory / "config.toml").write_text("\n".join(lines) + "\n")


@dataclass
class Gemini:
    at: Home
    name: ClassVar[str] = "gemini"

    @property
    def transcript(self) -> Path:
        return self.at.home / ".gemini" / "tmp"

    @staticmethod
    def read_call(path: Path) -> Call:
        return Call("read_file", {"file_path": str(path)})

    async def start(self, prompt: str, *, resume: bool, fork: bool = False) -> Running:
        assert not fork, "it has no forks"
        self.configure()
        more = ["--resume", "latest"] * resume
        return Running(await self.at.start(*self.command, *more, *("-p", prompt), **self.variables))

    @property
    def command(self) -> list[str]:
        return [str(self.at.installed / "node_modules/.bin/gemini"), "--model", "gemini-2.5-pro"]

    @property
    def variables(self) -> Mapping[str, str]:
        return {"GEMINI_API_KEY": "dummy", "GOOGLE_GEMINI_BASE_URL": self.at.model_url}

    def configure(self) -> None:
        directory = self.at.home / ".gemini"
        directory.mkdir(exist_ok=True)
        settings = {
            "security": {"auth": {"selectedType": "gemini-api-key"}},
            "privacy": {"usageStatisticsEnabled": False},
            "telemetry": {"enabled": False},
            "general": {"enableAutoUpdate": False, "disableUpdateNag": True},
        }
        (directory / "settings.json").write_text(json.dumps(settings))
        trusted = {str(self.at.work): "TRUST_FOLDER"}
        (directory / "trustedFolders.json").write_text(json.dumps(trusted))


@dataclass
class OpenCode:
    at: Home
    name: ClassVar[str] = "opencode"

    @property
    def transcript(self) -> Path:
        return self.at.home / ".local/share/opencode/opencode.db"

    @staticmethod
    def read_call(path: Path) -> Call:
        return Call("read", {"filePath": str(path)})

    async def start(self, prompt: str, *, resume: bool, fork: bool = False) -> Running:
        self.configure()
        more = ["--continue"] * resume + ["--fork"] * fork
        return Running(await self.at.start(self.binary, "run", *more, prompt, **self.variables))

    @property
    def binary(self) -> str:
        [path] = (self.at.installed / "node_modules").glob("opencode-linux-x64/bin/opencode")
        return str(path)

    @property
    def variables(self) -> Mapping[str, str]:
        return {"OPENCODE_DISABLE_AUTOUPDATE": "1", "OPENCODE_DISABLE_MODELS_FETCH": "1"}

    def configure(self, **more: Any) -> None:
        model = {"name": "scripted", "limit": {"context": 200_000, "output": 65_536}}
        provider = {
            "npm": "@ai-sdk/openai-compatible",
            "options": {"baseURL": f"{self.at.model_url}/v1", "apiKey": "dummy"},
            "models": {"scripted": model},
        }
        configuration = {
            "autoupdate": False,
            "share": "disabled",
            "model": "scripted/scripted",
            "small_model": "scripted/scripted",
            "provider": {"scripted": provider},
            **more,
        }
        (self.at.work / "opencode.json").write_text(json.dumps(configuration))


@dataclass
class Aider:
    at: Home
    name: ClassVar[str] = "aider"

    @property
    def transcript(self) -> Path:
        return self.at.work

    @staticmethod
    def read_call(path: Path) -> None:
        """It has no tools: it applies the edits that an answer has."""

    async def start(self, prompt: str, *, resume: bool, fork: bool = False) -> Running:
        assert not fork, "it has no forks"
        more = ["--restore-chat-history"] * resume
        # The file that may be edited, or a mode without edits.
        more += ["hello.txt"] if prompt == LOOK else ["--chat-mode", "ask"]
        return Running(
            await self.at.start(
                str(self.at.installed / "aider/bin/aider"),
                *("--model", "openai/scripted", "--max-chat-history-tokens", "1000000"),
                *("--no-auto-commits", "--no-git", "--no-check-update", "--analytics-disable"),
                *("--no-show-model-warnings", "--no-show-release-notes", "--no-detect-urls"),
                *more,
                *("--message", prompt),
                OPENAI_API_BASE=f"{self.at.model_url}/v1",
                OPENAI_API_KEY="dummy",
                LITELLM_LOCAL_MODEL_COST_MAP="True",
            )
        )


Run = ClaudeCode | Codex | Gemini | OpenCode | Aider
"""One agent. A command is one turn: the prompt's answer, with all its tool calls."""

AGENTS: Mapping[str, type[Run]] = {
    kind.name: kind for kind in (ClaudeCode, Codex, Gemini, OpenCode, Aider)
}
