"""The interface of a fault, and the parts of the system that faults may affect."""

from __future__ import annotations

import enum
import random
import signal
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from tests.support.fakes.faulty_proxy import Direction, FaultyProxy, Target


class Part(enum.Enum):
    """A part that a fault affects. Two faults that affect the same part never overlap."""

    SERVER = enum.auto()
    POSTGRES = enum.auto()
    AGENTS = enum.auto()
    TASK_APPS = enum.auto()
    AGENT_NETWORK = enum.auto()
    READER_NETWORK = enum.auto()
    DATABASE_NETWORK = enum.auto()
    CLOCKS = enum.auto()
    BUS_NETWORK = enum.auto()
    """Only where several servers meet."""
    WORKERS = enum.auto()
    """Only where the last server has several workers."""
    BUS_NODES = enum.auto()
    """Only where they meet over NATS."""


class Process(Protocol):
    """A part of the system that runs as a process. A supervisor starts it again if it ends by
    itself. Use it from the event loop only."""

    @property
    def name(self) -> str:
        """`server 1`, `postgres`, `agent 3`, `task app 3`."""
        ...

    @property
    def pid(self) -> int:
        """The pid of the current process. For Postgres: of the postmaster."""
        ...

    async def kill(self) -> None:
        """Send SIGKILL, and wait until it is gone. It stays stopped until `start`."""
        ...

    async def start(self) -> None:
        """Start it if it does not run. It may need some time before it works."""
        ...

    async def end(self) -> int:
        """Send SIGTERM (Postgres: a fast shutdown). Returns the exit code. It stays stopped until
        `start`."""
        ...

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, for Postgres to all its processes at once. Does nothing if it is down."""
        ...


class Network(Protocol):
    """One or several networks that fail on command: tests.support.fakes.faulty_proxy."""

    @property
    def cuts(self) -> int: ...

    def cut(self) -> None: ...

    def cut_after(
        self, byte_count: int, direction: Direction = ..., *, everyone: bool = ...
    ) -> None: ...

    def mute(self, directions: Direction = ..., *, swallow: bool = ...) -> None: ...

    def delay(
        self, seconds: float | Callable[[int], float], directions: Direction = ...
    ) -> None: ...

    async def refuse(self) -> None: ...

    async def heal(self) -> None: ...


class ServerNetworks(Network, Protocol):
    """One network for each server."""

    target: Target
    """Where new connections lead."""

    def some(self, chance: random.Random) -> ServerNetworks:
        """Return the networks of all servers, or of one."""
        ...


class BusNode(Protocol):
    """A node of the NATS cluster."""

    @property
    def name(self) -> str: ...

    async def kill(self) -> None: ...

    async def start(self) -> None:
        """Start it again. It must have been killed."""
        ...

    def signal(self, number: signal.Signals) -> None: ...


class LaggingStandby(Protocol):
    """A standby that may replace the primary. What it lacks is then lost, as the checks know.

    The end of the block does what is left: of the two steps either both happen, or none.
    """

    @property
    def socket(self) -> Path:
        """Its unix socket: the target of `World.database_network` when it has taken over."""
        ...

    async def take_over(self) -> None:
        """Kill the primary for good. `World.postgres` is now the standby, which refuses writes
        until it is promoted."""
        ...

    async def promote(self) -> None:
        """Become a primary. A primary that was not killed goes on answering."""
        ...


class Postgres(Process, Protocol):
    """Durable (fsync on). The server connects over `World.database_network`, faults directly."""

    async def execute(self, statement: str) -> None:
        """Run one statement as superuser outside the server's database, for at most 30 s."""
        ...

    async def fill_disk(self) -> int | None:
        """Fill Postgres' own disk. Returns the bytes that were free. None: it has no disk of its
        own, and nothing was done."""
        ...

    async def empty_disk(self) -> None:
        """Free what `fill_disk` took."""
        ...

    @property
    def socket(self) -> Path:
        """The unix socket on which it listens now: the target of `World.database_network`."""
        ...

    def lagging_standby(self) -> AbstractAsyncContextManager[LaggingStandby | None]:
        """Run an asynchronous standby that lacks everything that is committed in the block.

        None: this Postgres has a disk of its own, and there is no standby.
        """
        ...

    def dsn(self, database: str = "tasklogs") -> str:
        """Return the superuser's DSN, over the unix socket and past every proxy."""
        ...


