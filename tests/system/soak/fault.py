"""What a fault is, and what of the world it may touch."""

from __future__ import annotations

import enum
import random
import signal
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from tests.support.fakes.faulty_proxy import FaultyProxy


class Part(enum.Enum):
    """What faults take hold of. Two that take hold of the same part never overlap."""

    SERVER = enum.auto()
    POSTGRES = enum.auto()
    AGENTS = enum.auto()
    TASK_APPS = enum.auto()
    AGENT_NETWORK = enum.auto()
    READER_NETWORK = enum.auto()
    DATABASE_NETWORK = enum.auto()
    CLOCKS = enum.auto()


class Process(Protocol):
    """A part of the world that runs as a process, under a supervisor that starts it again where it
    ends by itself. Belongs to the event loop."""

    @property
    def name(self) -> str:
        """`server`, `postgres`, `agent 3`, `task app 3`."""
        ...

    @property
    def pid(self) -> int:
        """The process of now; of Postgres the postmaster."""
        ...

    async def kill(self) -> None:
        """SIGKILL; returns when it is gone. It stays away until `start`."""
        ...

    async def start(self) -> None:
        """Start it, if it does not run. It may need a while to be of use."""
        ...

    async def end(self) -> int:
        """SIGTERM (Postgres: a fast shutdown); returns its exit code. It stays away until
        `start`."""
        ...

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; to all processes of Postgres at once. Nothing where it does not run."""
        ...


class Postgres(Process, Protocol):
    """Durable (fsync on). The server reaches it over `World.database_network`, faults directly."""

    async def execute(self, statement: str) -> None:
        """Run one statement as superuser, outside the server's database. 30 s at most."""
        ...

    async def fill_disk(self) -> int | None:
        """Leave no byte free on the disk that it has for itself; how many were. None: it has none,
        and nothing happened."""
        ...

    async def empty_disk(self) -> None:
        """Give back what `fill_disk` took."""
        ...

    def dsn(self, database: str = "tasklogs") -> str:
        """Superuser's, over the unix socket, past every proxy."""
        ...


class Workspace(Protocol):
    """One task's compute: an agent and a task app."""

    @property
    def number(self) -> int:
        """From 1."""
        ...

    @property
    def task(self) -> str:
        """`owner/name`."""
        ...

    @property
    def token(self) -> str:
        """The agent token."""
        ...

    @property
    def agent(self) -> Process:
        """`tasklogs agent`."""
        ...

    @property
    def task_app(self) -> Process:
        """tests/system/soak/task_app.py. SIGTERM saves its state, SIGKILL does not."""
        ...

    @property
    def task_app_url(self) -> str:
        """AgentAPI's."""
        ...

    def another_agent(self) -> AbstractAsyncContextManager[Process]:
        """Run one more agent with the same token."""
        ...

    @property
    def state_file(self) -> Path:
        """What the task app loads at its start: a JSON list of messages (fakes.task_app).

        Written at SIGTERM and at the order `save`. While the task app is away a fault may cut,
        change, replace or remove it: fewer messages, other ones, an older save. Contents that are
        put there must be unlike any other's (say the fault's chance in them).
        """
        ...

    @property
    def clock(self) -> Path:
        """The file that moves the wall clocks of agent and task app (moved_clock)."""
        ...

    async def order(self, order: str, **arguments: Any) -> None:
        """Tell the task app to do something, see tests/system/soak/task_app.py: `save`, `withdraw`,
        `hang` (seconds), `fail` (path, how, times). Raises httpx.HTTPError where it does not
        answer."""
        ...


class Server(Process, Protocol):
    """`tasklogs serve`."""

    @property
    def port(self) -> int:
        """Where it listens, itself."""
        ...


class World(Protocol):
    """What faults may touch."""

    @property
    def directory(self) -> Path:
        """For what a fault writes."""
        ...

    @property
    def server(self) -> Server:
        """The server."""
        ...

    @property
    def postgres(self) -> Postgres:
        """Its database."""
        ...

    @property
    def server_clock(self) -> Path:
        """The file that moves the wall clock of all servers: tests.system.soak.moved_clock."""
        ...

    @property
    def workspaces(self) -> Sequence[Workspace]:
        """One for each task."""
        ...

    @property
    def agent_network(self) -> FaultyProxy:
        """Agents to server."""
        ...

    @property
    def reader_network(self) -> FaultyProxy:
        """Readers and followers to server."""
        ...

    @property
    def database_network(self) -> FaultyProxy:
        """Server to Postgres; it takes TCP and passes on to a unix socket."""
        ...

    def second_server(self) -> AbstractAsyncContextManager[Server]:
        """Run another `tasklogs serve` on the same database, over the same database network.

        A proxy's `target` may be set to its `port` meanwhile.
        """
        ...

    async def serving(self, port: int | None = None) -> None:
        """Wait until the server at a port (None: the one) says that it is SERVING; 60 s at
        most."""
        ...


class Fault(Protocol):
    """One kind of fault; the same object is used for each that happens."""

    @property
    def name(self) -> str:
        """As printed and as `--only` takes it: `server-killed`."""
        ...

    @property
    def parts(self) -> frozenset[Part]:
        """What it takes hold of. SERVER and READER_NETWORK also excuse readers whose connection
        fails meanwhile."""
        ...

    @property
    def seconds(self) -> tuple[float, float]:
        """The shortest and longest that the schedule lets it last."""
        ...

    @property
    def lets_calls_finish(self) -> bool:
        """A call that reached the server gets the server's own answer: nothing excuses another."""
        ...

    async def inject(self, world: World, chance: random.Random, seconds: float) -> str:
        """Do harm, wait `seconds` (or as long as it must), undo it; return what it was, in a line.

        All chance comes from `chance`, so that the same seed does the same. Undo it also when
        cancelled. What is left behind must be able to recover by itself.
        """
        ...
