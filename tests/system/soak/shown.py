"""The states that a task app showed, replayed from its records."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.system.soak.contents import mark
from tests.system.soak.journal import Record


@dataclass(eq=False, repr=False, slots=True)
class Message:
    """One message in one state. The whole list is this message and all those before it."""

    follows: Message | None
    id: int
    mark: str
    grown_from: Message | None
    text: str
    """The whole content, or only what was appended to it."""

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
    """What the task app showed from a time on."""

    t: float
    tail: Message | None
    is_ready: bool
    """Whether the process has loaded its saved state. An agent sends nothing before that."""

    def last(self, count: int | None) -> list[tuple[int, str]]:
        """Return ids and marks of the last `count` messages (None: all), in order."""
        found: list[tuple[int, str]] = []
        one = self.tail
        while one is not None and (count is None or len(found) < count):
            found.append((one.id, one.mark))
            one = one.follows
        return found[::-1]


@dataclass(frozen=True, slots=True)
class _FirstShown:
    """The first state that showed a content, and the message that had it."""

    index: int
    message: int
    shown: Message


@dataclass(repr=False)
class Shown:
    """All states of a task app in all its processes, oldest first."""

    states: list[State] = field(default_factory=list)
    withdrawn: dict[int, list[float]] = field(default_factory=dict)
    """By id: the times at which a message with this id was withdrawn."""
    starts: int = 0
    _first_shown: dict[tuple[int, str], _FirstShown] = field(default_factory=dict)
    _indexes: dict[tuple[int, str], dict[int, int]] = field(default_factory=dict)
    """By number of a message: the first state in which it had the content. Screens of different
    processes may begin with the same words."""
    _tails: dict[tuple[int, str], list[int]] = field(default_factory=dict)
    """The states in which it was the tail."""
    _times: list[float] = field(default_factory=list)

    def index_at(self, t: float) -> int:
        """Return the index of the state at a time, or -1 if there was none yet."""
        return bisect_right(self._times, t) - 1

    def knows(self, entry_id: int, content: str) -> bool:
        """Whether an entry ever had the content with this mark."""
        return (entry_id, content) in self._first_shown

    def content(self, entry_id: int, content: str) -> str:
        """Return the content with this mark. KeyError if it was never shown."""
        return self._first_shown[entry_id, content].shown.content

    def first_index(self, entry_id: int, content: str) -> int:
        """Return the index of the first state that showed it. KeyError if none did."""
        return self._first_shown[entry_id, content].index

    def last_index(self, entry_id: int, content: str, *, before: float) -> int:
        """Return the last state before a time in which it was the tail, or -1 if there is none."""
        tails = self._tails.get((entry_id, content), ())
        return max((one for one in tails if self._times[one] <= before), default=-1)

    def is_later(self, entry_id: int, earlier: str, later: str) -> bool:
        """Whether `later` is `earlier`, grew from it, or has its id because it was withdrawn.

        Both are marks of contents of `entry_id`. A message of another process with the same id
        counts only if its content continues the earlier one. An older save that is shown again does
        not count.
        """
        if earlier == later or self._is_withdrawn_between(entry_id, earlier, later):
            return True
        before, after = (self._indexes.get((entry_id, one), {}) for one in (earlier, later))
        if messages := before.keys() & after.keys():
            return any(after[one] >= before[one] for one in messages)
        if not before or not after:
            return False
        return self.content(entry_id, later).startswith(self.content(entry_id, earlier))

    def _is_withdrawn_between(self, entry_id: int, earlier: str, later: str) -> bool:
        keys = (entry_id, earlier), (entry_id, later)
        if not all(key in self._first_shown for key in keys):
            return False
        first, then = (self._times[self._first_shown[key].index] for key in keys)
        return any(first <= t < then for t in self.withdrawn.get(entry_id, ()))

    def add(self, t: float, tail: Message | None, *, is_ready: bool) -> None:
        """Add a state. `note` was called before for the content that is new in it."""
        if tail is not None:
            self._tails.setdefault((tail.id, tail.mark), []).append(len(self.states))
        self.states.append(State(t, tail, is_ready))
        self._times.append(t)

    def note(self, shown: Message, message: int) -> int:
        """Record a content of the coming state and the number of its message. Returns the number
        of the message that first had this content."""
        key, index = (shown.id, shown.mark), len(self.states)
        first = self._first_shown.setdefault(key, _FirstShown(index, message, shown))
        self._indexes.setdefault(key, {}).setdefault(message, index)
        return first.message


def replay(records: Iterable[Record]) -> Shown:
    """Replay `shown.jsonl` (tests/system/soak/task_app.py has its format)."""
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
