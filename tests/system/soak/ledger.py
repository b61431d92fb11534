"""All records of a run, put together for the checks."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pydantic import TypeAdapter

from tests.system.soak import shown, wire
from tests.system.soak.fault import Part
from tests.system.soak.followers import KINDS
from tests.system.soak.journal import Record, read_journal
from tests.system.soak.shown import Shown
from tests.system.soak.stored import Stored
from tests.system.soak.wire import Append, Wire


@dataclass(frozen=True, slots=True)
class Read:
    """One call of a reader."""

    began: float
    ended: float
    task: str
    tail: int | None
    """How many of the last entries were requested. None means all."""
    code: str
    reason: str | None = None
    retry: bool = False
    """Whether the refusal had RetryInfo."""
    message: str = ""
    snapshot: bool = False
    epoch: int = 0
    revision: int = 0
    entries: Sequence[tuple[int, int, str]] = ()
    """Ids, revisions and content marks."""

    @property
    def is_ok(self) -> bool:
        return self.code == "OK"


@dataclass(frozen=True, slots=True)
class Window:
    """A fault that happened, from its begin until it was undone."""

    number: int
    name: str
    began: float
    ended: float
    parts: frozenset[Part]
    lets_calls_finish: bool = False
    what: str = ""
    error: str | None = None

    @property
    def kills_both(self) -> bool:
        """Whether it only kills agents and task apps together."""
        return self.parts == {Part.AGENTS, Part.TASK_APPS}


@dataclass(frozen=True, slots=True)
class Failover:
    """A standby replaced the primary without the commits from `since` until `killed`.

    The times are the last at which the standby had everything, the end of the former primary, and
    the promotion. A former primary that survived the promotion still answered between the two.
    """

    since: float
    killed: float
    promoted: float

    @property
    def begins(self) -> float:
        """From here on a call may see the standby."""
        return min(self.killed, self.promoted)

    @property
    def ends(self) -> float:
        """From here on the promoted standby is all that there is."""
        return max(self.killed, self.promoted)

    def may_have_lost(self, append: Append) -> bool:
        return append.sent <= self.killed and (append.acked or 0.0) >= self.since


@dataclass
class TaskLedger:
    """Everything about one task."""

    task: str
    shown: Shown
    wire: Wire
    stored: Stored
    follows: dict[str, list[Record]]
    """The records of its follower, per kind."""
    kills: list[float] = field(default_factory=list)
    """When agent and task app were killed together: the time before the first kill."""
    starts: list[float] = field(default_factory=list)
    """When an agent or a task app started."""


@dataclass(frozen=True)
class Sessions:
    """Where the agents' sessions are in the end."""

    tasks: int
    """How many tasks have an agent that is connected."""
    held: Sequence[int]
    """How many sessions each process of the servers has."""
    named: Sequence[int]
    """How many sessions the store names of each process that has one."""

    @property
    def agree(self) -> bool:
        """Whether each task has one session, where the store says."""
        held = sorted(one for one in self.held if one)
        return held == sorted(self.named) and sum(held) == self.tasks


@dataclass(frozen=True, slots=True)
class Held:
    """What a server held at a time."""

    t: float
    pid: int
    tasks: int
    """Of asyncio."""
    files: int
    threads: int
    rss_bytes: int
    names: Mapping[str, int] = field(default_factory=dict)
    """The most frequent tasks."""


@dataclass
class Ending:
    """What was seen after everything had ended."""

    stored: dict[str, Stored] = field(default_factory=dict)
    """The stored log of each task."""
    unsettled: list[str] = field(default_factory=list)
    """What did not agree in time."""
    recovered_after_seconds: float = 0.0
    """From the last fault until all servers answered."""
    settled_after_seconds: float = 0.0
    sessions: Sessions = field(default_factory=lambda: Sessions(0, [], []))
    used_since: float = -math.inf
    """Until then the servers had no call."""
    calm: tuple[float, float] | None = None
    """When tasks were busy, no fault ran and all had recovered from the faults."""
    idle_since: float = math.inf
    """From then on the servers had no call."""