class Workspace(Protocol):
    """The compute of one task: an agent and a task app."""

    @property
    def number(self) -> int:
        """Counts from 1."""
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
        """tests/system/soak/task_app.py. It saves its state at SIGTERM, but not at SIGKILL."""
        ...

    @property
    def task_app_url(self) -> str:
        """AgentAPI's."""
        ...

    def another_agent(self) -> AbstractAsyncContextManager[Process]:
        """Run a second agent with the same token."""
        ...

    @property
    def state_file(self) -> Path:
        """The state that the task app loads at its start: a JSON list of messages (fakes.task_app).

        Written at SIGTERM and at the order `save`. While the task app is stopped, a fault may
        shorten, change, replace or remove it: fewer messages, other ones, an older save. Contents
        that a fault writes must be unique (for example made from the fault's own randomness).
        """
        ...

    @property
    def clock(self) -> Path:
        """The file that shifts the wall clocks of agent and task app (moved_clock)."""
        ...

    async def order(self, order: str, **arguments: Any) -> None:
        """Give the task app an order, see tests/system/soak/task_app.py: `save`, `withdraw`,
        `hang` (seconds), `fail` (path, how, times). Raises httpx.HTTPError if it does not
        answer."""
        ...


class Server(Process, Protocol):
    """`tasklogs serve`."""

    @property
    def port(self) -> int:
        """The port that the server itself listens on."""
        ...

    async def is_serving(self) -> bool:
        """Whether it reports SERVING now."""
        ...


class World(Protocol):
    """Everything that faults may affect."""

    @property
    def directory(self) -> Path:
        """Where faults may write files."""
        ...

    @property
    def servers(self) -> Sequence[Server]:
        """All servers. A fault of some of them chooses with faults.servers."""
        ...

    @property
    def postgres(self) -> Postgres:
        """Its database."""
        ...

    @property
    def server_clock(self) -> Path:
        """The file that shifts the wall clock of all servers: tests.system.soak.moved_clock."""
        ...

    @property
    def workspaces(self) -> Sequence[Workspace]:
        """One per task."""
        ...

    @property
    def agent_network(self) -> FaultyProxy:
        """From agents to the server."""
        ...

    @property
    def reader_network(self) -> FaultyProxy:
        """From readers and followers to the server."""
        ...

    @property
    def database_network(self) -> ServerNetworks:
        """From the servers to Postgres. It accepts TCP and forwards to a unix socket."""
        ...

    @property
    def bus_network(self) -> ServerNetworks:
        """From the servers to where they meet: Postgres or the nodes of NATS."""
        ...

    @property
    def bus_nodes(self) -> Sequence[BusNode]:
        """The nodes of the NATS cluster, if there is one."""
        ...

    def second_server(self, chance: random.Random) -> AbstractAsyncContextManager[Server]:
        """Run another `tasklogs serve` on the same database. Where there are several, it is one of
        them.

        Meanwhile a fault may set the `target` of a proxy to its `port`, and end it.
        """
        ...

    async def serving(self, *servers: Server) -> None:
        """Wait at most 60 s until these servers report SERVING."""
        ...


class Fault(Protocol):
    """One kind of fault. The same object is used each time it happens."""

    @property
    def name(self) -> str:
        """The name as it is printed and as `--only` takes it: `server-killed`."""
        ...

    @property
    def parts(self) -> frozenset[Part]:
        """The parts that it affects. SERVER and READER_NETWORK also excuse readers whose
        connection fails meanwhile."""
        ...

    @property
    def seconds(self) -> tuple[float, float]:
        """The shortest and the longest time that the schedule may give it."""
        ...

    @property
    def lets_calls_finish(self) -> bool:
        """Whether a call that reached the server must still get the server's own answer."""
        ...

    async def inject(self, world: World, chance: random.Random, seconds: float) -> str:
        """Do harm, wait `seconds` (or as long as needed), undo it. Returns one line about it.

        Takes all randomness from `chance`, so that a seed repeats the same run. Undoes the harm
        when cancelled, too. The system must be able to recover by itself from what remains.
        """
        ...
