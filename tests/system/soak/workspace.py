"""The compute of one task, an agent and a task app: a tests.system.soak.fault.Workspace."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support.fixtures.ports import lasting_port
from tests.system.soak.agent_process import CLOCK, DIRECTORY_VARIABLE
from tests.system.soak.child import Child, Spawner

_LOOK_EVERY_SECONDS = 0.1


@dataclass(frozen=True)
class Load:
    """How much the task app says. `pause_seconds` is about the time from answer to question."""

    seed: int
    pause_seconds: float
    is_real: bool = False
    """Whether the task app is a real AgentAPI."""


class Workspace:
    def __init__(
        self,
        number: int,
        task: str,
        token: str,
        directory: Path,
        server: str,
        spawner: Spawner,
        load: Load,
    ) -> None:
        directory.mkdir()
        self.number = number
        self.task = task
        self.token = token
        self.directory = directory
        self.state_file = directory / "state.json"
        self.clock = directory / CLOCK
        self._server = server
        self._spawner = spawner
        self._load = load
        self._port = lasting_port()
        self._is_quiet = False
        self._agents = itertools.count(2)
        self.agent = self._agent(f"agent {number}")
        self.task_app = Child(
            spawner,
            f"task app {number}",
            directory / "task-app.out",
            self._task_app_command,
            entry=f"tests.system.soak.{'real_task_app' if load.is_real else 'task_app'}",
        )

    @property
    def task_app_url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def _agent(self, name: str) -> Child:
        return Child(
            self._spawner,
            name,
            self.directory / "agent.out",
            lambda _: (f"--server={self._server}", f"--agentapi-url={self.task_app_url}"),
            entry="tests.system.soak.agent_process",
            variables={
                "TASKLOGS_AGENT_TOKEN": self.token,
                DIRECTORY_VARIABLE: str(self.directory),
            },
        )

    def _task_app_command(self, start: int) -> tuple[str, ...]:
        return (
            f"--port={self._port}",
            f"--directory={self.directory}",
            f"--task={self.task}",
            f"--start={start}",
            f"--seed={self._load.seed}",
            f"--pause-seconds={self._load.pause_seconds}",
            *(["--quiet"] if self._is_quiet else []),
        )

    @asynccontextmanager
    async def another_agent(self) -> AsyncIterator[Child]:
        """Run a second agent with the same token."""
        agent = self._agent(f"agent {self.number} no. {next(self._agents)}")
        await agent.start()
        try:
            yield agent
        finally:
            await agent.kill()

    async def order(self, order: str, **arguments: Any) -> None:
        async with self._client() as client:
            await client.post("/order", json={"order": order, **arguments})

    async def settle(self) -> list[tuple[int, str]]:
        """Ask nothing more. Returns ids and contents of the conversation once no answer is in
        progress."""
        self._is_quiet = True
        async with self._client() as client:
            while True:
                try:
                    await client.post("/order", json={"order": "quiet"})
                    if (await client.get("/status")).json()["status"] == "stable":
                        shown = (await client.get("/messages")).json()["messages"]
                        return [(one["id"], one["content"]) for one in shown]
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(_LOOK_EVERY_SECONDS)

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.task_app_url, timeout=30, trust_env=False)
