"""Random histories of a log, applied to a draft and to a model of what must be read back."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TypeAlias
from uuid import UUID

from hypothesis import strategies as st

from tasklogs.log import delta, digest
from tasklogs.log.append import Append, TailChange
from tasklogs.log.entry import NO_NAMES, Entry, EntryType, Names, Time
from tasklogs.v1 import task_logs_pb2, types_pb2
from tasklogs_server.ingest.draft import Draft
from tasklogs_server.store.records import Commit, EpochOpened, LogHead, TailPart, TailWithdrawn
from tests.support.fixtures.content_deltas import cut, result_of

TASK = UUID(int=1)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
EMPTY_HEAD = LogHead(0, 0, 0, digest.EMPTY, 0, None, None)

Operation: TypeAlias = "tuple[str, Sequence[str], int]"
ShownEntry: TypeAlias = tuple[int, int, int, str, Names]
"""Id, type, seconds, content and names."""

_TEXT = st.text(st.sampled_from("ab€𝄞\0"), max_size=12)
_TEXTS = st.lists(_TEXT, max_size=3)
_KINDS = [
    *("open", "entries", "entries", "grow", "grow", "grow", "replace", "withdraw"),
    *("cut", "cut", "cut", "grow and entries", "cut and entries"),
    *("take", "take", "take", "take", "fold", "release", "reconnect"),
]
_TYPES = list(EntryType)
_NAMES = [NO_NAMES, Names(call_id="c1"), Names("m\0", "€", "c" * 255), NO_NAMES, Names(name="bash")]
OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(_KINDS),
        _TEXTS,
        st.integers(0, 6),
    ),
    max_size=40,
)


@dataclass
class ModelStore:
    """Applies commits to a dictionary as Postgres does, and checks the rules."""

    head: LogHead = EMPTY_HEAD
    rows: dict[tuple[int, int], tuple[int, bytes, bytes]] = field(default_factory=dict)
    parts: list[TailPart] = field(default_factory=list)
    events: int = 0

    def apply(self, commit: Commit) -> None:
        """Write a commit. Fail if it breaks I1 or I2."""
        assert commit.base_revision == self.head.revision
        self._check_revisions(commit)
        if commit.drops_parts:
            self.parts = [one for one in self.parts if one.revision > commit.base_revision]
        taken = {(row.epoch, row.ordinal) for row in commit.rows}
        assert len(taken) == len(commit.rows), "one statement may not touch a row twice"
        for event in commit.events:
            if isinstance(event, TailWithdrawn):
                assert self._is_open(event.epoch, event.ordinal), "only the tail is withdrawn"
                if (event.epoch, event.ordinal) not in taken:
                    del self.rows[event.epoch, event.ordinal]
        for row in commit.rows:
            self._check_sealed(row.epoch, row.ordinal, row.content)
            self.rows[row.epoch, row.ordinal] = (row.revision, row.head, row.content)
        self.events += len(commit.events)
        if commit.part is not None:
            self.parts.append(commit.part)
        self.head = commit.head
        assert bool(self.parts) == (self.head.tail is not None and self.head.tail.part_bytes > 0)

    def tail_content(self) -> bytes:
        """Fold the tail's parts into its row."""
        content = self.rows[self.head.epoch, self.head.entries - 1][2]
        for part in self.parts:
            content = delta.apply(content, part.delta)
            assert part.crc32 == zlib.crc32(content)
        return content

    def epochs(self) -> list[list[types_pb2.TaskLogEntry]]:
        """Read everything back, as a client decodes it."""
        read: list[list[types_pb2.TaskLogEntry]] = [[] for _ in range(self.head.epoch)]
        for (epoch, ordinal), (_, head, content) in sorted(self.rows.items()):
            assert ordinal == len(read[epoch - 1]), "ordinals have no gaps"
            encoded = head + content
            (entry,) = task_logs_pb2.GetTaskLogsResponse.FromString(encoded).logs
            read[epoch - 1].append(entry)
        if self.parts:
            assert self.head.tail is not None
            tail = read[-1][-1]
            tail.content = self.tail_content().decode()
            tail.revision = self.head.tail.revision
            tail.time.seconds = self.head.tail.time.seconds
        return read

    def _check_revisions(self, commit: Commit) -> None:
        places: list[tuple[int, int, int]] = []
        for row in commit.rows:
            if row.revision > commit.base_revision:  # otherwise it was folded without a change
                places.append((row.revision, row.epoch, row.ordinal))
        for event in commit.events:
            ordinal = -1 if isinstance(event, EpochOpened) else event.ordinal
            places.append((event.revision, event.epoch, ordinal))
        if commit.part is not None:
            last = commit.head.entries - 1
            places.append((commit.part.revision, commit.head.epoch, last))
        places.sort()
        revisions = [revision for revision, _, _ in places]
        assert revisions == list(range(commit.base_revision + 1, commit.head.revision + 1))
        order = [(epoch, ordinal) for _, epoch, ordinal in places]
        assert order == sorted(order), "revisions follow epochs and ids"

    def _is_open(self, epoch: int, ordinal: int) -> bool:
        head = self.head
        return head.tail is not None and (epoch, ordinal) == (head.epoch, head.entries - 1)

    def _check_sealed(self, epoch: int, ordinal: int, content: bytes) -> None:
        if (epoch, ordinal) in self.rows and not self._is_open(epoch, ordinal):
            raise AssertionError("a sealed entry is written again")
        if (epoch, ordinal) not in self.rows:
            behind = (self.head.epoch, self.head.entries - (self.head.tail is not None))
            assert (epoch, ordinal) >= behind, "written below the tail"


