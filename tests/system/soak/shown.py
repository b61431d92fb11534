"""What a task app showed, state by state, from its ledger."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.system.soak.contents import mark
from tests.system.soak.journal import Record


@dataclass(eq=False, repr=False, slots=True)
class Message:
    """One message in one state; the list as it was is itself and what it follows."""

    follows: Message | None
    id: int
    mark: str
    grown_from: Message | None
    text: str
    """The content, or what it has grown by."""

    @property
    def content(self) -> str:
        pieces = []
        one: Message | None = self
        while one is not None:
            pieces.append(one.text)
            one = one.grown_from
        return "".join(reversed(pieces))


@dataclass(frozen=True, slots=True)
class State:
    """What it showed from a moment on."""

    t: float
    tail: Message | None
    is_ready: bool
    """Whether the process has loaded what it had saved: an agent passes on nothing before."""

    def last(self, count: int | None) -> list[tuple[int, str]]:
        """Return ids and marks of the last `count` messages (None: all), in order."""
        found: list[tuple[int, str]] = []
        one = self.tail
        while one is not None and (count is None or len(found) < count):
            found.append((one.id, one.mark))
            one = one.follows
        return found[::-1]


@dataclass(frozen=True, slots=True)
class _Birth:
    """Where a content was first shown, and of which message."""

    index: int
    message: int
    shown: Message


@dataclass(repr=False)
class Shown:
    """All states of a task app over all its processes, oldest first."""

    states: list[State] = field(default_factory=list)
    withdrawn: dict[int, list[float]] = field(default_factory=dict)
    """By id: when a message with it was withdrawn."""
    starts: int = 0
    _births: dict[tuple[int, str], _Birth] = field(default_factory=dict)
    _tails: dict[tuple[int, str], list[int]] = field(default_factory=dict)
    """The states that had it as their tail."""
    _moments: list[float] = field(default_factory=list)

    def index_at(self, moment: float) -> int:
        """Return the index of the state that was shown at a moment; -1 where there was none."""
        return bisect_right(self._moments, moment) - 1

    def knows(self, entry_id: int, content: str) -> bool:
        """Whether a message was ever shown so, by a mark of its content."""
        return (entry_id, content) in self._births

    def content(self, entry_id: int, content: str) -> str:
        """Return the content of a mark. KeyError where it was never shown."""
        return self._births[entry_id, content].shown.content

    def first_index(self, entry_id: int, content: str) -> int:
        """Return the first state that showed it. KeyError where none did."""
        return self._births[entry_id, content].index

    def last_index(self, entry_id: int, content: str, *, before: float) -> int:
        """Return the last state before a moment whose tail it was; -1 where there was none."""
        tails = self._tails.get((entry_id, content), ())
        return max((one for one in tails if self._moments[one] <= before), default=-1)

    def is_later(self, entry_id: int, earlier: str, later: str) -> bool:
        """Whether `later` is `earlier` or what became of it; both marks of contents of `entry_id`.

        A message that another process shows under the same id is not what became of it, unless its
        content goes on from it; nor is an older save that is shown again.
        """
        if earlier == later:
            return True
        before = self._births.get((entry_id, earlier))
        after = self._births.get((entry_id, later))
        if before is None or after is None:
            return False
        if before.message == after.message:
            return after.index >= before.index
        return after.shown.content.startswith(before.shown.content)

    def add(self, t: float, tail: Message | None, *, is_ready: bool) -> None:
        """Add a state; whatever it shows first has been noted."""
        if tail is not None:
            self._tails.setdefault((tail.id, tail.mark), []).append(len(self.states))
        self.states.append(State(t, tail, is_ready))
        self._moments.append(t)

    def note(self, shown: Message, message: int) -> int:
        """Note a content of the state to come, of the message of that number; return the number of
        the message that first had it."""
        birth = _Birth(len(self.states), message, shown)
        return self._births.setdefault((shown.id, shown.mark), birth).message


def replay(records: Iterable[Record]) -> Shown:
    """Replay `shown.jsonl`, see tests/system/soak/task_app.py."""
    shown = Shown()
    numbers = itertools.count(1)
    tail: Message | None = None
    message = 0
    is_ready = False
    for record in records:
        t = record["t"]
        match record["kind"]:
            case "start":
                shown.starts += 1
                is_ready, tail = False, None
            case "ready":
                is_ready = True
            case "list":
                tail = None
                for entry_id, _, content in record["messages"]:
                    tail = Message(tail, entry_id, mark(content), None, content)
                    message = shown.note(tail, next(numbers))
            case "say":
                entry_id, _, content = record["message"]
                tail = Message(tail, entry_id, mark(content), None, content)
                message = next(numbers)
                shown.note(tail, message)
            case "grow":
                assert tail is not None
                content = tail.content + record["text"]
                tail = Message(tail.follows, tail.id, mark(content), tail, record["text"])
                shown.note(tail, message)
            case "redraw":
                assert tail is not None
                content = record["content"]
                tail = Message(tail.follows, tail.id, mark(content), None, content)
                shown.note(tail, message)
            case "withdraw":
                assert tail is not None
                shown.withdrawn.setdefault(tail.id, []).append(t)
                tail = tail.follows
        shown.add(t, tail, is_ready=is_ready)
    return shown
