"""How much happened in a run, and how long the longest delay was."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

from tests.system.soak.checks.store import is_missing, was_steady
from tests.system.soak.ledger import Ledger, Read, TaskLedger

# After a fault an agent may wait this long before it connects again.
_RECOVERY_SECONDS = 15.0
_MB = 1 << 20


@dataclass(frozen=True)
class Figures:
    """Figures of one run. Delays are the seconds from the first display of a content to its ack."""

    states: int
    """Contents that the task apps showed. Each growth counts."""
    appends: int
    acknowledged: int
    entries: int
    """Stored entries."""
    epochs: int
    kills: int = 0
    """Kills of agent and task app together."""
    judged_kills: int = 0
    """Those without another fault: the 250 ms are checked for them."""
    failovers: int = 0
    """Failovers that may have lost acknowledged commits."""
    endangered_appends: int = 0
    """Acknowledged appends that the promoted standbys may have lacked."""
    lost_appends: int = 0
    """Those of which something is missing in the end, because the task app no longer showed it."""
    reads: dict[str, int] = field(default_factory=dict)
    """By code and reason. Successful reads are counted as live or stored."""
    slowest_read_seconds: float = 0.0
    events: int = 0
    longest_gap_seconds: float = 0.0
    longest_gap: str = ""
    """The task and the time of the longest delay."""
    longest_quiet_gap_seconds: float = 0.0
    """The longest delay while no fault was near."""
    calm_reads: int = 0
    """Reads while all was well: after everything had recovered from the last fault."""
    servers: dict[str, tuple[float, float, int]] = field(default_factory=dict)
    """By name: the most memory in MB, then memory and tasks in the end."""


def figures_of(ledger: Ledger) -> Figures:
    gaps = [gap for task in ledger.tasks for gap in _gaps(task)]
    quiet = [
        gap
        for gap in gaps
        if not ledger.faults_between(gap.shown_at - _RECOVERY_SECONDS, gap.shown_at + gap.seconds)
    ]
    endangered = [
        (task, one) for task in ledger.tasks for one in task.wire.acked if ledger.is_excused(one)
    ]
    longest = max(gaps, key=lambda gap: gap.seconds, default=None)
    return Figures(
        states=sum(len(task.shown.states) for task in ledger.tasks),
        appends=sum(len(task.wire.appends) for task in ledger.tasks),
        acknowledged=sum(len(task.wire.acked) for task in ledger.tasks),
        entries=sum(len(rows) for task in ledger.tasks for rows in task.stored.epochs.values()),
        epochs=sum(len(task.stored.epochs) for task in ledger.tasks),
        kills=sum(len(task.kills) for task in ledger.tasks),
        judged_kills=sum(
            was_steady(ledger, task, killed) for task in ledger.tasks for killed in task.kills
        ),
        failovers=len(ledger.failovers),
        endangered_appends=len(endangered),
        lost_appends=sum(
            any(is_missing(task, one, *change) for change in one.changes)
            for task, one in endangered
        ),
        reads=dict(sorted(Counter(_outcomes(ledger)).items())),
        slowest_read_seconds=max((one.ended - one.began for one in ledger.reads), default=0.0),
        events=sum(len(events) for task in ledger.tasks for events in task.follows.values()),
        longest_gap_seconds=0.0 if longest is None else longest.seconds,
        longest_gap="" if longest is None else f"{longest.task} at t={longest.shown_at:.3f}",
        longest_quiet_gap_seconds=max((gap.seconds for gap in quiet), default=0.0),
        calm_reads=sum(_is_calm(ledger, one) for one in ledger.reads),
        servers={
            name: (
                max(one.rss_bytes for one in held) / _MB,
                held[-1].rss_bytes / _MB,
                held[-1].tasks,
            )
            for name, held in ledger.held.items()
            if held
        },
    )


def _is_calm(ledger: Ledger, read: Read) -> bool:
    calm = ledger.ending.calm
    return calm is not None and calm[0] <= read.began and read.ended <= calm[1]


def _outcomes(ledger: Ledger) -> list[str]:
    return [
        ("stored" if one.snapshot else "live") if one.is_ok else f"{one.code} {one.reason or ''}"
        for one in ledger.reads
    ]


@dataclass(frozen=True, slots=True)
class _Gap:
    task: str
    shown_at: float
    seconds: float


def _gaps(task: TaskLedger) -> list[_Gap]:
    """Return each state that an agent may send, with its delay until an ack covers it."""
    covered: list[tuple[int, float]] = []
    for append in task.wire.acked:
        if append.changes and task.shown.knows(*append.changes[-1]):
            index = task.shown.last_index(*append.changes[-1], before=append.sent)
            covered.append((index, append.acked or 0.0))
    covered.sort()
    indexes = [index for index, _ in covered]
    earliest: list[float] = []
    for _, acked in reversed(covered):
        earliest.append(min(acked, earliest[-1]) if earliest else acked)
    earliest.reverse()
    gaps = []
    for index, state in enumerate(task.shown.states):
        at = bisect_left(indexes, index)
        if state.is_ready and at < len(indexes):
            gaps.append(_Gap(task.task, state.t, earliest[at] - state.t))
    return gaps
