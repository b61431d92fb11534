"""A handmade run of one task in which everything went well. Tests change it to make it fail."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.system.soak import shown, wire
from tests.system.soak.contents import mark
from tests.system.soak.fault import Part
from tests.system.soak.journal import Record
from tests.system.soak.ledger import (
    Ending,
    Failover,
    Held,
    Ledger,
    Read,
    Sessions,
    TaskLedger,
    Window,
)
from tests.system.soak.stored import Row, Stored, StoredEntry
from tests.system.soak.verdict import Verdict, judge

TASK = "local/demo"
QUESTION = "why?"
ANSWER = "Because it is so."
GROWTH = (0, 3, 7, len(ANSWER))
"""The lengths of the answer while it grew."""


def grown(step: int) -> str:
    return ANSWER[: GROWTH[step]]


def _shown() -> list[Record]:
    return [
        {"t": 10.0, "kind": "start", "number": 1},
        {"t": 10.0, "kind": "list", "messages": [[0, "agent", "hello"]]},
        {"t": 10.1, "kind": "ready"},
        {"t": 11.0, "kind": "say", "message": [1, "user", QUESTION]},
        {"t": 11.1, "kind": "say", "message": [2, "agent", ""]},
        {"t": 12.0, "kind": "grow", "text": ANSWER[0:3]},
        {"t": 13.0, "kind": "grow", "text": ANSWER[3:7]},
        {"t": 14.0, "kind": "grow", "text": ANSWER[7:]},
    ]


def _append(t: float, sequence: int, **fields: Any) -> Record:
    empty: Record = {"open_epoch": False, "withdraw_tail": False, "tail": None, "entries": []}
    return {"t": t, "kind": "append", "sequence": sequence, **empty, **fields}


def _wire() -> list[Record]:
    records = [
        {"t": 10.15, "kind": "hello"},
        {"t": 10.2, "kind": "welcome", "epoch": 0, "entries": 0, "revision": 0, "tail": None},
        _append(10.3, 1, open_epoch=True, entries=[[0, 2, "hello"]]),
        {"t": 10.31, "kind": "ack", "sequence": 1},
        _append(11.11, 2, entries=[[1, 1, QUESTION], [2, 2, ""]]),
        {"t": 11.12, "kind": "ack", "sequence": 2},
        _append(12.01, 3, tail=[2, [[0, 0, ANSWER[0:3]]]]),
        {"t": 12.02, "kind": "ack", "sequence": 3},
        _append(13.01, 4, tail=[2, [[0, 3, ANSWER[3:7]]]]),
        {"t": 13.02, "kind": "ack", "sequence": 4},
        _append(14.01, 5, tail=[2, [[0, 7, ANSWER[7:]]]]),
        {"t": 14.02, "kind": "ack", "sequence": 5},
    ]
    return [{"pid": 1, "stream": 1, **record} for record in records]


def _follow() -> list[Record]:
    def entries(t: float, *changes: list[Any]) -> Record:
        return {"t": t, "kind": "entries", "epoch": 1, "changes": list(changes)}

    return [
        {"t": 10.0, "kind": "status", "status": "ACTIVE"},
        {"t": 10.0, "kind": "caught_up"},
        {"t": 10.3, "kind": "epoch", "epoch": 1, "revision": 1},
        entries(10.3, [0, 2, None, mark("hello")]),
        entries(11.2, [1, 3, None, mark(QUESTION)], [2, 4, None, mark("")]),
        entries(12.1, [2, 5, 4, mark(grown(1))]),
        entries(14.1, [2, 7, 5, mark(ANSWER)]),
    ]


def live_read(began: float, step: int, *, revision: int) -> Read:
    """Return an answer with `snapshot=false` that shows the answer at a step of its growth."""
    return Read(
        began=began,
        ended=began + 0.05,
        task=TASK,
        tail=2,
        code="OK",
        epoch=1,
        revision=revision,
        entries=[(1, 3, mark(QUESTION)), (2, revision, mark(grown(step)))],
    )


def refused(
    code: str, reason: str | None = None, *, retry: bool = False, message: str = ""
) -> Read:
    return Read(20.0, 20.1, TASK, None, code, reason, retry, message)


def fault(began: float, ended: float, *parts: Part, lets_calls_finish: bool = False) -> Window:
    return Window(1, "a fault", began, ended, frozenset(parts), lets_calls_finish)


@dataclass
class SmallRun:
    """The records of the run. Change them before `judged`."""

    shown: list[Record] = field(default_factory=_shown)
    wire: list[Record] = field(default_factory=_wire)
    follow: list[Record] = field(default_factory=_follow)
    reads: list[Read] = field(default_factory=lambda: [live_read(12.5, 1, revision=5)])
    faults: list[Window] = field(default_factory=list)
    kills: list[float] = field(default_factory=list)
    entries: list[StoredEntry] = field(
        default_factory=lambda: [
            StoredEntry(0, 2, mark("hello")),
            StoredEntry(1, 3, mark(QUESTION)),
            StoredEntry(2, 7, mark(ANSWER)),
        ]
    )
    """The stored entries of the only epoch."""
    ending: Ending = field(
        default_factory=lambda: Ending(
            sessions=Sessions(1, [0, 1], [1]), used_since=9.0, idle_since=30.0
        )
    )
    held: dict[str, list[Held]] = field(
        default_factory=lambda: {
            "server-1": [Held(8.0, 7, 80, 30, 9, 100 << 20), Held(31.0, 7, 82, 40, 10, 120 << 20)],
            "server-2": [Held(31.0, 8, 80, 31, 9, 101 << 20)],
        }
    )
    failovers: list[Failover] = field(default_factory=list)

    @property
    def ledger(self) -> Ledger:
        rows = [Row(1, at, one.id, one.revision) for at, one in enumerate(self.entries)]
        stored = Stored(7, {1: self.entries}, rows, events=[1])
        seen = shown.replay(self.shown)
        task = TaskLedger(
            *(TASK, seen, wire.replay(self.wire, seen), stored),
            *({"deltas": self.follow}, self.kills, [10.0]),
        )
        ledger = Ledger([task], self.reads, self.faults, failovers=self.failovers)
        ledger.ending = self.ending
        ledger.held = self.held
        return ledger

    def judged(self) -> Verdict:
        return judge(self.ledger)
