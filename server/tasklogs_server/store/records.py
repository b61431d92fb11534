"""What the store reads and writes, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from tasklogs.log.delta import Delta
from tasklogs.log.entry import NO_NAMES, Names, Time
from tasklogs_server.domain.description import Description
from tasklogs_server.domain.status import Facts
from tasklogs_server.domain.synced import StoredState


@dataclass(frozen=True, slots=True)
class TailHead:
    """The tail without its content.

    `type` is one of EntryType, or the number of a type that a later version stored. `part_bytes`
    counts the content in tail parts, without the entry's row. 0: the row is the whole tail.
    """

    id: int
    type: int
    time: Time
    revision: int
    dropped_bytes: int
    part_bytes: int
    names: Names = NO_NAMES


@dataclass(frozen=True, slots=True)
class Evicted:
    """What was evicted from a log: always its oldest part, up to `revision`.

    `rows` and `bytes` are counted as in LogHead. `epoch` and `ordinal` are those of the last entry
    that was evicted.
    """

    revision: int = 0
    epoch: int = 0
    ordinal: int = -1
    rows: int = 0
    bytes: int = 0


GENERATION_GAP = 1 << 32
"""By so much the revision jumps when the store has another history, so that none is used twice."""


def is_lost(revision: int, head_revision: int, lost_after: Sequence[int]) -> bool:
    """Whether a revision is of a history that the store has lost.

    `head_revision` and `lost_after` are those of the log's head. Then the holder of this revision
    knows changes that do not exist any more.
    """
    return revision > head_revision or any(
        last < revision < last + GENERATION_GAP for last in lost_after
    )


@dataclass(frozen=True, slots=True)
class LogHead:
    """The state of a task's log. Epoch 0: nothing was ever stored.

    `entries` counts the current epoch's entries. `bytes` counts the content of all epochs. `rows`
    counts the entries, epoch openings and withdrawals of all epochs. All three include what was
    evicted. `digest` covers the current epoch's sealed entries.

    `generation` is that of the log's last writer; see store/generations.py. After each revision in
    `lost_after`, GENERATION_GAP - 1 revisions are lost: those that a jump of the revision has left
    out. They are in ascending order.
    """

    epoch: int
    entries: int
    revision: int
    digest: bytes
    bytes: int
    snapshot_at: datetime | None
    tail: TailHead | None
    rows: int = 0
    evicted: Evicted = Evicted()
    generation: str = ""
    lost_after: Sequence[int] = ()

    def has_lost(self, revision: int) -> bool:
        """Whether a revision is of a history that the store has lost."""
        return is_lost(revision, self.revision, self.lost_after)

    @property
    def held_bytes(self) -> int:
        """Bytes of content that are not evicted, over all epochs."""
        return self.bytes - self.evicted.bytes

    @property
    def held_entries(self) -> int:
        """Entries of the current epoch that are not evicted."""
        lost = self.evicted.ordinal + 1 if self.evicted.epoch == self.epoch else 0
        return self.entries - lost


@dataclass(frozen=True, slots=True)
class Task:
    """A task, its facts (with an expired lease applied) and the head of its log.

    `prompt` and `labels` are None if they were not read.
    """

    task_id: UUID
    owner: str
    name: str
    display_name: str
    prompt: str | None
    labels: Mapping[str, str] | None
    standalone: bool
    created_at: datetime
    facts: Facts
    agent_connected: bool
    fence: int
    head: LogHead
    session_process: UUID | None = None
    """The process whose session the rows name. None: none, or it was lost."""

    @property
    def stored(self) -> StoredState:
        """What the task's rows said, to compare with a sync."""
        return StoredState(
            self.fence, self.head.revision, self.facts.start_build, self.session_process
        )

    @property
    def etag(self) -> str | None:
        """The etag of the description. None if the labels were not read."""
        return None if self.labels is None else Description(self.display_name, self.labels).etag


@dataclass(frozen=True, slots=True)
class EarlierCreation:
    """The task that an earlier call with the same owner and request id created."""

    task_id: UUID
    request_hash: bytes


@dataclass(frozen=True, slots=True)
class Tail:
    """The tail with its content, into which its parts are folded."""

    head: TailHead
    content: bytes


@dataclass(frozen=True, slots=True)
class EntryRow:
    """A whole entry. `ordinal` is its position in the epoch, from 0 and without gaps."""

    epoch: int
    ordinal: int
    id: int
    revision: int
    head: bytes
    content: bytes
    type: int


@dataclass(frozen=True, slots=True)
class TailPart:
    """A change of the tail. `crc32`: that of the content afterwards. It is not stored."""

    revision: int
    delta: Delta
    crc32: int


@dataclass(frozen=True, slots=True)
class EpochOpened:
    """The current epoch began at this revision."""

    revision: int
    epoch: int


@dataclass(frozen=True, slots=True)
class TailWithdrawn:
    """The entry was withdrawn at this revision. `type` None: unknown."""

    revision: int
    epoch: int
    ordinal: int
    id: int
    type: int | None = None


@dataclass(frozen=True, slots=True)
class Commit:
    """One task's changes.

    They are written if `fence`, `base_revision` and the head's generation equal the stored ones.
    """

    task_id: UUID
    fence: int
    base_revision: int
    head: LogHead
    """The head after the commit. Its `snapshot_at` never moves the stored one back."""
    rows: Sequence[EntryRow] = ()
    part: TailPart | None = None
    drops_parts: bool = False
    """Delete the stored parts: their content is in a row of `rows`, or was withdrawn."""
    events: Sequence[EpochOpened | TailWithdrawn] = ()
    size_bytes: int = field(default=0)
    """About how many bytes of content and text it carries. A folded tail counts as a whole."""
