"""Random histories of a log with entries of all types, for reads and follows of some types."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeAlias

from hypothesis import strategies as st

from tasklogs.log.entry import Entry, EntryType, Time
from tasklogs_server.store.evictions import LogLimits
from tests.reads.written_log import WrittenLog

Operation: TypeAlias = tuple[str, Sequence[EntryType], int]

_KINDS = [
    *("open", "add", "add", "add", "grow", "grow", "replace", "withdraw", "withdraw and add"),
    *("evict", "fold", "reopen"),
]
OPERATIONS: st.SearchStrategy[list[Operation]] = st.lists(
    st.tuples(
        st.sampled_from(_KINDS),
        st.lists(st.sampled_from(EntryType), min_size=1, max_size=4),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=20,
)

_SINGLE = [(int(one),) for one in EntryType]
FILTERS = [*_SINGLE[:3], tuple(map(int, EntryType))[:2], tuple(map(int, EntryType))]
"""Sets of types to read; the last one has all types."""


@dataclass
class TypedHistory:
    """A log, and operations on it as an agent and the server do them."""

    log: WrittenLog
    _tail: Entry | None = None
    _next_id: int = 0
    _began: bool = False
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def apply(self, operation: Operation) -> None:
        """Do one operation, if it is possible now."""
        kind, types, number = operation
        if kind == "open" or not self._began:
            self._began, self._next_id, self._tail = True, 0, None
            await self.log.entries(*self._new(types[: number + 1]), open_epoch=True)
        elif kind == "add":
            await self.log.entries(*self._new(types))
        elif kind == "evict":
            limits = LogLimits(rows=3 + 2 * number, bytes=1 << 20, min_retention=timedelta(0))
            await self.log.store.evictions.evict(self.log.task_id, limits)
        elif kind == "reopen":
            await self.log.reopen()
        elif self._tail is not None:
            await self._change(kind, self._tail, types, number)

    async def _change(
        self, kind: str, tail: Entry, types: Sequence[EntryType], number: int
    ) -> None:
        match kind:
            case "grow":
                text = f"+{next(self._numbers)}"
                kept = max(0, len(tail.content) - number)
                await self.log.grow(tail.id, text, keep_bytes=kept)
                self._tail = self._entry(tail.id, tail.type, tail.content[:kept] + text.encode())
            case "replace":
                content = f"replaced {next(self._numbers)}".encode()
                replaced = self._entry(tail.id, tail.type, content)
                self._tail = replaced
                await self.log.entries(replaced, *self._new(types[:number]))
            case "withdraw":
                self._tail = None
                await self.log.withdraw()
            case "withdraw and add":
                # The place of the withdrawn entry may get an entry of another type.
                self._next_id = tail.id + number % 2
                await self.log.withdraw(*self._new(types))
            case "fold":
                await self.log.fold()

    def _new(self, types: Sequence[EntryType]) -> list[Entry]:
        made = []
        for one in types:
            number = next(self._numbers)
            made.append(self._entry(self._next_id, one, str(number).encode() * (1 + number % 5)))
            self._next_id += 1 + number % 2
        self._tail = made[-1] if made else self._tail
        return made

    def _entry(self, id_: int, type_: EntryType, content: bytes) -> Entry:
        return Entry(id_, type_, Time(1 + next(self._numbers), 0), content)


async def written(log: WrittenLog, operations: Sequence[Operation]) -> TypedHistory:
    """Apply all operations."""
    history = TypedHistory(log)
    for one in operations:
        await history.apply(one)
    return history
