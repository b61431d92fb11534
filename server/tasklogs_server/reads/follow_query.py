"""What a caller asks to follow."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from tasklogs_server.domain.names import TaskRef
from tasklogs_server.domain.read_plan import Source
from tasklogs_server.reads.tokens import Cursor


@dataclass(frozen=True, slots=True)
class FollowQuery:
    """What a caller asks to follow; `tail` and `cursor` exclude each other.

    `types`: only entries of these types; empty: all.
    `progress_interval`: the longest time without a message. None: the server's default.
    """

    ref: TaskRef
    sees_only: str | None
    """The only owner whose tasks the caller may see; None: the tasks of all owners."""
    source: Source
    tail: int | None
    cursor: Cursor | None
    deltas: bool
    compressed: bool = False
    types: tuple[int, ...] = ()
    progress_interval: timedelta | None = None
