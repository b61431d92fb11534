"""Two agents, each with a task app and a server, and one trouble after another."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import psutil

from tests.support.fakes.agent_server import FakeServer, Refusal
from tests.support.fakes.task_app import FakeTaskApp
from tests.support.fixtures.conditions import until
from tests.system.agent_hour import child
from tests.system.agent_hour.logs import FileLog, Log, PipeLog, Trouble
from tests.system.soak import moved_clock

MIB = 1024 * 1024


@dataclass(frozen=True)
class Pace:
    """How fast everything goes, in seconds."""

    step: float = 10.0
    """The length of a trouble, and of the quiet after it."""
    say: float = 1.0
    """Between two changes of a conversation."""
    look_up: float = 20.0
    """What a look-up takes while the name server is slow."""


@dataclass
class Outcome:
    """What is known of one agent at the end."""

    exit_code: int | None
    said_goodbye: bool
    shown: Sequence[str]
    """What the task app showed, message by message."""
    stored: Sequence[str]
    epochs: int
    log: str
    sessions: int
    rss_bytes: Sequence[int]
    """Resident bytes, at the end of each step."""
    failures: Sequence[BaseException]


@dataclass
class _Agent:
    """An agent, with its two peers."""

    app: FakeTaskApp
    server: FakeServer
    log: Log
    directory: Path
    process: asyncio.subprocess.Process
    measured: psutil.Process = field(init=False)
    rss_bytes: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.measured = psutil.Process(self.process.pid)

    @property
    def shown(self) -> list[str]:
        return [one.content for one in self.app.messages]

    def troubles(self) -> Iterator[Trouble]:
        yield from self.log.troubles(self.measured)
        clock, look_ups = self.directory / child.CLOCK, self.directory / child.LOOK_UP_SECONDS
        for name, offset in (("an hour back", -3600.0), ("a day ahead", 86_400.0)):
            yield Trouble(
                f"the clock is set {name}",
                lambda offset=offset: moved_clock.move(clock, offset),  # type: ignore[misc]
                lambda: moved_clock.move(clock, 0.0),
            )
        yield Trouble(
            "the name server is slow",
            lambda: _write(look_ups, str(self.look_up_seconds)),
            lambda: look_ups.unlink(),
        )

    look_up_seconds: float = 0.0

    def break_connections(self) -> None:
        """End the stream, and the connections to the task app: the agent logs that, and dials."""
        if self.server.sessions:
            self.server.sessions[-1].end(Refusal(grpc.StatusCode.UNAVAILABLE))
        self.app.drop_subscribers()
        self.app.drop_connections()


async def run(
    directory: Path, seconds: float, pace: Pace, tell: Callable[[str], None]
) -> list[Outcome]:
    """Run both agents for so long, at least through each trouble once."""
    logs: Sequence[Log] = (PipeLog(directory / "pipe"), FileLog(directory / "file"))
    async with contextlib.AsyncExitStack() as stack:
        agents = []
        for number, log in enumerate(logs):
            own = directory / str(number)
            own.mkdir()
            agents.append(await stack.enter_async_context(_started(own, log, pace)))
        talking = [asyncio.create_task(_talk(agent.app, pace)) for agent in agents]
        try:
            await asyncio.gather(*(_trouble(agent, seconds, pace, tell) for agent in agents))
        finally:
            for task in talking:
                task.cancel()
            await asyncio.wait(talking)
        return [await _ended(agent) for agent in agents]


@asynccontextmanager
async def _started(directory: Path, log: Log, pace: Pace) -> AsyncIterator[_Agent]:
    async with FakeTaskApp() as app, FakeServer() as server:
        app.become_ready()
        stderr = log.open()
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", child.__name__, "agent", "--server", server.address),
                "--agentapi-url",
                app.url.replace("127.0.0.1", child.TASK_APP_HOST),
                stdin=asyncio.subprocess.DEVNULL,
                stderr=stderr,
                env={
                    **os.environ,
                    child.DIRECTORY_VARIABLE: str(directory),
                    "TASKLOGS_AGENT_TOKEN": "a-token",
                },
            )
        finally:
            os.close(stderr)
        try:
            await server.session()
            yield _Agent(app, server, log, directory, process, look_up_seconds=pace.look_up)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            log.close()


async def _talk(app: FakeTaskApp, pace: Pace) -> None:
    for number in itertools.count():
        app.say(("user", "agent")[number % 2], f"message {number}")
        for word in range(3):
            await asyncio.sleep(pace.say)
            app.grow(f" and word {word}")


async def _trouble(agent: _Agent, seconds: float, pace: Pace, tell: Callable[[str], None]) -> None:
    ends_at = asyncio.get_running_loop().time() + seconds
    troubles = list(agent.troubles())
    for number in itertools.count():
        if number >= len(troubles) and asyncio.get_running_loop().time() >= ends_at:
            return
        trouble = troubles[number % len(troubles)]
        trouble.begin()
        agent.break_connections()
        await asyncio.sleep(pace.step / 2)
        agent.break_connections()
        await asyncio.sleep(pace.step / 2)
        trouble.end()
        agent.break_connections()
        await asyncio.sleep(pace.step)
        agent.rss_bytes.append(agent.measured.memory_info().rss)
        tell(
            f"{agent.directory.name}: {trouble.name}: {len(agent.server.store.contents)} of"
            f" {len(agent.shown)} messages stored, {len(agent.server.sessions)} sessions,"
            f" {agent.rss_bytes[-1] / MIB:.0f} MiB"
        )


async def _ended(agent: _Agent) -> Outcome:
    """Wait until all is stored, and let the agent leave. The outcome shows what is missing."""
    with contextlib.suppress(TimeoutError):
        await until(lambda: list(agent.server.store.contents) == agent.shown)
    agent.process.send_signal(signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(60.0):
            await agent.process.wait()
    agent.log.close()
    store = agent.server.store
    return Outcome(
        agent.process.returncode,
        bool(agent.server.sessions) and agent.server.sessions[-1].said_goodbye,
        agent.shown,
        list(store.contents),
        len(store.epochs),
        agent.log.text(),
        len(agent.server.sessions),
        agent.rss_bytes,
        list(agent.server.failures),
    )


def _write(file: Path, text: str) -> None:
    written = file.with_suffix(".new")
    written.write_text(text)
    written.replace(file)