# asyncio prints the result of a finished task on its own; a whole ledger would be too much.
@dataclass(repr=False)
class Ledger:
    """All records of a run."""

    tasks: list[TaskLedger]
    reads: list[Read]
    """In the order in which they ended."""
    faults: list[Window]
    ending: Ending = field(default_factory=Ending)
    failovers: list[Failover] = field(default_factory=list)
    """Oldest first."""
    held: Mapping[str, Sequence[Held]] = field(default_factory=dict)
    """What each server held, over time."""

    def is_excused(self, append: Append, by: float = math.inf) -> bool:
        """Whether a failover before `by` may have lost an acknowledged append."""
        return any(one.begins <= by and one.may_have_lost(append) for one in self.failovers)

    def last_kept(self, task: TaskLedger, before: float, by: float) -> Append | None:
        """Return the last append acknowledged before a time that no failover before `by` may have
        lost."""
        index = bisect_left(task.wire.ack_times, before) - 1
        while index >= 0 and self.is_excused(task.wire.acked[index], by):
            index -= 1
        return task.wire.acked[index] if index >= 0 else None

    def history_at(self, began: float, ended: float) -> int | None:
        """Return how many failovers were over when a call was made. None: one happened during
        it."""
        if any(began <= one.ends and ended >= one.begins for one in self.failovers):
            return None
        return sum(one.ends < began for one in self.failovers)

    def slowest_ack_seconds(self, began: float, ended: float) -> float:
        """Return the slowest ack of any task, of appends sent in a time span."""
        first, last = (bisect_left(self._sent, t) for t in (began, ended))
        return max((took for _, took in self._acks[first:last]), default=0.0)

    @cached_property
    def _acks(self) -> list[tuple[float, float]]:
        """The time at which each append was sent, and the seconds until its ack."""
        return sorted(
            (one.sent, (one.acked or 0.0) - one.sent)
            for task in self.tasks
            for one in task.wire.acked
        )

    @cached_property
    def _sent(self) -> list[float]:
        return [sent for sent, _ in self._acks]

    def faults_between(self, began: float, ended: float) -> list[Window]:
        """Return the faults that overlap a time span."""
        return [one for one in self.faults if one.began <= ended and one.ended >= began]


_TOGETHER_SECONDS = 0.02
_ENDING = "ending.json"
_ENDINGS = TypeAdapter(Ending)


def write_ending(directory: Path, ending: Ending) -> None:
    """Keep the ending of a run beside its other files."""
    (directory / _ENDING).write_bytes(_ENDINGS.dump_json(ending))


def read_again(directory: Path) -> Ledger:
    """Read the files of a run that is over. Raises FileNotFoundError if it did not come so far."""
    ending = _ENDINGS.validate_json((directory / _ENDING).read_bytes())
    return read_ledger(
        directory, [(one, directory / one.split("/")[1]) for one in ending.stored], ending
    )


def read_ledger(directory: Path, tasks: Iterable[tuple[str, Path]], ending: Ending) -> Ledger:
    """Read the files of a run. `tasks` are pairs of a task and its directory."""
    processes = list(read_journal(directory / "processes.jsonl"))
    found = []
    for number, (task, task_directory) in enumerate(tasks, 1):
        seen = shown.replay(read_journal(task_directory / "shown.jsonl"))
        own = (f"agent {number}", f"task app {number}")
        found.append(
            TaskLedger(
                task,
                seen,
                wire.replay(read_journal(task_directory / "wire.jsonl"), seen),
                ending.stored.get(task, Stored()),
                {
                    kind: list(read_journal(task_directory / f"followed-{kind}.jsonl"))
                    for kind in KINDS
                },
                kills=_kills_together(processes, *own),
                starts=[
                    one["t"] for one in processes if one["name"] in own and one["what"] == "started"
                ],
            )
        )
    reads = [_read(record) for record in read_journal(directory / "reads.jsonl")]
    windows = _windows(read_journal(directory / "faults.jsonl"))
    return Ledger(found, reads, windows, ending, _failovers(processes), _held(directory))


def _held(directory: Path) -> dict[str, list[Held]]:
    return {
        path.stem: [
            Held(**{name: value for name, value in one.items() if name != "kind"})
            for one in read_journal(path)
        ]
        for path in sorted(directory.glob("server-*.jsonl"))
    }


def _failovers(processes: Iterable[Record]) -> list[Failover]:
    return [
        Failover(one["since"], one["killed"], one["promoted"])
        for one in processes
        if one["what"] == "failed over"
    ]


def _kills_together(processes: Iterable[Record], agent: str, task_app: str) -> list[float]:
    kills: Mapping[str, list[float]] = {agent: [], task_app: []}
    for one in processes:
        if one["what"] == "SIGKILL" and one["name"] in kills:
            kills[one["name"]].append(one["t"])
    return [
        min(first, second)
        for first in kills[agent]
        for second in kills[task_app]
        if abs(first - second) < _TOGETHER_SECONDS
    ]


def _read(record: Record) -> Read:
    return Read(
        began=record["began"],
        ended=record["t"],
        task=record["task"],
        tail=record["tail"],
        code=record["code"],
        reason=record.get("reason"),
        retry=record.get("retry") is not None,
        message=record.get("message", ""),
        snapshot=record.get("snapshot", False),
        epoch=record.get("epoch", 0),
        revision=record.get("revision", 0),
        entries=[(one[0], one[1], one[2]) for one in record.get("entries", ())],
    )


def _windows(records: Iterable[Record]) -> list[Window]:
    began: dict[int, Record] = {}
    windows = []
    for record in records:
        if record["kind"] == "began":
            began[record["number"]] = record
            continue
        first = began.pop(record["number"])
        windows.append(
            Window(
                number=record["number"],
                name=first["name"],
                began=first["t"],
                ended=record["t"],
                parts=frozenset(Part[name] for name in first["parts"]),
                lets_calls_finish=first["lets_calls_finish"],
                what=record["what"],
                error=record["error"],
            )
        )
    return windows