class History:
    """A draft, a model of the log, and operations that are applied to both."""

    def __init__(self) -> None:
        self.draft = Draft(EMPTY_HEAD)
        self.epochs: list[list[Entry]] = []
        self.has_tail = False
        self._sequence = 0
        self._clock = 0
        self._ids = 0

    def apply(self, operation: Operation) -> None:
        """Do one operation, if it is possible now."""
        kind, texts, number = operation
        match kind:
            case "open":
                self._open(texts)
            case "entries" if self.epochs:
                self._append(entries=self._new(texts, number))
            case "grow" if self.has_tail:
                self._append(tail=self._grown("".join(texts), number))
            case "replace" if self.has_tail:
                replaced = replace(self._tail, content="".join(texts).encode(), time=self._now())
                self._append(entries=[replaced, *self._new(texts[:number], 0)])
            case "withdraw" if self.has_tail:
                self._withdraw(self._new(texts, number))
            case "cut" if self.has_tail:
                self._append(tail=self._cut(texts, number))
            case "grow and entries" | "cut and entries" if self.has_tail:
                if kind == "cut and entries":
                    tail = self._cut(texts, number)
                else:
                    tail = self._grown(texts[0] if texts else "", number)
                self._append(tail=tail, entries=self._new(texts, 0))

    def next_commit(self) -> Commit | None:
        """Return a commit with the changes since the last one."""
        return self.draft.next_commit(TASK, 1, NOW)

    @property
    def size_bytes(self) -> int:
        """Content of all epochs."""
        return sum(len(entry.content) for epoch in self.epochs for entry in epoch)

    @property
    def sealed_digest(self) -> bytes:
        """The digest over the current epoch's sealed entries."""
        current = self.epochs[-1] if self.epochs else []
        return digest.seal_all(current[:-1] if self.has_tail else current)

    @property
    def _tail(self) -> Entry:
        return self.epochs[-1][-1]

    def _now(self) -> Time:
        self._clock += 1
        return Time(self._clock, 0)

    def _new(self, texts: Sequence[str], gap: int) -> list[Entry]:
        made = []
        for text in texts:
            self._ids += 1 + gap
            type_ = _TYPES[self._ids % len(_TYPES)]
            names = _NAMES[self._ids % len(_NAMES)]
            made.append(Entry(self._ids, type_, self._now(), text.encode(), names=names))
        return made

    def _open(self, texts: Sequence[str]) -> None:
        self._ids = 0
        self.epochs.append([])
        self.has_tail = False
        self._append(open_epoch=True, entries=self._new(texts, 0))

    def _grown(self, text: str, number: int) -> TailChange:
        tail = self._tail
        kept = tail.content.decode()
        keep_bytes = len(kept[: max(0, len(kept) - number // 2)].encode())
        return self._changed(delta.Delta.keeping(keep_bytes, text.encode()))

    def _cut(self, texts: Sequence[str], number: int) -> TailChange:
        """Make a piece for each text, from all over the tail."""
        cuts = [
            (7 * index + number, 40 - 5 * index - number, text)
            for index, text in enumerate(texts or [""])
        ]
        return self._changed(cut(self._tail.content, cuts))

    def _changed(self, change: delta.Delta) -> TailChange:
        tail, time = self._tail, self._now()
        content = result_of(tail.content, change)
        self.epochs[-1][-1] = replace(tail, content=content, time=time)
        return TailChange(tail.id, time, change, zlib.crc32(content))

    def _withdraw(self, entries: Sequence[Entry]) -> None:
        self.epochs[-1].pop()
        self.has_tail = False
        self._append(withdraw_tail=True, entries=entries)

    def _append(
        self,
        *,
        open_epoch: bool = False,
        withdraw_tail: bool = False,
        tail: TailChange | None = None,
        entries: Sequence[Entry] = (),
    ) -> None:
        self._sequence += 1
        for entry in entries:
            if self.has_tail and self._tail.id == entry.id:
                self.epochs[-1].pop()
            self.epochs[-1].append(entry)
            self.has_tail = True
        self.draft.apply(Append(self._sequence, open_epoch, withdraw_tail, tail, entries))


def as_read(epochs: Sequence[Sequence[Entry]]) -> list[list[ShownEntry]]:
    """Return a model's entries in the form of `shown`."""
    return [
        [
            (entry.id, entry.type, entry.time.seconds, entry.content.decode(), entry.names)
            for entry in epoch
        ]
        for epoch in epochs
    ]


def shown(
    epochs: Sequence[Sequence[types_pb2.TaskLogEntry]],
) -> list[list[ShownEntry]]:
    """Return entries that were read back, without revisions."""
    return [
        [
            (
                entry.id,
                entry.type,
                entry.time.seconds,
                entry.content,
                Names(entry.source_id, entry.name, entry.call_id),
            )
            for entry in epoch
        ]
        for epoch in epochs
    ]
