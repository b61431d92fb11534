"""A real `tasklogs serve`, in plain text without credentials or with TLS and tokens; its users."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import psutil

from tasklogs.v1 import task_logs_pb2_grpc, tasks_pb2, tasks_pb2_grpc, types_pb2
from tests.cli.command import TASKLOGS
from tests.support.fixtures.agent_stream import ScriptedAgent, log_entry
from tests.support.fixtures.authenticated import ADMIN
from tests.support.fixtures.certificates import Authority
from tests.support.fixtures.issuer import AUDIENCE, ISSUER, SigningKey, claims, new_key, publish
from tests.support.fixtures.ports import lasting_port
from tests.system.end_to_end.programs import Program, program
from tests.system.hostile.target import AGENT_TOKENS, LABELS, PROMPT, Target

_READY_SECONDS = 60.0
_TOKEN_SECONDS = 12 * 3600.0
HONEST, HOSTILE, HOSTILE_ADMIN = "alice", "mallory", "oscar"
BIG_LOG_ENTRIES, BIG_ENTRY_BYTES = 30, 100_000

Metadata = tuple[tuple[str, str], ...]


class Mode(StrEnum):
    """How the port is protected."""

    PLAIN = "plain"
    TLS = "tls"


@dataclass(frozen=True)
class User:
    """A user with its own channel. A ScriptedAgent needs the attribute `channel`."""

    name: str
    channel: grpc.aio.Channel
    metadata: Metadata

    @property
    def logs(self) -> task_logs_pb2_grpc.TaskLogsStub:
        return task_logs_pb2_grpc.TaskLogsStub(self.channel)

    @property
    def tasks(self) -> Any:
        return tasks_pb2_grpc.TasksStub(self.channel)

    async def create_task(self, name: str, **fields: Any) -> tasks_pb2.CreateTaskResponse:
        request = tasks_pb2.CreateTaskRequest(name=name, **fields)
        created: tasks_pb2.CreateTaskResponse = await self.tasks.CreateTask(
            request, metadata=self.metadata
        )
        return created


@dataclass(frozen=True)
class Served:
    """The process of a server."""

    mode: Mode
    port: int
    program: Program
    ca: Path | None
    key: SigningKey | None

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(self.program.pid)

    def token(self, subject: str, **more: Any) -> str | None:
        if self.key is None:
            return None
        return self.key.sign(claims(subject, expires_in=_TOKEN_SECONDS, **more))

    @asynccontextmanager
    async def user(self, subject: str) -> AsyncIterator[User]:
        """Open a connection for a user."""
        token = self.token(subject)
        metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        address = f"localhost:{self.port}"
        if self.ca is None:
            channel = grpc.aio.insecure_channel(address, options=options)
        else:
            credentials = grpc.ssl_channel_credentials(self.ca.read_bytes())
            channel = grpc.aio.secure_channel(address, credentials, options=options)
        async with channel:
            async with asyncio.timeout(_READY_SECONDS):
                await channel.channel_ready()
            yield User(subject, channel, metadata)

    async def target(self, big_entries: int = BIG_LOG_ENTRIES) -> Target:
        """Give the attackers what any user can get: their own tasks, one with a large log."""
        async with self.user(HOSTILE) as mallory:
            big = await mallory.create_task("big")
            other = await mallory.create_task("other")
            async with ScriptedAgent.connect(mallory, big.agent_token) as agent:
                for number in range(big_entries):
                    entry = log_entry(number, "x" * BIG_ENTRY_BYTES)
                    await agent.append([entry], open_epoch=number == 0)
                    await agent.acked()
        return Target(
            port=self.port,
            task=big.task.id,
            agent_token=other.agent_token,
            ca=None if self.ca is None else str(self.ca),
            user_token=self.token(HOSTILE),
            admin_token=self.token(HOSTILE_ADMIN, scope=ADMIN),
        )

    async def target_of_tokens(self, *, labelled: int = 100) -> Target:
        """Give the attackers a target with more of what any user can get.

        `labelled`: how many tasks they have whose prompts and labels are as long as possible.
        """
        target = await self.target()
        async with self.user(HOSTILE) as mallory:
            tokens = {
                name: (await mallory.create_task(name.replace(" ", "-"))).agent_token
                for name in AGENT_TOKENS
            }
            await mallory.create_task("rotated")
            for number in range(labelled):
                await mallory.create_task(f"labelled-{number}", prompt=PROMPT, labels=LABELS)
            await make_active(mallory, target.task)
        return dataclasses.replace(target, agent_tokens=tokens)


async def make_active(user: User, task: str) -> None:
    """Report a task's first build and its agent, so that its status is ACTIVE."""
    await user.tasks.ReportBuild(
        tasks_pb2.ReportBuildRequest(
            task=task,
            build_number=1,
            transition=types_pb2.BUILD_TRANSITION_START,
            job_status=types_pb2.JOB_STATUS_SUCCEEDED,
        ),
        metadata=user.metadata,
    )
    await user.tasks.ReportAgent(
        tasks_pb2.ReportAgentRequest(
            task=task,
            build_number=1,
            lifecycle=types_pb2.AGENT_LIFECYCLE_READY,
            app_health=types_pb2.APP_HEALTH_HEALTHY,
        ),
        metadata=user.metadata,
    )


@asynccontextmanager
async def served(
    directory: Path, mode: Mode, *, database_url: str | None = None, **settings: str
) -> AsyncIterator[Served]:
    """Run a server. `settings` are variables without their prefix, in lower case."""
    port = lasting_port()
    command = [str(TASKLOGS), "serve", f"--listen=127.0.0.1:{port}"]
    command.append(
        f"--data-dir={directory / 'data'}"
        if database_url is None
        else f"--database-url={database_url}"
    )
    ca: Path | None = None
    key: SigningKey | None = None
    if mode is Mode.TLS:
        authority = Authority(directory)
        pair, ca, key = authority.issue("server"), authority.ca, new_key("one")
        jwks = directory / "jwks.json"
        publish(jwks, key)
        command += [f"--tls-cert={pair.certificate}", f"--tls-key={pair.key}", "--auth=jwt"]
        command += [f"--jwt-issuer={ISSUER}", f"--jwt-audience={AUDIENCE}", f"--jwks-file={jwks}"]
    variables = {f"TASKLOGS_{name.upper()}": value for name, value in settings.items()}
    async with program(directory / "server.log", *command, **variables) as running:
        async with asyncio.timeout(_READY_SECONDS):
            while "serving on" not in running.said:
                assert running.is_running, running.said
                await asyncio.sleep(0.05)
        yield Served(mode, port, running, ca, key)
